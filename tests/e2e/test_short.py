# SPDX-License-Identifier: Apache-2.0
"""Processes that are gone before anybody could look at them in /proc."""
import os
import random
import re
import subprocess
import sys
import time

from harness import ROOT, FirewatchTest, binary, require_sampling, short_or_full

sys.path.insert(0, os.path.join(ROOT, "tests", "workloads"))
from short_variants import make_variants  # noqa: E402

PROCESSES = 200
PRIORITY = ["nice", "-n", "-10"] if os.geteuid() == 0 else []


class ShortTest(FirewatchTest):

    def burn(self, hz, programs):
        """Runs each program once, one after another; CPU seconds by their own getrusage.

        In between it waits for up to the time between two samples: a program and the start of the
        next take about as long as one (52.6 ms at 19 Hz), and in step with the clock all samples of
        many programs would fall between them.
        """
        total_us = 0
        pauses = random.Random(hz)
        for program in programs:
            time.sleep(pauses.uniform(0, 1 / hz))
            done = subprocess.run(PRIORITY + [program], check=True, capture_output=True, text=True)
            total_us += int(re.search(r"cpu_us=(\d+)", done.stdout).group(1))
        return total_us / 1e6

    def attributed_share(self, hz, programs):
        """CPU seconds in samples that carry the right binary, per CPU second burned."""
        server = self.start_server(data=os.path.join(self.folder, f"data{hz}"))
        agent = self.start_agent(server, hz=hz, window="2s",
                                 spool=os.path.join(self.folder, f"spool{hz}"))
        used = self.burn(hz, programs)
        self.assertEqual(agent.stop(), 0)
        # By the file of the mapping that the stack lies in; by path, so that another run of these
        # tests on the same machine counts for itself.
        profile = server.profile()
        at = profile.index("samples")
        paths = {os.path.realpath(program) for program in programs}
        in_binary = sum(values[at] for _, values, _, files in profile.samples
                        if any(file in paths for file in files))
        folder = os.path.dirname(os.path.realpath(programs[0]))
        by_label = server.samples('{exe=~"%s/.*workload_short.*"}' % folder)
        share_mapping, share_label = in_binary / hz / used, by_label / hz / used
        self.note(f"{hz} Hz: {100 * share_mapping:.1f} % by mapping, {100 * share_label:.1f} % by "
                  f"exe, of {used:.2f} CPU s")
        server.stop()
        return share_mapping, share_label

    def test_50_ms_processes_are_attributed_at_99_hz(self):
        require_sampling()
        share, by_label = self.attributed_share(99, [binary("workload_short")] * PROCESSES)
        self.assertGreaterEqual(max(share, by_label), 0.95)
        self.assertGreaterEqual(share, 0.90, "stacks that lie in the right binary")
        self.assertLessEqual(max(share, by_label), 1.10)

    def test_200_binaries_nobody_has_met(self):
        """Every process a new file with a new build id: what a build farm looks like."""
        require_sampling()
        variants = make_variants(binary("workload_short"), os.path.join(self.folder, "variants"),
                                 short_or_full(60, PROCESSES))
        share, by_label = self.attributed_share(99, variants)
        self.assertGreaterEqual(max(share, by_label), 0.90)
        self.assertLessEqual(max(share, by_label), 1.15)

    def test_50_ms_processes_at_19_hz(self):
        """One sample in a process's life: the first one counts, or there is none."""
        require_sampling()
        share, by_label = self.attributed_share(19, [binary("workload_short")] * PROCESSES)
        self.assertGreaterEqual(max(share, by_label), 0.85)
        self.assertLessEqual(max(share, by_label), 1.20)
