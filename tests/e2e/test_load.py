# SPDX-License-Identifier: Apache-2.0
"""Machines that are no fun to watch: a fork storm, a thousand processes."""
import re
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
