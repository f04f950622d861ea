# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks measure with: CPU clocks of other processes, BPF run times, stolen time."""
import argparse
import ctypes
import os
import re
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
import harness  # noqa: E402

SYS_BPF, BPF_ENABLE_STATS = 321, 32
STEAL_LIMIT = 0.05  # windows in which the hypervisor took more are left out


def cpu_seconds(pid):
    """User and system time of a process with all its threads, gone ones too, in nanosecond steps
    (/proc/PID/stat counts in 10 ms, more than a profiler uses in a second)."""
    return time.clock_gettime((~pid << 3) | 2)


def children_cpu_seconds(pid):
    """{pid: CPU seconds} of the children that live now (the symbol helper)."""
    found = {}
    for child in harness.children_of(pid):
        try:
            found[child] = cpu_seconds(child)
        except OSError:
            pass  # ended between the two looks
    return found


def ended_children_cpu_seconds(pid):
    """CPU seconds of the children that have ended and were waited for, in steps of a clock tick."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


class Children:
    """CPU seconds of all children of a process from now on, those included that end meanwhile: what
    ended is known as it was at the last look, so look often."""

    def __init__(self, pid):
        self.pid = pid
        self.first = children_cpu_seconds(pid)
        self.last = dict(self.first)

    def look(self):
        self.last.update(children_cpu_seconds(self.pid))
        return growth(self.first, self.last)

    def watch(self, seconds):
        """Sleeps, with a look each half second."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(0.5, left))
            self.look()
        return self.look()


def growth(before, after):
    """CPU seconds between two children_cpu_seconds(); a child that is new counts from zero."""
    return sum(spent - before.get(child, 0.0) for child, spent in after.items())


class BpfStats:
    """Switches the kernel's BPF run-time statistics on for as long as it lives: the kernel itself
    switches them off when the descriptor closes, however this process ends."""

    def __enter__(self):
        attributes = (ctypes.c_char * 72).from_buffer(bytearray(struct.pack("=I", 0) + bytes(68)))
        self.fd = harness._libc.syscall(SYS_BPF, BPF_ENABLE_STATS, attributes, 72)
        self.reason = "" if self.fd >= 0 else os.strerror(ctypes.get_errno())
        return self

    def __exit__(self, *_):
        if self.fd >= 0:
            os.close(self.fd)


def bpf_programs(pid):
    """(runs, seconds) over all BPF programs that a process holds."""
    runs, ns, seen = 0, 0, set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fdinfo")
    except FileNotFoundError:
        return 0, 0.0
    for fd in descriptors:
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                text = file.read()
        except OSError:
            continue
        number = re.search(r"^prog_id:\s*(\d+)", text, re.M)
        count = re.search(r"^run_cnt:\s*(\d+)", text, re.M)
        if not number or not count or number.group(1) in seen:
            continue
        seen.add(number.group(1))
        runs += int(count.group(1))
        ns += int(re.search(r"^run_time_ns:\s*(\d+)", text, re.M).group(1))
    return runs, ns / 1e9


def begin(name, doc):
    """What every benchmark begins with: (arguments, harness), or (arguments, None) when this machine
    does not let us sample, which has been said then."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--bin-dir", required=True)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    harness.BIN_DIR = os.environ["FIREWATCH_BIN_DIR"] = os.path.abspath(arguments.bin_dir)
    reason = harness.why_no_sampling()
    if reason:
        print(f"SKIP {name}: no privilege to sample: {reason}")
        return arguments, None
    return arguments, harness


def steal_and_total():
    with open("/proc/stat", encoding="ascii") as file:
        values = [int(v) for v in file.readline().split()[1:9]]
    return values[7], sum(values)


class Slice:
    """One stretch of time: how much of it the hypervisor stole."""

    def __init__(self):
        self.stolen, self.all = steal_and_total()
        self.started = time.monotonic()

    def end(self):
        stolen, everything = steal_and_total()
        self.steal = (stolen - self.stolen) / max(1, everything - self.all)
        self.seconds = time.monotonic() - self.started
        return self

    def usable(self):
        return self.steal <= STEAL_LIMIT


def peak_rss_mb(pid):
    """Of a running program, 0.0 when it has ended. Not ru_maxrss, which begins with the size of the
    process that forked it."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            found = re.search(r"^VmHWM:\s+(\d+) kB", file.read(), re.M)
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0


def command_line(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def wait_counting(process):
    """Waits for a Popen: (resource usage, peak RSS in MB as of the last look, each 5 ms)."""
    own, ended, peaks = command_line("self"), threading.Event(), [0.0]

    def watch():
        while not ended.wait(0.005):
            try:
                # Until its exec it looks as large as this process.
                if command_line(process.pid) != own:
                    peaks.append(peak_rss_mb(process.pid))
            except OSError:
                return  # it has ended

    thread = threading.Thread(target=watch)
    thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    ended.set()
    thread.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage, max(peaks)


def run_counting(command, **options):
    """Runs a command to its end: (CPU seconds of it and of its children, peak RSS in MB)."""
    process = subprocess.Popen(command, **options)
    usage, most = wait_counting(process)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime, most


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else float("nan")


def print_table(title, columns, rows):
    print(f"\n{title}")
    table = [columns, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    for number, row in enumerate(table):
        print("  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(row, widths))))
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))
