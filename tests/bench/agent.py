#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a sample costs: Firewatch, perf record -g + perf script, bpftrace, on one load in one run.

usage: tests/bench/agent.py --bin-dir DIR [--full]

Load: workload_shares with a thread per CPU (60-frame stacks). Firewatch: agent process
(symbolization and upload included) and symbol helper, user and system time; in the kernel by BPF
run-time statistics. Every rate runs in the steady state (after the first windows); the difference
between two rates gives the marginal cost of a sample, what is left is the fixed cost of a window.
Stretches in which the hypervisor stole more than 5 % are left out. CPU of the timer interrupt
itself is the same for everyone and in none of the figures.
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

FIREWATCH_RATES = (19, 99)
WINDOW_SECONDS = 10
CPUS = os.cpu_count() or 1


class Bench:
    def __init__(self, harness, folder, full):
        self.harness = harness
        self.folder = folder
        self.slices = 6 if full else 3     # of one window each, per rate
        self.peer_seconds = 60 if full else 20
        self.rates = FIREWATCH_RATES + ((997,) if full else ())
        self.started = []

    def start(self, program):
        self.started.append(program)
        return program

    def end_all(self):
        for program in reversed(self.started):
            program.kill()

    def load(self, seconds):
        return self.start(self.harness.Program(self.folder, "workload_shares", [
            self.harness.binary("workload_shares"), "--threads", str(CPUS),
            "--seconds", str(seconds)]))

    # ---- Firewatch -------------------------------------------------------------------------------

    def first_run_seconds(self, agent, started):
        """From exec of the agent to the first run of its BPF program on a tick."""
        while bpf_programs(agent.pid)[0] == 0:
            if time.monotonic() - started > 30:
                return float("nan")
            time.sleep(0.005)
        return time.monotonic() - started

    def firewatch(self, hz):
        """One rate: a dict of figures over the usable slices."""
        h = self.harness
        folder = os.path.join(self.folder, f"firewatch{hz}")
        os.mkdir(folder)
        server = self.start(h.Server(folder, os.path.join(folder, "data"))).wait_healthy()
        load = self.load(600)
        time.sleep(0.5)
        started = time.monotonic()
        agent = self.start(h.Agent(folder, server.grpc_port, hz=hz, window=f"{WINDOW_SECONDS}s"))
        first = self.first_run_seconds(agent, started)
        agent.wait_healthy()
        warm_up = measure.cpu_seconds(agent.pid)
        time.sleep(WINDOW_SECONDS * 1.5)  # names are made in the first window
        result = {"hz": hz, "first": first, "start_cpu": warm_up, "samples": 0, "user": 0.0,
                  "helper": 0.0, "kernel": 0.0, "seconds": 0.0, "windows": 0, "left_out": 0}
        for _ in range(self.slices):
            self.one_slice(agent, result)
        result["memory"] = (h.anonymous_kib(agent.pid) / 1024,
                            h.charged_maps_kib(agent.pid) / 1024)
        lost = {k: v for k, v in agent.metrics().items() if "lost_total" in k and v}
        agent.stop()
        load.kill()
        result["lost"] = lost
        result["stored"] = server.samples('{comm="workload_shares"}')
        server.stop()
        return result

    def one_slice(self, agent, result):
        def counters():
            page = agent.metrics()
            return page["firewatch_samples_total"], page["firewatch_windows_total"]

        def clocks():
            return (measure.cpu_seconds(agent.pid), bpf_programs(agent.pid)[1],
                    measure.children_cpu_seconds(agent.pid))
        # Writing the metrics page costs the agent too: both pages lie outside the clocks.
        samples, windows = counters()
        user, kernel, helper = clocks()
        piece = Slice()
        time.sleep(WINDOW_SECONDS)
        user_after, kernel_after, helper_after = clocks()
        samples_after, windows_after = counters()
        if not piece.end().usable():
            result["left_out"] += 1
            return
        result["samples"] += samples_after - samples
        result["windows"] += windows_after - windows
        result["user"] += user_after - user
        result["helper"] += measure.growth(helper, helper_after)
        result["kernel"] += kernel_after - kernel
        result["seconds"] += piece.seconds

    # ---- peers -----------------------------------------------------------------------------------

    def perf(self):
        """perf record -g at 99 Hz on the load, then perf script; figures per sample."""
        if not shutil.which("perf"):
            return "perf is not installed"
        load, data = self.load(self.peer_seconds + 30), os.path.join(self.folder, "perf.data")
        time.sleep(1)

        def record(seconds):
            piece = Slice()
            cpu, rss = run_counting(
                ["perf", "record", "-q", "-e", "cpu-clock", "-F", "99", "-g", "-o", data, "-p",
                 str(load.pid), "--", "sleep", str(seconds)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lines = subprocess.run(["perf", "script", "-i", data, "-F", "time"], check=True,
                                   capture_output=True, text=True).stdout.splitlines()
            return cpu, rss, sum(1 for line in lines if line.strip()), piece.end().steal

        try:
            short_cpu, _, short_samples, _ = record(2)
            cpu, rss, samples, steal = record(self.peer_seconds)
            script, _ = run_counting(["perf", "script", "-i", data], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
        except subprocess.CalledProcessError as error:
            return f"perf: {error}"
        finally:
            load.kill()
        return {"samples": samples, "marginal": (cpu - short_cpu) / max(1, samples - short_samples),
                "all": cpu / samples, "script": script / samples, "rss": rss, "steal": steal,
                "percent": 100 * (cpu + script) / self.peer_seconds}

    def bpftrace(self):
        if not shutil.which("bpftrace"):
            return "bpftrace is not installed"
        load = self.load(self.peer_seconds + 40)
        time.sleep(1)
        seconds = self.peer_seconds
        text = (f"profile:hz:99 /pid=={load.pid}/ {{ @[kstack, ustack, pid] = count(); }} "
                f"interval:s:{seconds} {{ exit(); }}")
        piece = Slice()
        with open(os.path.join(self.folder, "bpftrace.out"), "w+", encoding="utf-8") as out:
            tracer = subprocess.Popen(["bpftrace", "-e", text], stdout=out,
                                      stderr=subprocess.DEVNULL)
            kernel, started_cpu = 0.0, None
            while (ended := os.wait4(tracer.pid, os.WNOHANG))[0] == 0:
                runs, spent = bpf_programs(tracer.pid)
                kernel = max(kernel, spent)
                if started_cpu is None and runs:
                    started_cpu = measure.cpu_seconds(tracer.pid)
                time.sleep(0.1)
            tracer.returncode = os.waitstatus_to_exitcode(ended[1])
            load.kill()
            out.seek(0)
            samples = sum(int(n) for n in re.findall(r"\]: (\d+)$", out.read(), re.M))
        if tracer.returncode != 0 or samples == 0:
            return f"bpftrace: exit code {tracer.returncode}, {samples} samples"
        return {"samples": samples, "kernel": kernel / samples, "start": started_cpu or 0.0,
                "all": ended[2].ru_utime + ended[2].ru_stime, "rss": ended[2].ru_maxrss / 1024,
                "steal": piece.end().steal}


def us(seconds):
    return f"{seconds * 1e6:.1f}"


def report_firewatch(results):
    rows = []
    for r in results:
        n, t = max(1, r["samples"]), max(1e-9, r["seconds"])
        everything = r["user"] + r["helper"] + r["kernel"]
        rows.append([f"{r['hz']} Hz", f"{n:.0f}", us(r["user"] / n), us(r["helper"] / n),
                     us(r["kernel"] / n), us(everything / n), f"{100 * everything / t:.3f}",
                     f"{r['memory'][0]:.1f}", f"{r['memory'][1]:.1f}", f"{r['first']:.2f}",
                     f"{r['start_cpu']:.2f}", r["left_out"]])
    print_table("Firewatch, both sides of the kernel border, per sample taken",
                ["rate", "samples", "agent us", "helper us", "kernel us", "all us", "% of a core",
                 "RssAnon MiB", "maps MiB", "first sample s", "start CPU s", "left out"], rows)
    print("  helper: reading the symbols of files that nobody ran before; 0 on a machine that "
          "starts no new programs")
    for r in results:
        if r["lost"]:
            print(f"  {r['hz']} Hz, lost: {r['lost']}")
    low, high = results[0], results[-1]
    if low["seconds"] and high["seconds"]:
        rate = [(r["samples"] / r["seconds"], r["user"] / r["seconds"]) for r in (low, high)]
        marginal = (rate[1][1] - rate[0][1]) / (rate[1][0] - rate[0][0])
        fixed = (rate[0][1] - marginal * rate[0][0]) * WINDOW_SECONDS
        print(f"  agent, steady state: {us(marginal)} us per sample (marginal, {low['hz']} -> "
              f"{high['hz']} Hz) + {fixed * 1e3:.2f} ms per window of {WINDOW_SECONDS} s (fixed)")


def report_peers(perf, bpftrace):
    rows = []
    if isinstance(perf, dict):
        rows.append(["perf record -g", perf["samples"], us(perf["all"]), us(perf["marginal"]), "-",
                     f"{perf['rss']:.0f}", f"{100 * perf['steal']:.1f}"])
        rows.append(["perf script", perf["samples"], us(perf["script"]), us(perf["script"]), "-",
                     "-", "-"])
    if isinstance(bpftrace, dict):
        rows.append(["bpftrace profile", bpftrace["samples"],
                     us(bpftrace["all"] / bpftrace["samples"]),
                     us((bpftrace["all"] - bpftrace["start"]) / bpftrace["samples"]),
                     us(bpftrace["kernel"]), f"{bpftrace['rss']:.0f}",
                     f"{100 * bpftrace['steal']:.1f}"])
    if rows:
        print_table("Peers at 99 Hz on the same load, per sample (all: start and stop included)",
                    ["", "samples", "user us, all", "user us, marginal", "kernel us", "RSS MB",
                     "steal %"], rows)
    for peer in (perf, bpftrace):
        if isinstance(peer, str):
            print(f"  SKIP {peer}")


def main():
    arguments, harness = measure.begin("agent", __doc__)
    if harness is None:
        return 0
    if harness.is_sanitized("firewatch-agent"):
        print("warning: firewatch-agent is built with sanitizers; its figures mean nothing")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="firewatch-bench-") as folder, BpfStats() as stats:
        if stats.reason:
            print(f"BPF statistics: {stats.reason}; kernel figures are 0")
        bench = Bench(harness, folder, arguments.full)
        try:
            results = [bench.firewatch(hz) for hz in bench.rates]
            report_firewatch(results)
            report_peers(bench.perf(), bench.bpftrace())
        finally:
            bench.end_all()
    print(f"\n{CPUS} CPUs, {os.uname().release}, {time.monotonic() - started:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
