# SPDX-License-Identifier: Apache-2.0
"""`firewatch record` and `firewatch doctor`: no server, no configuration, any privilege."""
import os
import re
import signal
import subprocess
import time

from harness import (FirewatchTest, Program, binary, require_sampling, require_tool, wait_until,
                     why_no_sampling)
from pprof import Profile

FAMILY = ("burn_parent", "burn_child", "burn_grandchild")
NO_TRACE = re.compile(r"Sanitizer|terminate called|Aborted|core dumped|stack trace|#0 0x|Traceback")
SAYS_WHY = re.compile(r"CAP_\w+|perf_event_paranoid|root|privilege|permi(tted|ssion)|allowed", re.I)
# LeakSanitizer attaches to the process with ptrace, which those without capabilities may not.
NO_LEAK_CHECK = {"ASAN_OPTIONS": "detect_leaks=0"}


class RecordTest(FirewatchTest):

    def setUp(self):
        super().setUp()
        self.out = os.path.join(self.folder, "out.pb.gz")

    def record(self, *arguments, seconds=90):
        code, log = self.run_program("firewatch", "record", *arguments, seconds=seconds)
        self.assertEqual(code, 0, log)
        return log

    def profile(self):
        with open(self.out, "rb") as file:
            return Profile(file.read())

    def names(self, profile):
        return {frame for frames, _, _, _ in profile.samples for frame in frames}

    def test_pid_with_children_and_nobody_else(self):
        """The children are made a second after the recording has begun."""
        require_sampling()
        bystander = self.start("workload_shares", "--seconds", 60)
        family = self.start("workload_filters", "--delay", 3, "--seconds", 4)
        self.record("--pid", family.pid, "--seconds", 8, "--hz", 499, "-o", self.out)
        bystander.kill()
        profile = self.profile()
        by_name = {name: profile.total("samples", lambda frames, n=name: n in frames)
                   for name in FAMILY}
        self.note(str(by_name))
        for name, samples in by_name.items():
            self.assertGreater(samples, 20, by_name)
        self.assertNotIn("run_rounds", self.names(profile), "a process that was not asked for")

    def test_all_processes(self):
        require_sampling()
        workload = self.start("workload_shares", "--seconds", 60)
        self.record("--all", "--seconds", 4, "--hz", 199, "-o", self.out)
        workload.kill()
        profile = self.profile()
        self.assertIn("burn_40", self.names(profile))
        # Everything that runs: the kernel and other processes too, this recorder among them.
        self.assertGreater(len({labels.get("comm") for _, _, labels, _ in profile.samples}), 1)

    def test_command_and_its_exit(self):
        """Ends with the command, long before --seconds."""
        require_sampling()
        started = time.monotonic()
        self.record("--seconds", 60, "--hz", 499, "-o", self.out, "--",
                    binary("workload_filters"), "--seconds", 3)
        self.assertLess(time.monotonic() - started, 40)
        names = self.names(self.profile())
        for name in FAMILY:
            self.assertIn(name, names)

    def test_short_command_is_recorded_from_its_first_moment(self):
        require_sampling()
        self.record("--seconds", 30, "--hz", 997, "-o", self.out, "--", binary("workload_short"),
                    "--ms", 200)
        samples = self.profile().total("samples", lambda frames: "main" in frames)
        self.assertGreater(samples, 997 * 0.2 * 0.9)
        self.assertLess(samples, 997 * 0.2 * 1.15)

    def test_ctrl_c_keeps_what_was_collected(self):
        require_sampling()
        workload = self.start("workload_shares", "--seconds", 60)
        recorder = self.start("firewatch", "record", "--pid", workload.pid, "--seconds", 600,
                              "--hz", 499, "-o", self.out)
        time.sleep(6)
        code = recorder.stop(sig=signal.SIGINT)
        workload.kill()
        self.assertIn(code, (0, 130), recorder.tail())
        self.assertGreater(self.profile().total("samples"), 100)

    def test_output_passes_go_tool_pprof(self):
        require_sampling()
        require_tool("go")
        self.record("--seconds", 30, "--hz", 199, "-o", self.out, "--",
                    binary("workload_syscalls"), "--seconds", 3)
        done = subprocess.run(["go", "tool", "pprof", "-raw", self.out], capture_output=True,
                              text=True, cwd=self.folder, timeout=300,
                              env={**os.environ, "PPROF_TMPDIR": self.folder})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("samples/count", done.stdout)
        self.assertIn("cpu/nanoseconds", done.stdout)
        self.assertIn("main", done.stdout)
        self.assertRegex(done.stdout, r"\[FN\]", "has_functions is not set on any mapping")
        # Kernel frames above the user frames that called them. (call_kernel itself is missing:
        # libc's wrappers have no frame of their own, so their caller is skipped.)
        profile = self.profile()
        kernel = profile.total("samples", lambda f: "main" in f and any(
            frame == "do_syscall_64" or frame.startswith("entry_SYSCALL")
            for frame in f[:f.index("main")]))
        self.note(f"{100 * kernel / profile.total('samples'):.0f} % with kernel frames")
        self.assertGreater(kernel / profile.total("samples"), 0.5)

    def test_folded_lines_sum_up(self):
        require_sampling()
        out = os.path.join(self.folder, "out.folded")
        log = self.record("--hz", 499, "--folded", "-o", out, "--", binary("workload_shares"),
                          "--cpu-seconds", 3)
        with open(out, encoding="utf-8") as file:
            rows = [line.rstrip("\n").rsplit(" ", 1) for line in file]
        total = sum(int(count) for _, count in rows)
        used = int(re.search(r"cpu_us=(\d+)", log).group(1)) / 1e6
        self.assertLess(abs(total / 499 / used - 1), 0.10, f"{total} samples, {used} CPU s")
        in_main = sum(int(count) for stack, count in rows
                      if "main;run_rounds;level_01;level_02;" in stack)
        self.assertGreaterEqual(in_main / total, 0.98)

    def test_recursion_beyond_the_kernels_127_frames(self):
        require_sampling()
        for depth, least in ((127, 127), (500, 500), (2000, 900)):
            self.record("--seconds", 30, "--hz", 199, "-o", self.out, "--",
                        binary("workload_depth"), "--depth", depth, "--seconds", 2)
            profile = self.profile()
            deep = profile.total("samples", lambda f, n=least: f.count("recurse") >= n)
            share = deep / profile.total("samples", lambda f: "burn_leaf" in f)
            self.note(f"depth {depth}: {100 * share:.0f} % keep {least} frames")
            self.assertGreaterEqual(share, 0.95, f"depth {depth}")

    def test_threads_have_names(self):
        require_sampling()
        self.record("--seconds", 30, "--hz", 499, "-o", self.out, "--",
                    binary("workload_threads"), "--threads", 3, "--seconds", 3)
        profile = self.profile()
        threads = {labels.get("thread") for _, _, labels, _ in profile.samples}
        self.assertLessEqual({"worker-1", "worker-2", "worker-3"}, threads, threads)


