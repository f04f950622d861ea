#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole stacks without frame pointers: what they cost, beside those who walk frame pointers or copy
the stack, in one run.

usage: tests/bench/unwind.py --bin-dir DIR [--full]

1. In a hot loop: nanoseconds per sample and per frame by depth, our tables on a build without frame
   pointers, bpf_get_stackid on a build with them (hot_tick).
2. At the real rates, both CPUs busy below 57 frames: our agent on the build without frame pointers,
   bpftrace's ustack on the build with them. Samples that come so rarely find the caches cold.
3. Beside perf record --call-graph dwarf on the same build: CPU and bytes per sample.
4. Table building: MB of .eh_frame per CPU second, bytes per row (unwind_scan).
5. From the start of the agent to its first full stack.
Stretches in which the hypervisor stole more than 5 % are left out.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import measure
from measure import BpfStats, Slice, bpf_programs, print_table, run_counting

RATES = (997, 99, 19)  # the cache on disk stays, so the rate that meets all files first is the first
DEPTH = 54  # of the recursion; with main, the leaf and libc's three frames: 59 and 57
WINDOW_SECONDS = 10
SETTLE_SECONDS = 75  # at most, before a rate is measured
QUIET_SECONDS = 15  # so long no helper has worked by then
CPUS = os.cpu_count() or 1
HOT_DEPTHS = (10, 40, 127, 500)
HOT_HZ = 5000
SCANNED = ("/usr/lib/llvm-19/lib/libLLVM.so.1", "/lib/x86_64-linux-gnu/libc.so.6",
           "/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
           "/usr/bin/python3.11", "/usr/bin/gdb", "/usr/bin/node")


def us(seconds):
    return f"{seconds * 1e6:.1f}"


