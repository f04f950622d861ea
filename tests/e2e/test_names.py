# SPDX-License-Identifier: Apache-2.0
"""Names as they become better: symbols, then lines and inlined functions; code without a file."""
import os
import shutil
import time

from harness import (FirewatchTest, Program, binary, require_root, require_sampling, require_tool,
                     selector_of, wait_until)
from pprof import Profile

HZ = 499
INLINED = {"inlined_leaf", "inlined_middle"}
FIB = """
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
const end = Date.now() + %d;
while (Date.now() < end) fib(22);
"""


class NamesTest(FirewatchTest):

    def record(self, *command, arguments=(), program="firewatch"):
        out = os.path.join(self.folder, "out.pb.gz")
        code, log = self.run_program(program, "record", "--hz", HZ, "-o", out, "--cache",
                                     os.path.join(self.folder, "symbols"), *arguments, "--",
                                     *command, seconds=120)
        self.assertEqual(code, 0, log)
        with open(out, "rb") as file:
            return Profile(file.read())

    def check_inlined(self, profile):
        outer = profile.total("samples", lambda frames: "spin_outer" in frames)
        inlined = profile.total("samples", lambda frames: bool(INLINED & set(frames)))
        self.note(f"{inlined} of {outer} samples with inlined functions")
        self.assertGreater(outer, 200)
        self.assertGreaterEqual(inlined / outer, 0.99, profile.lines)
        source = {os.path.basename(file) for file, _ in profile.lines["inlined_leaf"]}
        self.assertEqual(source, {"inlined.cc"})
        # The statements of the body.
        self.assertLessEqual({line for _, line in profile.lines["inlined_leaf"]}, set(range(5, 12)))
        self.assertIn(("main", "spin_outer"), {
            (frames[i + 1], frame) for frames, _, _, _ in profile.samples
            for i, frame in enumerate(frames[:-1]) if frame == "spin_outer"})

    def test_record_has_lines_and_inlined_functions(self):
        require_sampling()
        self.check_inlined(self.record(binary("workload_inlined"), "--seconds", 3))

    def test_record_without_lines(self):
        require_sampling()
        profile = self.record(binary("workload_inlined"), "--seconds", 2,
                              arguments=("--lines", "off"))
        self.assertGreater(profile.total("samples", lambda frames: "spin_outer" in frames), 100)
        self.assertFalse(INLINED & set(profile.lines))
        self.assertEqual({line for _, line in profile.lines["spin_outer"]}, {0})

    def test_symbols_first_lines_later_and_no_stack_splits(self):
        """The first windows know symbols alone; those of a later one name them all."""
        require_sampling()
        server = self.start_server()
        # A window waits for the kernel's names, which take longer than lines. So the process makes
        # system calls first, until those are known.
        go = os.path.join(self.folder, "go")
        workload = self.own(Program(self.folder, "workload_inlined", [
            "sh", "-c", f'while [ ! -e {go} ]; do :; done; exec "$0" --seconds 120',
            binary("workload_inlined")]))
        agent = self.start_agent(server, hz=HZ, window="200ms",
                                 arguments=("--pid", str(workload.pid)))
        wait_until(lambda: any("syscall_64" in name for name in server.profile().lines), 90,
                   "the kernel's names do not come")
        with open(go, "w", encoding="ascii"):
            pass
        selector = selector_of("workload_inlined")
        before = profile = None
        end = time.monotonic() + 90
        while time.monotonic() < end:
            profile = server.profile(selector) if server.samples(selector) else None
            if profile and "inlined_leaf" in profile.lines:
                break
            if profile and "spin_outer" in profile.lines:
                before = profile
            time.sleep(0.05)
        self.assertIsNotNone(before, "lines were there before the first window")
        self.assertEqual({line for _, line in before.lines["spin_outer"]}, {0})
        early = before.total("samples")
        time.sleep(2)
        workload.kill()
        self.assertEqual(agent.stop(), 0)
        profile = server.profile(selector)
        self.note(f"{early} samples before there were lines")
        self.assertGreater(profile.total("samples"), early)
        # What was stored without lines has them now: the same locations, under better names. Were
        # they others, the samples of the first windows would still show spin_outer alone.
        self.check_inlined(profile)

    def check_jit(self, how):
        """Eight functions, two by two at one address; the agent comes while they run."""
        require_sampling()
        server = self.start_server()
        workload = self.start("workload_jit", "--seconds", 24, "--functions", 8, "--how", how,
                              "--folder", self.folder, priority=-10)
        agent = self.start_agent(server, hz=HZ, window="500ms",
                                 arguments=("--pid", str(workload.pid)))
        self.assertEqual(workload.wait(120), 0, workload.tail())
        self.assertEqual(agent.stop(), 0)
        profile = server.profile(selector_of("workload_jit"))
        total = profile.total("samples", lambda frames: "call_jitted" in frames)
        by_name = {i: profile.total("samples", lambda frames, n=f"jitted_{i} (tier 2)": n in frames)
                   for i in range(8)}
        self.note(f"{by_name} of {total}")
        self.assertGreaterEqual(sum(by_name.values()) / total, 0.98, by_name)
        # A window that two functions of one address share goes to the later one; most do not.
        seen = [i for i, samples in by_name.items() if samples > 0]
        self.assertGreaterEqual(len(seen), 4, by_name)
        self.assertTrue(any(i + 1 in seen for i in seen if i % 2 == 0), by_name)
        return profile

    def test_jit_code_by_perf_map(self):
        self.check_jit("map")

    def test_jit_code_by_jitdump_with_lines(self):
        profile = self.check_jit("dump")
        self.assertEqual(profile.lines["jitted_7 (tier 2)"], {("/srv/jitted.src", 42)})

    def test_jit_code_in_another_pid_and_mount_namespace(self):
        require_sampling()
        require_root()
        require_tool("unshare")
        server = self.start_server()
        inside = self.own(Program(self.folder, "jit", [
            "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
            f"mount -t tmpfs none /tmp && {binary('workload_jit')} --seconds 15 && true"]))
        agent = self.start_agent(server, hz=HZ, window="500ms",
                                 arguments=("--pid", str(inside.pid)))
        code = inside.wait(60)
        if code != 0 and "cpu_us" not in inside.log():
            self.skipTest(f"no namespaces here: {inside.log()}")
        self.assertEqual(agent.stop(), 0)
        profile = server.profile(selector_of("workload_jit"))
        total = profile.total("samples", lambda frames: "call_jitted" in frames)
        named = profile.total("samples", lambda frames: any(f.startswith("jitted_") for f in frames))
        self.note(f"{named} of {total}")
        self.assertGreater(total, 100)
        self.assertGreaterEqual(named / total, 0.98)

    def test_node_by_perf_map(self):
        require_sampling()
        require_tool("node")
        script = os.path.join(self.folder, "fib.js")
        with open(script, "w", encoding="ascii") as file:
            file.write(FIB % 3000)
        node = shutil.which("node")
        profile = self.record(node, "--perf-basic-prof", script)
        total = profile.total("samples")
        fib = profile.total("samples", lambda frames: any(" fib " in f or ":*fib" in f or "*fib" in f
                                                          for f in frames))
        self.note(f"fib in {fib} of {total} samples")
        self.assertGreater(fib / total, 0.8, sorted(profile.lines)[:50])

    def check_remapped(self, how):
        require_sampling()
        profile = self.record(binary("workload_remapped"), "--seconds", 3, "--how", how)
        total = profile.total("samples")
        named = profile.total("samples", lambda frames: "burn_remapped" in frames)
        self.note(f"{named} of {total}")
        self.assertGreater(total, 300)
        self.assertGreaterEqual(named / total, 0.95)

    def test_text_on_anonymous_pages(self):
        self.check_remapped("inner")

    def test_text_on_moved_pages(self):
        self.check_remapped("moved")

    def test_text_on_anonymous_pages_of_a_program_that_runs(self):
        """Nobody has seen how it came about."""
        require_sampling()
        workload = self.start("workload_remapped", "--seconds", 60)
        time.sleep(1)
        out = os.path.join(self.folder, "out.pb.gz")
        code, log = self.run_program("firewatch", "record", "--pid", workload.pid, "--seconds", 3,
                                     "--hz", HZ, "-o", out, seconds=120)
        self.assertEqual(code, 0, log)
        workload.kill()
        with open(out, "rb") as file:
            profile = Profile(file.read())
        total = profile.total("samples")
        named = profile.total("samples", lambda frames: "burn_remapped" in frames)
        self.note(f"{named} of {total}")
        self.assertGreaterEqual(named / total, 0.95)