class UnprivilegedTest(FirewatchTest):

    def without_privilege(self, name, *arguments, user=("--reuid=65534", "--regid=65534",
                                                        "--clear-groups")):
        """One of our programs as nobody, without capabilities; as we are when we have none."""
        folder = os.path.join(self.folder, "nobody")
        os.makedirs(folder, exist_ok=True)
        command = [self.copied(name), *map(str, arguments)]
        if os.geteuid() == 0:
            require_tool("setpriv")
            os.chmod(folder, 0o777)
            command = ["setpriv", *user, "--bounding-set=-all", "--inh-caps=-all", *command]
        elif not why_no_sampling():
            self.skipTest("this user may sample: nothing is missing")
        return self.own(Program(self.folder, name, command, env={**NO_LEAK_CHECK, "HOME": folder}))

    def check_says_why(self, program):
        self.assertIsNone(NO_TRACE.search(program.log()), program.tail())
        self.assertGreaterEqual(program.process.returncode or 0, 0, "ended by a signal")
        self.assertRegex(program.log(), SAYS_WHY, program.tail())

    def test_record_as_nobody_says_what_it_can_still_do(self):
        """Own processes, by a fallback: so there is one."""
        out = os.path.join(self.folder, "nobody", "out.pb.gz")
        self.without_privilege("workload_shares", "--seconds", 60)
        program = self.without_privilege("firewatch", "record", "--all", "--seconds", 4, "-o", out)
        code = program.wait()
        self.check_says_why(program)
        if code == 0:  # then there must be something in it
            with open(out, "rb") as file:
                self.assertGreater(Profile(file.read()).total("samples"), 0)

    def test_doctor_prints_a_line_per_ability(self):
        program = self.start("firewatch", "doctor")
        code = program.wait()
        lines = [line for line in program.log().splitlines() if line.strip()]
        self.assertGreater(len(lines), 5, program.tail())
        self.assertIsNone(NO_TRACE.search(program.log()), program.tail())
        self.note(f"{len(lines)} lines, exit code {code}")
        if why_no_sampling():  # a machine that allows nothing: doctor must say so
            self.assertEqual(code, 1, program.tail())
            self.assertRegex(program.log(), SAYS_WHY)
            return
        self.assertIn(code, (0, 2), program.tail())  # 2: sampling works, something is degraded
        self.assertEqual(code == 2, " warn" in program.log(), program.tail())

    def test_doctor_as_nobody_names_what_is_missing(self):
        program = self.without_privilege("firewatch", "doctor")
        self.assertNotEqual(program.wait(), 0, "nothing can be profiled, and doctor is content")
        self.check_says_why(program)

    def test_agent_without_any_capability(self):
        """As root: root by number, with an empty bounding set; a container that allows nothing."""
        program = self.without_privilege(
            "firewatch-agent", "--server", "127.0.0.1:1", "--http", "127.0.0.1:0",
            "--spool", os.path.join(self.folder, "spool"),
            "--cache", os.path.join(self.folder, "symbols"), user=())
        # Either it ends with a clear line, or it runs degraded and says what is missing.
        wait_until(lambda: not program.alive() or SAYS_WHY.search(program.log()), 30,
                   "an agent that may do nothing says nothing")
        program.stop()
        self.check_says_why(program)
