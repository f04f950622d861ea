#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Event files (firewatch-agent --record-events), read from outside: the layout is that of
docs/formats.md, "Replay file".

    events.py trim IN OUT COMM[,COMM...]   keep what belongs to processes of these names: how
                                           tests/e2e/data/*.events were made
    events.py count FILE                   samples in a file
"""
import struct
import sys
import time

HEADER = struct.Struct("<8sIIq")  # magic, version, hz, unix time minus monotonic time in ns
RECORD = struct.Struct("<II")     # type, size of the payload, which is padded to 8 bytes
SAMPLE, EVENT = 1, 2
SAMPLE_TIME, SAMPLE_PID, SAMPLE_COMM = 8, 24, 40   # offsets in struct fw_sample
EVENT_PID, EVENT_COMM_SIZE, EVENT_COMM = 56, 76, 104  # offsets in an event's payload


def records(data):
    """(header fields, [(type, payload)]). Fails on a file that is cut short."""
    header = HEADER.unpack_from(data)
    found, at = [], HEADER.size
    while at < len(data):
        kind, size = RECORD.unpack_from(data, at)
        at += RECORD.size
        payload = data[at:at + size]
        assert len(payload) == size, "cut short"
        found.append((kind, payload))
        at += (size + 7) // 8 * 8
    return header, found


def read(path):
    with open(path, "rb") as file:
        return records(file.read())


def write(path, header, records):
    with open(path, "wb") as file:
        file.write(HEADER.pack(*header))
        for kind, payload in records:
            file.write(RECORD.pack(kind, len(payload)) + payload + bytes(-len(payload) % 8))


def count_samples(path):
    return sum(1 for kind, _ in read(path)[1] if kind == SAMPLE)


def pid_and_comm(kind, payload):
    if kind == SAMPLE:
        pid = struct.unpack_from("<I", payload, SAMPLE_PID)[0]
        return pid, payload[SAMPLE_COMM:SAMPLE_COMM + 16].split(b"\0")[0].decode()
    size = struct.unpack_from("<H", payload, EVENT_COMM_SIZE)[0]
    return (struct.unpack_from("<I", payload, EVENT_PID)[0],
            payload[EVENT_COMM:EVENT_COMM + size].decode(errors="replace"))


def trim(path_in, path_out, comms):
    """Only processes that once had one of the names: nothing of the machine's other processes."""
    header, records = read(path_in)
    wanted = {pid for pid, comm in (pid_and_comm(*record) for record in records) if comm in comms}
    kept = [record for record in records if pid_and_comm(*record)[0] in wanted]
    write(path_out, header, kept)
    return len(kept)


def as_if_recorded_now(path_in, path_out):
    """A copy whose last sample is a second old: servers drop what is older than their retention."""
    header, records = read(path_in)
    last_ns = max(struct.unpack_from("<Q", payload, SAMPLE_TIME)[0]
                  for kind, payload in records if kind == SAMPLE)
    write(path_out, (*header[:3], time.time_ns() - 1_000_000_000 - last_ns), records)


if __name__ == "__main__":
    if sys.argv[1] == "trim":
        print(f"{trim(sys.argv[2], sys.argv[3], sys.argv[4].split(','))} records kept")
    else:
        print(count_samples(sys.argv[2]))
