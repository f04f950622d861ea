# SPDX-License-Identifier: Apache-2.0
"""The pipeline behind the sampler, fed from a file: no privilege, always the same answer."""
import os

import events
from harness import (ROOT, Agent, FirewatchTest, Program, require_root, require_sampling,
                     require_tool)

# workload_shares for two seconds and workload_short five times, recorded once by `firewatch-agent
# --record-events` and trimmed by events.py: what a machine without privilege tests with.
COMMITTED = os.path.join(ROOT, "tests", "e2e", "data", "shares.events")
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all",
             "--inh-caps=-all"]


class ReplayTest(FirewatchTest):

    def replay(self, path, number, **options):
        """A server of its own that has taken the whole file."""
        server = self.start_server(data=os.path.join(self.folder, f"data{number}"))
        folder = os.path.join(self.folder, f"agent{number}")
        os.mkdir(folder)
        os.chmod(folder, 0o777)  # nobody makes its spool and its symbols there
        agent = self.own(Agent(folder, server.grpc_port, arguments=["--replay", path], **options))
        self.assertEqual(agent.wait(120), 0, agent.tail())
        return server

    def totals(self, server):
        profile = server.profile(**{"from": 0})
        return {kind: profile.total(kind) for kind in ("samples", "cpu")}, profile.self_by_name()

    def test_committed_events_give_the_known_totals(self):
        recent = os.path.join(self.folder, "recent")
        events.as_if_recorded_now(COMMITTED, recent)
        totals, names = self.totals(self.replay(recent, 1))
        again, names_again = self.totals(self.replay(recent, 2))
        self.assertEqual(totals, again)
        self.assertEqual(names, names_again)
        self.assertEqual(totals["samples"], events.count_samples(COMMITTED))
        hz = events.read(COMMITTED)[0][2]
        self.assertAlmostEqual(totals["cpu"] / 1e9, totals["samples"] / hz, places=2)
        self.note(f"{totals['samples']} samples")

    def test_a_live_recording_replayed_by_nobody(self):
        require_sampling()
        require_root()
        require_tool("setpriv")
        path = os.path.join(self.folder, "events")
        server = self.start_server()
        agent = self.start_agent(server, hz=499, arguments=["--record-events", path])
        self.own(Program(self.folder, "workload_shares", [
            self.copied("workload_shares"), "--cpu-seconds", "2"], priority=-10)).wait()
        self.assertEqual(agent.stop(), 0)
        os.chmod(path, 0o644)
        live, _ = self.totals(server)
        replayed, names = self.totals(self.replay(
            path, 3, wrapper=AS_NOBODY, program=self.copied("firewatch-agent"),
            env={"ASAN_OPTIONS": "detect_leaks=0"}))
        self.assertEqual(replayed, live)
        self.assertGreater(sum(v for k, v in names.items() if k.startswith("burn_")), 200,
                           "the workload's names: its file is readable for everybody")

    def test_a_file_that_is_no_recording_is_refused(self):
        for number, data in enumerate((b"", b"\x00" * 4096, os.urandom(4096))):
            path = os.path.join(self.folder, f"bad{number}")
            with open(path, "wb") as file:
                file.write(data)
            agent = self.own(Agent(self.folder, 1, arguments=["--replay", path]))
            self.assertGreater(agent.wait(30), 0, agent.tail())
            self.assertIn(path, agent.log(), "the refusal does not name the file")

