#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the TCP probe costs: ns per hook, a Redis at 10,000 requests a second with and without it, a
storm of connections, memory for 100,000 connections. All of it in a network namespace of its own:
the probe looks at no other socket of the machine.

    network.py [--bin-dir build/bench/bin] [--seconds 8] [--full]

redis-server is Debian's; without it that part is left out. The probe comes and goes there
every few seconds; medians and spread are over pairs of neighbours."""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import measure  # noqa: E402

AGENT = "127.0.0.1:17199"
RATE = 10_000
HZ = 99


class Namespace:
    def __enter__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c",
                                        "ip link set lo up && echo up && exec sleep 900"],
                                       stdout=subprocess.PIPE, text=True)
        self.holder.stdout.readline()
        self.path = f"/proc/{self.holder.pid}/ns/net"
        self.inode = os.stat(self.path).st_ino
        self.children = []
        return self

    def start(self, *command, wait=None, env=None):
        child = subprocess.Popen(["nsenter", f"--net={self.path}", *map(str, command)],
                                 stdout=subprocess.PIPE if wait else subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, text=True, env=env)
        self.children.append(child)
        if wait:
            line = child.stdout.readline().strip()
            if line != wait:
                raise RuntimeError(f"{command[0]} said {line!r}, not {wait!r}")
        return child

    def __exit__(self, *_):
        for child in [*self.children, self.holder]:
            child.kill()
            child.wait()


class Agent:
    def __init__(self, binaries, namespace, folder, modules="network", arguments=()):
        config = pathlib.Path(folder) / "agent.yaml"
        config.write_text(f"modules: [{modules}]\nnetwork:\n  network-namespaces: [{namespace.inode}]\n")
        self.process = subprocess.Popen(
            [str(binaries / "firewatch-agent"), "--config", str(config), "--server", "127.0.0.1:1",
             "--http", AGENT, "--spool", f"{folder}/spool", "--cache", f"{folder}/cache",
             "--log-level", "warn", *arguments])
        for _ in range(100):
            try:
                self.connections()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the agent did not answer")

    def get(self, path):
        with urllib.request.urlopen(f"http://{AGENT}{path}", timeout=30) as answer:
            return answer.read()

    def connections(self, query="limit=0"):
        return json.loads(self.get(f"/api/v1/connections?{query}"))

    def module(self):
        status = json.loads(self.get("/status"))
        return next(m for m in status["modules"] if m["name"] == "network")

    def programs(self):
        return {p["name"]: (p["runs"], p["ns"]) for p in self.module()["details"]["programs"]}

    def samples(self):
        """Of the profiler so far."""
        for line in self.get("/metrics").decode().splitlines():
            if line.startswith("firewatch_samples_total "):
                return float(line.split()[1])
        return 0.0

    def rss_anon(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        return 0

    def map_bytes(self):
        """What the kernel charges for the maps that the agent has open."""
        total, seen = 0, set()
        base = pathlib.Path(f"/proc/{self.process.pid}/fdinfo")
        for entry in base.iterdir():
            try:
                text = entry.read_text()
            except OSError:
                continue
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            number = fields.get("map_id", "").strip()
            if number and number not in seen:
                seen.add(number)
                total += int(fields.get("memlock", "0"))
        return total

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def hooks(agent, before):
    print(f"\n{'hook':<24} {'runs':>10} {'ns/run':>8}")
    for name, (runs, ns) in sorted(agent.programs().items()):
        old_runs, old_ns = before.get(name, (0, 0))
        if runs > old_runs:
            print(f"{name:<24} {runs - old_runs:>10} {(ns - old_ns) / (runs - old_runs):>8.0f}")


def busy_seconds():
    """Of all CPUs since boot: what a sampler of CPU time sees."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def storm(agent, namespace, binaries, rate, seconds):
    program = binaries / "workload_tcp"
    busy = busy_seconds()
    samples, before, cpu = agent.samples(), agent.programs(), measure.cpu_seconds(agent.process.pid)
    start_totals = agent.connections()["totals"]["out"]["closed"]
    start = time.monotonic()
    peak = 0
    run = namespace.start("nice", "-n", "-10", program, "pairs", 81, rate, seconds)
    while run.poll() is None:
        time.sleep(0.5)
        peak = max(peak, agent.rss_anon() + agent.map_bytes())
    took = time.monotonic() - start
    time.sleep(3)  # the last window of the profiler
    busy, samples = busy_seconds() - busy, agent.samples() - samples
    answer, module = agent.connections(), agent.module()
    done = answer["totals"]["out"]["closed"] - start_totals
    spent = measure.cpu_seconds(agent.process.pid) - cpu
    bpf = sum(ns - before.get(name, (0, 0))[1] for name, (_, ns) in agent.programs().items()) / 1e9
    print(f"\nstorm: {done / took:,.0f} connections/s for {took:.0f} s (asked {rate:,}), "
          f"agent {spent / took * 100:.2f} % of a CPU, hooks {bpf / took * 100:.2f} % "
          f"({bpf / max(done, 1) * 1e6:.2f} us per connection, both ends), heap and maps at most "
          f"{peak / 2**20:.1f} MiB")
    print(f"network: {module['detail']} after {module['steps_down']} steps down, "
          f"{module['cpu_percent']:.2f} % of the machine; profiler: {samples / busy:.1f} samples per "
          f"busy second of the machine, {HZ} Hz")
    print("lost: " + ", ".join(f"{k} {v}" for k, v in answer["lost"].items() if v))
    hooks(agent, before)


