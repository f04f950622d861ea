# SPDX-License-Identifier: Apache-2.0
"""Machines that are no fun to watch: a fork storm, a thousand processes."""
import os
import re
import shutil
import subprocess
import time

from harness import (FirewatchTest, anonymous_kib, binary, charged_maps_kib, require_release,
                     require_sampling, selector_of, short_or_full)

RATE = 5000


class StormTest(FirewatchTest):

    def storm(self, agent, seconds):
        """Runs a storm beside a steady workload; (RssAnon growth in KiB, the steady one)."""
        steady = self.start("workload_shares", "--seconds", seconds + 8, priority=-5)
        time.sleep(5)  # the steady workload's names and the first windows are behind us
        before = anonymous_kib(agent.pid)
        storm = self.start("workload_storm", "--rate", RATE, "--seconds", seconds)
        most = before
        while storm.alive():
            most = max(most, anonymous_kib(agent.pid))
            time.sleep(0.5)
        forks, took = re.search(r"forks=(\d+) seconds=([\d.]+)", storm.log()).groups()
        self.note(f"{int(forks) / float(took):.0f} forks/s for {float(took):.0f} s")
        steady.wait()
        return most - before, steady

    def test_steady_profile_beside_5000_forks_a_second(self):
        require_sampling()
        server = self.start_server()
        agent = self.start_agent(server, hz=99, window="2s")
        _, steady = self.storm(agent, short_or_full(10, 60))
        self.assertEqual(agent.stop(), 0)
        profile = server.profile(selector_of("workload_shares"))
        used = steady.cpu_seconds()
        seen = profile.total("samples") / 99
        self.note(f"{seen:.2f} s of {used:.2f} CPU s in samples")
        self.assertLess(abs(seen / used - 1), 0.10, "CPU seconds of the steady workload")
        rooted = profile.total("samples", lambda frames: "main" in frames)
        self.assertGreaterEqual(rooted / profile.total("samples"), 0.98, "samples that reach main")
        # The storm's own processes are named too: they spend their CPU in fork and exit.
        self.assertGreater(server.samples(selector_of("workload_storm")), 50)

    def test_memory_beside_5000_forks_a_second(self):
        require_sampling()
        require_release("firewatch-agent")
        agent = self.start_agent(self.start_server(), hz=99, window="2s")
        grown, _ = self.storm(agent, short_or_full(10, 60))
        self.note(f"RssAnon grew by {grown / 1024:.1f} MiB")
        self.assertLessEqual(grown, 8 * 1024, "KiB of growth")


class MemoryLimitTest(FirewatchTest):
    """The least limit that there is, beside programs whose unwind tables together are larger."""

    LIMIT_KIB = 16 * 1024

    def endless(self, name, *command):
        """Runs a command again and again until the test ends."""
        script = 'while :; do "$@" >/dev/null 2>&1 </dev/null; done'
        process = subprocess.Popen(["sh", "-c", script, name, *command], start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(os.killpg, process.pid, 9)

    def test_heap_and_maps_stay_below_a_small_limit(self):
        require_sampling()
        require_release("firewatch-agent")
        source = os.path.join(self.folder, "source.cc")
        with open(source, "w", encoding="utf-8") as file:
            file.write("#include <map>\n#include <regex>\n#include <string>\n"
                       "std::map<std::string, std::regex> table;\n")
        commands = {
            "clang++-19": ["-O2", "-fsyntax-only", source],
            "node": ["-e", "let a=[]; for(let i=0;i<3e6;i++) a[i%1000]={i}; JSON.stringify(a)"],
            "gdb": ["-batch", "-ex", "info functions main", binary("workload_shares")],
            "python3": ["-c", "import json, ssl, decimal; json.dumps(list(range(300000)))"]}
        here = [name for name in commands if shutil.which(name)]
        if len(here) < 3:
            self.skipTest(f"of {', '.join(commands)} there are only {', '.join(here)}")
        agent = self.start_agent(self.start_server(), hz=99, window="2s",
                                 arguments=("--memory-limit", "16MiB"))
        for name in here:
            self.endless(name, shutil.which(name), *commands[name])
        most, parts, looks = 0, (0, 0), 0
        end = time.monotonic() + short_or_full(20, 120)
        while time.monotonic() < end:
            now = anonymous_kib(agent.pid, children=False), charged_maps_kib(agent.pid)
            looks += 1
            if sum(now) > most:
                most, parts = sum(now), now
            time.sleep(0.02)
        page = agent.metrics()
        evicted = page['firewatch_agent_lost_total{reason="table_evicted"}']
        no_room = page['firewatch_agent_lost_total{reason="table_no_room"}']
        self.note(f"{looks} looks, most {most / 1024:.2f} MiB: RssAnon {parts[0] / 1024:.2f}, BPF "
                  f"maps {parts[1] / 1024:.2f}; {evicted:.0f} tables put out, {no_room:.0f} without "
                  f"room, {page['firewatch_unwind_tables']:.0f} in the kernel")
        self.assertGreater(parts[1], 0, "charged BPF maps could not be read")
        self.assertGreater(evicted + no_room, 0, "the limit was never felt")
        self.assertLessEqual(most, self.LIMIT_KIB, "KiB")


class ManyTest(FirewatchTest):

    def start_many(self, count):
        many = subprocess.Popen([binary("workload_many"), "--count", str(count)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(many.stdout.close)
        self.addCleanup(many.wait)
        self.addCleanup(many.stdin.close)  # runs first: closing it ends them all
        self.assertEqual(many.stdout.readline().strip(), f"ready={count}")

    def test_memory_with_1000_processes(self):
        require_sampling()
        require_release("firewatch-agent")
        self.start_many(1000)
        agent = self.start_agent(self.start_server(), hz=99, window="2s")
        self.start("workload_shares", "--seconds", 12, "--threads", 2)
        most = 0
        for _ in range(24):
            time.sleep(0.5)
            anonymous, maps = anonymous_kib(agent.pid), charged_maps_kib(agent.pid)
            if anonymous + maps > most:
                most, parts = anonymous + maps, (anonymous, maps)
        self.note(f"{most / 1024:.1f} MiB: RssAnon {parts[0] / 1024:.1f}, BPF maps "
                  f"{parts[1] / 1024:.1f}")
        self.assertGreater(parts[1], 0, "charged BPF maps could not be read")
        self.assertLessEqual(most, 64 * 1024, "KiB")

    def test_1000_processes_do_not_hide_a_workload(self):
        require_sampling()
        self.start_many(short_or_full(300, 1000))
        server = self.start_server()
        agent = self.start_agent(server, hz=99)
        used = self.burn("workload_shares", "--cpu-seconds", 3)
        self.assertEqual(agent.stop(), 0)
        seen = server.samples(selector_of("workload_shares")) / 99
        self.note(f"{seen:.2f} s of {used:.2f} CPU s in samples")
        self.assertLess(abs(seen / used - 1), 0.15)