class Bench:
    def __init__(self, harness, folder, full):
        self.harness = harness
        self.folder = folder
        self.full = full
        self.peer_seconds = 30 if full else 10
        self.started = []

    def start(self, program):
        self.started.append(program)
        return program

    def end_all(self):
        for program in reversed(self.started):
            program.kill()

    def load(self, name):
        """One process per CPU, both below the same stack."""
        h = self.harness
        programs = [self.start(h.Program(self.folder, name, [
            h.binary(name), "--depth", str(DEPTH), "--seconds", "900"])) for _ in range(CPUS)]
        time.sleep(0.5)
        return programs

    # ---- in a hot loop ---------------------------------------------------------------------------

    def hot_tick(self, pid, program=None):
        """Nanoseconds per run of a program (its id; None: the peer) at HOT_HZ on one process."""
        command = [self.harness.binary("hot_tick"), "--pid", str(pid), "--hz", str(HOT_HZ),
                   "--seconds", "2" if self.full else "1"]
        if program:
            command += ["--program", str(program)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[0])

    def tick_of(self, pid):
        """Id of the sampling program that a process holds: the one that has run most."""
        programs = []
        for fd in os.listdir(f"/proc/{pid}/fdinfo"):
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                info = dict(line.split(":\t", 1) for line in file.read().splitlines()
                            if ":\t" in line)
            if "prog_id" in info:
                programs.append((int(info.get("run_cnt", 0)), int(info["prog_id"])))
        return max(programs)[1]

    def hot_loop(self):
        """[(depth, ours on the build without frame pointers, stackid on the build with them,
        ours on the build with them)], medians."""
        h, rows = self.harness, []
        for depth in HOT_DEPTHS:
            loads = [self.start(h.Program(self.folder, name, [
                h.binary(name), "--depth", str(depth - 5), "--seconds", "60"]))
                for name in ("workload_depth_nofp", "workload_depth")]
            recorder = self.start(h.Program(self.folder, "record", [
                h.binary("firewatch"), "record", "--hz", "99", "--seconds", "50", "--quiet", "--pid",
                str(loads[0].pid), "--pid", str(loads[1].pid), "--output",
                os.path.join(self.folder, f"hot{depth}.pb.gz")]))
            time.sleep(2.5)  # tables are loaded
            ours = self.tick_of(recorder.pid)
            rounds = [(self.hot_tick(loads[0].pid, ours), self.hot_tick(loads[1].pid),
                       self.hot_tick(loads[1].pid, ours)) for _ in range(5 if self.full else 3)]
            rows.append((depth, *(measure.median(list(column)) for column in zip(*rounds))))
            recorder.stop()
            for program in loads:
                program.kill()
        return rows

    # ---- ours ------------------------------------------------------------------------------------

    def ours(self, hz):
        h = self.harness
        folder = os.path.join(self.folder, f"firewatch{hz}")
        os.mkdir(folder)
        server = self.start(h.Server(folder, os.path.join(folder, "data"))).wait_healthy()
        load = self.load("workload_depth_nofp")
        agent = self.start(h.Agent(folder, server.grpc_port, hz=hz, window=f"{WINDOW_SECONDS}s",
                                   arguments=("--cache", os.path.join(self.folder, "cache"))))
        agent.wait_healthy()
        settled = self.settle(agent)
        out = {"hz": hz, "settled": settled, "samples": 0, "user": 0.0, "helper": 0.0, "kernel": 0.0,
               "bytes": 0, "ends": {}, "left_out": 0}
        slices = {997: 1, 99: 2, 19: 4}[hz] if not self.full else 6
        for _ in range(slices):
            page = agent.metrics()
            user, kernel = measure.cpu_seconds(agent.pid), bpf_programs(agent.pid)[1]
            helpers = measure.Children(agent.pid)
            piece = Slice()
            helper = helpers.watch(WINDOW_SECONDS)
            user_after, kernel_after = measure.cpu_seconds(agent.pid), bpf_programs(agent.pid)[1]
            after = agent.metrics()
            if not piece.end().usable():
                out["left_out"] += 1
                continue
            out["samples"] += after["firewatch_samples_total"] - page["firewatch_samples_total"]
            out["user"] += user_after - user
            out["kernel"] += kernel_after - kernel
            out["helper"] += helper
            out["bytes"] += (after.get("firewatch_agent_uploaded_bytes_total", 0) -
                             page.get("firewatch_agent_uploaded_bytes_total", 0))
            for name, value in after.items():
                reason = re.match(r'firewatch_stack_ends_total\{reason="(\w+)"\}', name)
                if reason and value > page.get(name, 0):
                    out["ends"][reason.group(1)] = (out["ends"].get(reason.group(1), 0) + value -
                                                    page.get(name, 0))
        out["memory"] = h.anonymous_kib(agent.pid) / 1024, h.charged_maps_kib(agent.pid) / 1024
        agent.stop()
        server.stop()
        for program in load:
            program.kill()
        return out

    def settle(self, agent):
        """Tables, names and lines of what runs here are made once: waits until the helpers rest.
        (seconds since now, CPU seconds of agent and helpers)"""
        start = time.monotonic()
        helpers = measure.Children(agent.pid)
        spent, worked = 0.0, start
        while True:
            helpers.watch(WINDOW_SECONDS / 4)
            now = time.monotonic()
            if helpers.look() - spent > 0.002:
                spent, worked = helpers.look(), now
            waiting = agent.metrics().get("firewatch_symbol_line_files_waiting", 0)
            if (waiting == 0 and now - worked > QUIET_SECONDS) or now - start > SETTLE_SECONDS:
                return now - start, measure.cpu_seconds(agent.pid) + spent

    def first_full_stack(self):
        """Seconds and CPU seconds from exec of the agent, with an empty cache, to the first sample
        that ends at a proven root; helper included."""
        h = self.harness
        folder = os.path.join(self.folder, "first")
        os.mkdir(folder)
        load = self.load("workload_depth_nofp")
        started = time.monotonic()
        agent = self.start(h.Agent(folder, h.free_port(), hz=99, window="1s"))
        root, cpu = None, 0.0
        while time.monotonic() - started < 20 and root is None:
            try:
                page = agent.metrics()
            except (OSError, AssertionError):
                time.sleep(0.005)
                continue
            if page.get('firewatch_stack_ends_total{reason="root"}', 0) > 0:
                root = time.monotonic() - started
                cpu = measure.cpu_seconds(agent.pid) + sum(
                    measure.children_cpu_seconds(agent.pid).values())
            time.sleep(0.005)
        agent.kill()
        for program in load:
            program.kill()
        return root, cpu

    # ---- peers -----------------------------------------------------------------------------------

    def bpftrace(self, hz):
        """Kernel seconds per sample of ustack on the build with frame pointers."""
        if not shutil.which("bpftrace"):
            return "bpftrace is not installed"
        load = self.load("workload_depth")
        wanted = " || ".join(f"pid=={program.pid}" for program in load)
        text = (f"profile:hz:{hz} /{wanted}/ {{ @[ustack] = count(); }} "
                f"interval:s:{self.peer_seconds} {{ exit(); }}")
        piece = Slice()
        with open(os.path.join(self.folder, "bpftrace.out"), "w+", encoding="utf-8") as out:
            tracer = subprocess.Popen(["bpftrace", "-e", text], stdout=out,
                                      stderr=subprocess.DEVNULL)
            kernel = 0.0
            while (ended := os.wait4(tracer.pid, os.WNOHANG))[0] == 0:
                kernel = max(kernel, bpf_programs(tracer.pid)[1])
                time.sleep(0.1)
            tracer.returncode = os.waitstatus_to_exitcode(ended[1])
            out.seek(0)
            samples = sum(int(n) for n in re.findall(r"\]: (\d+)$", out.read(), re.M))
        for program in load:
            program.kill()
        if tracer.returncode != 0 or samples == 0:
            return f"bpftrace: exit code {tracer.returncode}, {samples} samples"
        return {"samples": samples, "kernel": kernel / samples, "steal": piece.end().steal}

    def perf_dwarf(self):
        """perf record --call-graph dwarf at 99 Hz: seconds and bytes per sample, script apart."""
        if not shutil.which("perf"):
            return "perf is not installed"
        load, data = self.load("workload_depth_nofp"), os.path.join(self.folder, "perf.data")
        pids = ",".join(str(program.pid) for program in load)
        try:
            cpu, _ = run_counting(
                ["perf", "record", "-q", "-e", "cpu-clock", "-F", "99", "--call-graph", "dwarf",
                 "-o", data, "-p", pids, "--", "sleep", str(self.peer_seconds)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lines = subprocess.run(["perf", "script", "-i", data, "-F", "time", "-G"], check=True,
                                   capture_output=True, text=True).stdout.splitlines()
            samples = sum(1 for line in lines if line.strip())
            size = os.path.getsize(data)
            script, _ = run_counting(["perf", "script", "-i", data], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
        except subprocess.CalledProcessError as error:
            return f"perf: {error}"
        finally:
            for program in load:
                program.kill()
        if samples == 0:
            return "perf took no sample"
        return {"samples": samples, "record": cpu / samples, "script": script / samples,
                "bytes": size / samples}


def run_tool(bench, name, *arguments):
    path = os.path.join(bench.harness.BIN_DIR, name)
    if not os.path.exists(path):
        print(f"  SKIP {name} is not built")
        return
    sys.stdout.flush()
    subprocess.run([path, *arguments], check=False)


def report_hot(rows):
    table = []
    for number, (depth, ours, peer, ours_fp) in enumerate(rows):
        frames = min(depth, 127)  # where get_stackid ends
        per_frame = ["", ""]
        if number:
            before = rows[number - 1]
            per_frame[0] = f"{(ours - before[1]) / (depth - before[0]):.0f}"
            if depth <= 127:
                per_frame[1] = f"{(peer - before[2]) / (depth - before[0]):.0f}"
        table.append([depth, f"{ours:.0f}", f"{ours / depth:.0f}", per_frame[0], f"{peer:.0f}",
                      f"{peer / frames:.0f}", per_frame[1],
                      f"{ours / depth / (peer / frames):.2f}", f"{ours_fp:.0f}"])
    print_table(f"In a hot loop ({HOT_HZ} Hz on one process), ns in the kernel; bpf_get_stackid on "
                "a frame-pointer build (127 frames at most)",
                ["frames", "ours", "per frame", "marginal", "get_stackid", "per frame", "marginal",
                 "ratio", "ours on its build"], table)


def report_real_rates(ours, peers):
    rows = []
    for r in ours:
        n = max(1, r["samples"])
        peer = peers[r["hz"]]
        kernel = peer["kernel"] if isinstance(peer, dict) else float("nan")
        whole = 100 * r["ends"].get("root", 0) / max(
            1, sum(v for k, v in r["ends"].items() if k not in ("no_user_stack", "memory_gone")))
        rows.append([f"{r['hz']} Hz", f"{n:.0f}", us(r["kernel"] / n), us(kernel),
                     f"{r['kernel'] / n / kernel:.2f}", us(r["user"] / n), us(r["helper"] / n),
                     f"{r['bytes'] / n:.0f}", f"{whole:.2f}", f"{r['memory'][0]:.1f}",
                     f"{r['memory'][1]:.1f}", r["left_out"]])
    print_table("At the real rates, 57 frames, both CPUs busy, per sample (bpftrace: frame-pointer "
                "build, ustack)",
                ["rate", "samples", "kernel us", "bpftrace us", "ratio", "agent us", "helper us",
                 "bytes out", "whole %", "RssAnon MiB", "maps MiB", "left out"], rows)
    print("  agent and helpers, all threads and children; the cache on disk is one for all rates, as on "
          "a machine that has run for a while")
    for r in ours:
        print(f"  {r['hz']} Hz, measured {r['settled'][0]:.0f} s after the start; until then "
              f"{r['settled'][1]:.2f} CPU s for tables, names and lines, once")
        print(f"  {r['hz']} Hz, ends of stacks of the whole machine: "
              f"{ {k: int(v) for k, v in r['ends'].items()} }")
    for peer in peers.values():
        if isinstance(peer, str):
            print(f"  SKIP {peer}")


def report_dwarf(ours, perf):
    if isinstance(perf, str):
        print(f"\n  SKIP {perf}")
        return
    at99 = next(r for r in ours if r["hz"] == 99)
    n = max(1, at99["samples"])
    cpu = (at99["user"] + at99["helper"] + at99["kernel"]) / n
    size = at99["bytes"] / n
    their = perf["record"] + perf["script"]
    print_table("Beside perf record --call-graph dwarf (8 KiB of stack), 99 Hz, per sample",
                ["", "samples", "CPU us", "of it later", "bytes"],
                [["Firewatch, kernel and user", f"{n:.0f}", us(cpu), "-", f"{size:.0f}"],
                 ["perf record + script", perf["samples"], us(their), us(perf["script"]),
                  f"{perf['bytes']:.0f}"],
                 ["ratio", "", f"1/{their / cpu:.0f}", "", f"1/{perf['bytes'] / max(1, size):.0f}"]])


def main():
    arguments, harness = measure.begin("unwind", __doc__)
    if harness is None:
        return 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="firewatch-bench-") as folder, BpfStats() as stats:
        if stats.reason:
            print(f"BPF statistics: {stats.reason}; kernel figures are 0")
        bench = Bench(harness, folder, arguments.full)
        try:
            report_hot(bench.hot_loop())
            root, cpu = bench.first_full_stack()
            print("\nStart to first full stack, empty cache: "
                  + ("none within 20 s" if root is None else f"{root:.2f} s, {cpu:.2f} CPU s"))
            ours, peers = [], {}
            for hz in RATES:
                ours.append(bench.ours(hz))
                peers[hz] = bench.bpftrace(hz)
            ours.reverse()
            report_real_rates(ours, peers)
            report_dwarf(ours, bench.perf_dwarf())
            print("\nTables of what lies on this machine")
            run_tool(bench, "unwind_scan", "--bench", *[p for p in SCANNED if os.path.exists(p)])
        finally:
            bench.end_all()
    print(f"\n{CPUS} CPUs, {os.uname().release}, {time.monotonic() - started:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
