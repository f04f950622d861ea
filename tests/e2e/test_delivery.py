# SPDX-License-Identifier: Apache-2.0
"""From the agent to the server's disk: nothing lost, nothing twice, whoever dies in between."""
import os
import random
import re
import signal
import time

import events
from harness import (FirewatchTest, Server, free_port, require_sampling, selector_of, short_or_full,
                     wait_until)

AGENT_SAMPLES = "firewatch_samples_total"


class OutageTest(FirewatchTest):

    def taken_in_the_end(self, agent):
        """How many samples of processes that have ended the agent took. The ring is read once a
        second, on a busy machine later: the number must stand still for three."""
        last, since = None, 0

        def stands_still():
            nonlocal last, since
            taken = agent.metric(AGENT_SAMPLES)
            if taken != last:
                last, since = taken, time.monotonic()
            return time.monotonic() - since > 3
        wait_until(stands_still, 60, "samples of a process that has ended keep coming", pause=0.5)
        return last

    def sampled_without_server(self, port, hz=499, burn_seconds=6):
        """An agent that watched a process from its start to its end while no server answered.
        Returns it with the number of samples it took: nothing can be added to it any more."""
        workload = self.start("workload_shares", "--seconds", burn_seconds + 4)
        agent = self.start_agent(port, hz=hz, window="500ms",
                                 arguments=["--pid", str(workload.pid)])
        workload.wait()
        taken = self.taken_in_the_end(agent)
        self.assertGreater(taken, 100)
        return agent, taken

    def test_windows_without_a_server_arrive_later(self):
        require_sampling()
        port = free_port()
        agent, taken = self.sampled_without_server(port)
        windows = len(os.listdir(agent.spool))
        self.assertGreater(windows, 5, "windows in the spool")
        server = self.start_server(grpc_port=port)
        # The backoff has grown to some seconds by now.
        wait_until(lambda: server.samples() >= taken, 90,
                   f"{taken} samples taken, not all of them arrived", pause=0.5)
        self.assertEqual(agent.stop(), 0)
        self.assertEqual(server.samples(), taken)
        self.note(f"{taken:.0f} samples in {windows} spooled windows")

    def test_what_a_stopped_agent_left_is_sent_by_the_next(self):
        require_sampling()
        port = free_port()
        agent, taken = self.sampled_without_server(port, burn_seconds=3)
        started = time.monotonic()
        self.assertEqual(agent.stop(), 0)
        self.note(f"stopped without a server in {time.monotonic() - started:.1f} s")
        server = self.start_server(grpc_port=port)
        # The next one watches a process that never runs: all it sends is what the first left.
        sleeper = self.start("workload_filters", "--delay", 600)
        self.start_agent(server, arguments=["--pid", str(sleeper.pid)])
        wait_until(lambda: server.samples('{comm="workload_shares"}') >= taken, 60,
                   f"{taken} samples were left in the spool, not all of them arrived", pause=0.5)
        self.assertEqual(server.samples('{comm="workload_shares"}'), taken)

    def test_an_outage_in_the_middle_loses_nothing(self):
        require_sampling()
        server = self.start_server()
        workload = self.start("workload_shares", "--seconds", 12)
        agent = self.start_agent(server, hz=499, window="500ms",
                                 arguments=["--pid", str(workload.pid)])
        time.sleep(3)
        server.kill()
        time.sleep(3)
        again = self.start_server(grpc_port=server.grpc_port, data=server.data)
        workload.wait()
        taken = self.taken_in_the_end(agent)
        wait_until(lambda: again.samples() >= taken, 60, f"not all of {taken} samples arrived",
                   pause=0.5)
        self.assertEqual(agent.stop(), 0)
        self.assertEqual(again.samples(), taken)


