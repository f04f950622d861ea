#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What names and lines cost an agent that has run for a while: two agents beside each other at 19 Hz,
one with lines and one without, on one load in one run.

usage: tests/bench/steady.py --bin-dir DIR [--full] [--hz N] [--own]

Load: a RocksDB of Debian's, stacks of 57 frames without frame pointers, inlined calls four deep,
60-frame stacks with frame pointers; the two agents and their servers are profiled too. Each minute
is one row: CPU of the agent's process, the thread that takes most of it, of the children, also those
that have ended (the symbol helpers; what reads lines apart, by the agent's own counter), private memory of agent and
children apart. The first minute is the start: names and lines of the machine are read then.
--own: of this load alone, for a machine on which others build programs meanwhile.
"""
import argparse
import os
import sys
import tempfile
import time

import measure
from measure import Slice, print_table

HZ = 19
MINUTE = 60
CPUS = os.cpu_count() or 1
LOADS = [("workload_rocksdb", None), ("workload_depth_nofp", ["--depth", "54"]),
         ("workload_inlined", []), ("workload_inline_chain", []), ("workload_shares", ["--threads", "1"])]


def thread_seconds(pid):
    """{(thread, name): CPU seconds}"""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                spent = int(file.read().split()[0]) / 1e9
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
                found[int(thread), file.read().strip()] = spent
        except OSError:
            pass  # it ended
    return found


class Look:
    def __init__(self, harness, agent):
        page = agent.metrics()
        self.samples = page["firewatch_samples_total"]
        self.windows = page["firewatch_windows_total"]
        self.lines_ms = page.get("firewatch_symbol_line_cpu_milliseconds_total", 0)
        self.waiting = page.get("firewatch_symbol_line_files_waiting", 0)
        self.mapped = page.get("firewatch_symbol_index_mapped_bytes", 0) / 1e6
        self.page = page
        self.agent = measure.cpu_seconds(agent.pid)
        self.threads = thread_seconds(agent.pid)
        self.children = (sum(measure.children_cpu_seconds(agent.pid).values()) +
                         measure.ended_children_cpu_seconds(agent.pid))
        self.anonymous = harness.anonymous_kib(agent.pid, children=False) / 1024
        self.all_anonymous = harness.anonymous_kib(agent.pid) / 1024
        self.maps = harness.charged_maps_kib(agent.pid) / 1024


def row(name, minute, before, after, seconds, steal):
    samples = max(1, after.samples - before.samples)
    agent = after.agent - before.agent
    helpers = max(0, after.children - before.children)
    lines = (after.lines_ms - before.lines_ms) / 1000
    busiest = max(after.threads, key=lambda t: after.threads[t] - before.threads.get(t, 0))
    return [name, minute, f"{samples:.0f}", f"{1e6 * agent / samples:.1f}", f"{100 * agent / seconds:.3f}",
            f"{100 * (after.threads[busiest] - before.threads.get(busiest, 0)) / seconds:.3f}",
            f"{100 * helpers / seconds:.3f}", f"{100 * lines / seconds:.3f}", f"{after.waiting:.0f}",
            f"{after.anonymous:.1f}", f"{after.all_anonymous - after.anonymous:.1f}", f"{after.maps:.1f}",
            f"{after.mapped:.1f}", f"{100 * steal:.1f}"]


class Bench:
    def __init__(self, harness, folder):
        self.harness, self.folder, self.started = harness, folder, []

    def start(self, program):
        self.started.append(program)
        return program

    def end_all(self):
        for program in reversed(self.started):
            program.kill()

    def load(self):
        programs = []
        for name, arguments in LOADS:
            if not os.path.exists(self.harness.binary(name)):
                print(f"  SKIP load {name} is not built")
                continue
            command = [self.harness.binary(name)]
            command += ([os.path.join(self.folder, "rocksdb"), "3600"] if arguments is None else
                        [*arguments, "--seconds", "3600"])
            programs.append(self.start(self.harness.Program(self.folder, name, command)))
        return programs

    def agent(self, name, hz, arguments):
        folder = os.path.join(self.folder, name)
        os.mkdir(folder)
        server = self.start(self.harness.Server(folder, os.path.join(folder, "data"))).wait_healthy()
        return self.start(self.harness.Agent(folder, server.grpc_port, hz=hz, window="10s",
                                             arguments=arguments)).wait_healthy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", required=True)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--hz", type=int, default=HZ)
    parser.add_argument("--own", action="store_true")
    arguments = parser.parse_args()
    harness = measure.harness
    harness.BIN_DIR = os.environ["FIREWATCH_BIN_DIR"] = os.path.abspath(arguments.bin_dir)
    reason = harness.why_no_sampling()
    if reason:
        print(f"SKIP steady: no privilege to sample: {reason}")
        return 0
    minutes = 6 if arguments.full else 3
    rows = []
    with tempfile.TemporaryDirectory(prefix="firewatch-bench-") as folder:
        bench = Bench(harness, folder)
        try:
            programs = bench.load()
            time.sleep(1)
            watched = [text for p in programs for text in ("--pid", str(p.pid))] if arguments.own else []
            agents = {"lines on": bench.agent("on", arguments.hz, watched),
                      "lines off": bench.agent("off", arguments.hz, [*watched, "--lines", "off"])}
            print("pids: " + ", ".join(f"{name} {agent.pid}" for name, agent in agents.items()), flush=True)
            before = {name: Look(harness, agent) for name, agent in agents.items()}
            steady = dict(before)
            for minute in range(1, minutes + 1):
                piece = Slice()
                time.sleep(MINUTE)
                after = {name: Look(harness, agent) for name, agent in agents.items()}
                piece.end()
                for name in agents:
                    rows.append(row(name, minute, before[name], after[name], piece.seconds, piece.steal))
                before = after
                if minute == 1:
                    steady = after
        finally:
            bench.end_all()
    print_table(f"an agent at {arguments.hz} Hz, by minute; % of one core",
                ["", "minute", "samples", "agent us", "agent %", "busiest thread %", "children %",
                 "of it lines %", "files waiting", "RssAnon MiB", "of children", "maps MiB",
                 "mapped MB", "stolen %"], sorted(rows))
    difference = [100 * (before[name].agent - steady[name].agent) / (MINUTE * (minutes - 1)) for name in before]
    children = [100 * max(0, before[name].children - steady[name].children) / (MINUTE * (minutes - 1))
                for name in before]
    print(f"\nafter the first minute, % of one core, agent + children: lines on {difference[0]:.3f} + "
          f"{children[0]:.3f}, lines off {difference[1]:.3f} + {children[1]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