def drive(namespace, seconds, fresh):
    """RATE requests a second on kept connections, or a tenth of it on fresh ones; requests done."""
    done = [0]

    def work():
        libc = measure.harness._libc
        with open(namespace.path) as file:
            libc.setns(file.fileno(), 0x40000000)
        request = b"*1\r\n$4\r\nPING\r\n"
        sock = socket.create_connection(("127.0.0.1", 6399))
        start = time.monotonic()
        while (now := time.monotonic()) < start + seconds:
            if done[0] > (now - start) * (RATE / 10 if fresh else RATE):
                time.sleep(0.0005)
                continue
            if fresh:
                sock.close()
                sock = socket.create_connection(("127.0.0.1", 6399))
            sock.sendall(request)
            sock.recv(64)
            done[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return done[0]


class Toggled:
    """An agent whose probe comes and goes by SIGHUP, so that slices with and without it follow each
    other within seconds and what else the machine does falls on both."""

    def __init__(self, binaries, namespace, folder):
        self.agent = Agent(binaries, namespace, folder)
        self.config = pathlib.Path(folder) / "agent.yaml"
        self.section = self.config.read_text().split("\n", 1)[1]

    def set(self, on):
        self.config.write_text(f"modules: [{'network' if on else 'enforce'}]\n{self.section}")
        self.agent.process.send_signal(signal.SIGHUP)
        for _ in range(200):
            if (self.agent.module()["state"] != "off") == on:
                return
            time.sleep(0.05)
        raise RuntimeError("the probe did not come or go")


def redis_server():
    """(path, environment): $FIREWATCH_REDIS names one that is unpacked and not installed."""
    given = os.environ.get("FIREWATCH_REDIS")
    if not given:
        return shutil.which("redis-server"), None
    libraries = pathlib.Path(given).parents[1] / "lib/x86_64-linux-gnu"
    return given, {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


def redis(namespace, binaries, folder, seconds, rounds):
    server, environment = redis_server()
    if not server:
        print("\nRedis: left out, redis-server is not installed (apt-get install redis-server)")
        return
    child = namespace.start(server, "--port", "6399", "--save", "", "--bind", "127.0.0.1",
                            env=environment)
    time.sleep(1)
    toggled = Toggled(binaries, namespace, folder)
    for fresh in (False, True):
        rate = RATE // 10 if fresh else RATE
        costs, done = {True: [], False: []}, 0
        for i in range(rounds):
            # Which comes first changes: what drifts cancels out.
            for on in (True, False) if i % 2 == 0 else (False, True):
                toggled.set(on)
                time.sleep(0.5)
                before = measure.cpu_seconds(child.pid)
                requests = drive(namespace, seconds, fresh)
                costs[on].append((measure.cpu_seconds(child.pid) - before) / requests * 1e6)
                done += requests
        # Of neighbours, in us per request; that times the rate is a part of a CPU.
        extra = sorted(a - b for a, b in zip(costs[True], costs[False]))
        quarter = len(extra) // 4
        what = "each on a new connection" if fresh else "on one connection"
        print(f"\nRedis, {rate:,}/s asked, {done / 2 / rounds / seconds:,.0f}/s reached, {what}; "
              f"{rounds} pairs of {seconds} s: {statistics.median(costs[False]):.2f} us of CPU per "
              f"request without the probe, {statistics.median(costs[True]):.2f} with it; difference of "
              f"pairs {statistics.median(extra):+.2f} us (half of them {extra[quarter]:+.2f} .. "
              f"{extra[-1 - quarter]:+.2f}): {statistics.median(extra) * rate / 1e4:+.2f} % of a CPU "
              f"({extra[quarter] * rate / 1e4:+.2f} .. {extra[-1 - quarter] * rate / 1e4:+.2f})")
    toggled.agent.stop()


def memory(namespace, binaries, folder):
    program = binaries / "workload_tcp"
    agent = Agent(binaries, namespace, folder)
    empty_maps, empty_heap = agent.map_bytes(), agent.rss_anon()
    for i in range(6):
        namespace.start(program, "hold", 7000 + i, 8_400, wait="ready")
    time.sleep(6)
    start = time.monotonic()
    answer = agent.connections()
    took = time.monotonic() - start
    maps, heap = agent.map_bytes(), agent.rss_anon()
    print(f"\n{answer['matching']:,} connections: maps {empty_maps / 2**20:.1f} -> {maps / 2**20:.1f} "
          f"MiB, heap {empty_heap / 2**20:.1f} -> {heap / 2**20:.1f} MiB, "
          f"{(maps - empty_maps + heap - empty_heap) / max(answer['matching'], 1):.0f} bytes each; "
          f"one report {took * 1e3:.0f} ms")
    agent.stop()
    start = time.monotonic()
    agent = Agent(binaries, namespace, folder)
    found = agent.connections()["matching"]
    print(f"started after them: {found:,} known {(time.monotonic() - start) * 1e3:.0f} ms after exec")
    agent.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: BPF and a network namespace")
    rounds = 24 if arguments.full else 8
    print(f"load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder, measure.BpfStats() as stats:
        if stats.reason:
            print(f"no BPF statistics: {stats.reason}")
        with Namespace() as namespace:
            agent = Agent(arguments.bin_dir, namespace, folder, "cpu, network",
                          ("--hz", str(HZ), "--window", "2s"))
            time.sleep(4)
            storm(agent, namespace, arguments.bin_dir, 20_000, 20 if arguments.full else 10)
            agent.stop()
        with Namespace() as namespace:
            memory(namespace, arguments.bin_dir, folder)
    # Counting run times is itself a cost: not while Redis is measured.
    with tempfile.TemporaryDirectory() as folder, Namespace() as namespace:
        redis(namespace, arguments.bin_dir, folder, arguments.seconds, rounds)


if __name__ == "__main__":
    main()