class StopTest(FirewatchTest):

    def test_a_stop_in_the_middle_of_a_window_loses_nothing(self):
        """The window is far from over when SIGTERM comes. What was burned is known by getrusage;
        what the agent took is known from its event file."""
        require_sampling()
        hz, server = 997, self.start_server()
        path = os.path.join(self.folder, "events")
        agent = self.start_agent(server, hz=hz, window="60s", arguments=["--record-events", path])
        used = self.burn("workload_shares", "--cpu-seconds", 4)
        token = f"/run/firewatch/agent-{agent.port}.token"
        if os.geteuid() == 0:  # others have it below their own directory
            self.assertTrue(os.path.exists(token))
        started = time.monotonic()
        self.assertEqual(agent.stop(), 0)
        self.assertFalse(os.path.exists(token), "an agent that has ended needs no token")
        self.note(f"stopped in {time.monotonic() - started:.1f} s")
        stored = server.samples(selector_of("workload_shares"))
        self.note(f"{stored} samples, {stored / hz:.2f} s of {used:.2f} CPU s")
        self.assertLess(abs(stored / hz / used - 1), 0.05, "CPU seconds in samples, of those used")

        # Whatever reached the agent, of any process, is in its event file and on the server.
        self.assertEqual(server.samples(), events.count_samples(path))


class KillTest(FirewatchTest):
    """kill -9 of the server while four agents upload."""

    KILLS = short_or_full(10, 100)

    def start_again(self, previous):
        started = time.monotonic()
        server = self.own(Server(self.folder, previous.data, previous.port, previous.grpc_port))
        server.wait_healthy()
        self.ready_seconds.append(time.monotonic() - started)
        return server

    def test_acknowledged_windows_survive_kill_9_and_none_is_twice(self):
        self.ready_seconds = []
        chance = random.Random(7)  # the same moments in every run, as far as the machine allows
        server = self.start_server()
        client = self.start("ingest_client", "--server", f"127.0.0.1:{server.grpc_port}",
                            "--agents", 4, "--windows", 9999, "--window-ms", 500,
                            "--interval-ms", short_or_full(10, 30), "--stacks", 5,
                            "--give-up", 3600)
        for _ in range(self.KILLS):
            time.sleep(chance.uniform(0.2, 1.2))
            server.kill()
            self.programs.remove(server)  # killed on purpose: its log is of no interest
            server = self.start_again(server)
        time.sleep(1)
        client.process.send_signal(signal.SIGKILL)
        client.process.wait()
        self.check(client.log(), server)
        self.assertEqual(server.stop(), 0)
        self.check(client.log(), self.start_again(server))

    def check(self, log, server):
        sent = {f"window_{a}_{s}" for a, s in re.findall(r"^send (\d+) (\d+)$", log, re.M)}
        acknowledged = {name: int(value) for name, value in
                        re.findall(r"^ack \d+ \d+ (\S+) (\d+) ", log, re.M)}
        repeated = len(re.findall(r"^ack \d+ \d+ \S+ \d+ 1 ", log, re.M))
        stored = {name: value for name, value in server.profile().self_by_name().items()
                  if name.startswith("window_")}
        lost = {name for name in acknowledged if name not in stored}
        wrong = {name: stored[name] for name in acknowledged
                 if name in stored and stored[name] != acknowledged[name]}
        self.assertFalse(lost, f"{len(lost)} acknowledged windows are gone")
        self.assertFalse(wrong, f"{len(wrong)} acknowledged windows have another value")
        unasked = set(stored) - sent
        self.assertFalse(unasked, "windows that nobody sent")
        in_flight = set(stored) - set(acknowledged)
        for name in in_flight:  # stored, but the answer did not arrive: once is right
            agent, sequence = map(int, name.split("_")[1:])
            self.assertEqual(stored[name], 1_000_000 + agent * 10_000 + sequence, name)
        self.assertGreater(len(acknowledged), self.KILLS * 5)
        ready = sorted(self.ready_seconds)
        self.note(f"{len(acknowledged)} acknowledged ({repeated} after a retry), "
                  f"{len(in_flight)} in flight, ready in {ready[len(ready) // 2]:.2f} s (median)")
