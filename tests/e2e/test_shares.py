# SPDX-License-Identifier: Apache-2.0
"""Is the profile true? A workload whose answer is known, through every way out of Firewatch."""
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse

import harness
from harness import (FirewatchTest, binary, require_sampling, require_tool, selector_of,
                     short_or_full)
from pprof import Profile

SHARES = {"burn_10": 10, "burn_20": 20, "burn_30": 30, "burn_40": 40}
# 997 Hz: 8,000 samples in 8 CPU seconds, so that 2 points are almost four standard deviations. At
# 99 Hz the same check would fail by chance.
HZ = 997


def cpu_seconds():
    return short_or_full(8, 30)


class SharesTest(FirewatchTest):

    def check_shares(self, burned, tolerance=2.0):
        total = sum(burned.values())
        self.assertGreater(total, 1000, f"too few samples in the four functions: {burned}")
        shares = {name: 100 * burned.get(name, 0) / total for name in SHARES}
        self.note(" ".join(f"{share:.1f}" for share in shares.values()) + f" % of {total}")
        for name, wanted in SHARES.items():
            self.assertLess(abs(shares[name] - wanted), tolerance,
                            f"{name}: {shares[name]:.2f} %, not {wanted} % (all: {shares})")

    def check_profile(self, profile):
        """Shares; 99 % of all samples of the process reach main; the 60-frame stack is there."""
        at, burned = profile.index("samples"), {}
        total = reaching = deep = 0
        for frames, values, _, _ in profile.samples:
            total += values[at]
            reaching += values[at] if "main" in frames else 0
            # An interrupt's kernel frames may lie above the function that was interrupted.
            leaf = next((frame for frame in frames if frame in SHARES), None)
            if leaf:
                burned[leaf] = burned.get(leaf, 0) + values[at]
                # 57 levels; the hot leaf has no frame of its own, so its caller may be missing.
                deep += values[at] if sum(f.startswith("level_") for f in frames) >= 56 else 0
        self.check_shares(burned)
        self.note(f"{100 * reaching / total:.2f} % reach main")
        self.assertGreaterEqual(reaching / total, 0.99, "samples that reach main")
        self.assertGreaterEqual(deep / sum(burned.values()), 0.99, "samples with all levels")

    def test_the_workload_is_what_it_seems(self):
        require_tool("objdump")
        checker = os.path.join(harness.ROOT, "tests", "workloads", "check_shares.py")
        done = subprocess.run([sys.executable, checker, binary("workload_shares")],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_agent_to_server_to_pprof(self):
        require_sampling()
        server = self.start_server()
        agent = self.start_agent(server, hz=HZ, window="2s")
        self.burn("workload_shares", "--cpu-seconds", cpu_seconds())
        self.assertEqual(agent.stop(), 0)
        self.check_profile(server.profile(selector_of("workload_shares")))
        self.check_pprof_tool(server)

    def check_pprof_tool(self, server):
        """go tool pprof reads the same shares from the address that the README names."""
        if not shutil.which("go"):
            self.note("go tool pprof: not installed")
            return
        url = (f"http://127.0.0.1:{server.port}/pprof/profile?"
               + urllib.parse.urlencode({"query": selector_of("workload_shares")}))
        done = subprocess.run(["go", "tool", "pprof", "-sample_index=samples", "-top", url],
                              capture_output=True, text=True, timeout=300, cwd=self.folder,
                              env={**os.environ, "PPROF_TMPDIR": self.folder})
        self.assertEqual(done.returncode, 0, done.stderr)
        flat = {name: int(value) for value, name in
                re.findall(r"^\s*(\d+)\s+[\d.]+%.*\s(burn_\d\d)$", done.stdout, re.M)}
        self.check_shares(flat)

    def test_record_of_a_command(self):
        require_sampling()
        out = os.path.join(self.folder, "out.pb.gz")
        code, log = self.run_program(
            "firewatch", "record", "--hz", HZ, "-o", out, "--", binary("workload_shares"),
            "--cpu-seconds", cpu_seconds(), seconds=240, priority=-10)
        self.assertEqual(code, 0, log)
        with open(out, "rb") as file:
            self.check_profile(Profile(file.read()))

    def test_top_and_series_agree_with_the_profile(self):
        require_sampling()
        server = self.start_server()
        agent = self.start_agent(server, hz=99)
        used = self.burn("workload_shares", "--cpu-seconds", 3)
        self.assertEqual(agent.stop(), 0)
        total = server.profile(selector_of("workload_shares")).total("samples")
        top = json.loads(server.query("/api/v1/top", selector_of("workload_shares"), type="samples", limit=0))
        self.assertEqual(top["total"], total)
        self.assertEqual(sum(row["self"] for row in top["functions"]), total)
        main = [row["total"] for row in top["functions"] if row["name"] == "main"]
        self.assertEqual(len(main), 1, top["functions"])
        folded = server.query("/api/v1/profile", selector_of("workload_shares"), format="folded", type="samples")
        self.assertEqual(sum(int(line.rsplit(" ", 1)[1])
                             for line in folded.decode().splitlines()), total)
        self.assertLess(abs(total / 99 / used - 1), 0.10, f"{total} samples of {used} CPU s")
