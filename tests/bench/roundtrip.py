#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From the close of a window on the agent to its samples in a query's answer.

usage: tests/bench/roundtrip.py --bin-dir DIR [--full]

Windows close at T0 + n * length by the agent's own timer; T0 is the start of the first window as
the stored profile says it (time_nanos). A query that asks every 10 ms tells when the total of a
steadily burning workload grew. No figure comes from Firewatch's own statistics.
"""
import json
import os
import sys
import tempfile
import time

import measure
from measure import median

SELECTOR = '{comm="workload_shares"}'


def watch_totals(server, windows, window_seconds):
    """Wall-clock times at which the total grew, and what a query itself took."""
    grew, query_ms, last = [], [], 0
    end = time.monotonic() + windows * window_seconds + 30
    while len(grew) < windows and time.monotonic() < end:
        asked = time.monotonic()
        total = json.loads(server.query("/api/v1/top", SELECTOR, type="samples", limit=1))["total"]
        query_ms.append((time.monotonic() - asked) * 1000)
        if total > last:
            grew.append(time.time())
            last = total
        time.sleep(0.01)
    return grew, query_ms


def measure_rate(harness, folder, hz, windows, window_seconds):
    started = []
    try:
        server = harness.Server(folder, os.path.join(folder, "data"))
        started.append(server)
        server.wait_healthy()
        seconds = str(windows * window_seconds + 60)
        started.append(harness.Program(folder, "workload_shares", [
            harness.binary("workload_shares"), "--threads", "2", "--seconds", seconds]))
        agent = harness.Agent(folder, server.grpc_port, hz=hz, window=f"{window_seconds}s")
        started.append(agent)
        agent.wait_healthy()
        grew, query_ms = watch_totals(server, windows, window_seconds)
        first_start = server.profile(SELECTOR).time_nanos / 1e9
        late_ms = sorted((moment - first_start) % window_seconds * 1000 for moment in grew)
        agent.stop()
        server.stop()
    finally:
        for program in reversed(started):
            program.kill()
    print(f"  {hz} Hz: {len(late_ms)} windows of {window_seconds} s: close -> visible "
          f"median {median(late_ms):.0f} ms, max {late_ms[-1]:.0f} ms "
          f"(one query: median {median(query_ms):.1f} ms; polled every 10 ms)")
    return late_ms


def main():
    arguments, harness = measure.begin("roundtrip", __doc__)
    if harness is None:
        return 0
    print("roundtrip: window closed on the agent -> in a query's answer (target: 2 s)")
    # Windows longer than the target, so that a late answer cannot pass for the next one's.
    rates = [(99, 10, 5)] + ([(997, 10, 5), (19, 12, 10)] if arguments.full else [])
    for hz, windows, window_seconds in rates:
        with tempfile.TemporaryDirectory(prefix="firewatch-bench-") as folder:
            measure_rate(harness, folder, hz, windows, window_seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
