# SPDX-License-Identifier: Apache-2.0
"""Stacks without frame pointers: sampled by the kernel side in whole, and compared from outside.

The known chains of the `stacks` workloads (tests/stacks/chains.py) are looked for in what
`firewatch record` writes, from the first sample of each process on; tests/stacks/truth.py compares
the unwinder with libunwind and gdb on live processes.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest

from harness import (BIN_DIR, FULL, ROOT, FirewatchTest, binary, children_of, cpu_seconds,
                     require_sampling, require_tool, short_or_full, wait_until)
from pprof import Profile

sys.path.insert(0, os.path.join(ROOT, "tests", "stacks"))
import chains  # noqa: E402

WHOLE_PERCENT = 99.9
# While tables are built: a first stack deeper than its copy is cut.
COLD_PERCENT = 95
# Of each build: its modes. The short form looks at what is hardest, in one build each.
SHORT = {"stacks_gcc": ["alloca", "recursion", "exception", "altstack", "vfork", "qsort", "openssl",
                        "zstd", "resolve", "coroutine"],
         "stacks_clang": ["realign", "protector"], "stacks_static": ["signal"],
         "stacks_rust": ["rust"]}
LONG = {"stacks_gcc": chains.MODES, "stacks_clang": chains.MODES,
        "stacks_realign": ["alloca", "recursion", "realign", "exception", "altstack", "qsort"],
        "stacks_static": chains.STATIC_MODES, "stacks_rust": ["rust"]}


def can_trace():
    """A child of ours can be looked at, unless a filter forbids ptrace altogether."""
    code = ("import ctypes,os,sys; c=ctypes.CDLL(None); p=os.fork() or os.execvp('sleep',['sleep','9']);"
            "r=c.ptrace(0x4206,p,0,0); os.kill(p,9); sys.exit(r != 0)")
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class SampledStacksTest(FirewatchTest):

    def sampled(self, build, modes, cold_seconds, warm_seconds):
        """The profile of one recording that began before the first process. Every mode runs twice:
        as "cold" while its files are new to the agent, then as "warm", a process of its own whose
        first sample counts like any other. The two names are links to one file."""
        for name in ("cold", "warm"):
            link = os.path.join(self.folder, name)
            if os.path.lexists(link):
                os.unlink(link)
            os.symlink(binary(f"workload_{build}"), link)
        commands = [f"./{name} {mode} {seconds}" for name, seconds in
                    (("cold", cold_seconds), ("warm", warm_seconds)) for mode in modes]
        out = os.path.join(self.folder, f"{build}.pb.gz")
        code, log = self.run_program(
            "firewatch", "record", "--hz", 99, "-o", out, "--cache",
            os.path.join(self.folder, "cache"), "--", "sh", "-c", "; ".join(commands), seconds=900)
        self.assertEqual(code, 0, log)
        with open(out, "rb") as file:
            return Profile(file.read())

    def judge(self, modes, names, files):
        """None for a stack outside of main, else '' when it is the beginning of a known chain of one
        of the modes, or what is wrong. `files`: of the frames, root first as `names`."""
        reasons = []
        for mode in modes:
            own = chains.own_functions(mode, names)
            if not own or own == ["main"]:
                continue
            why = chains.why_wrong(mode, names)
            if not why and own[0] != "main" and mode not in ("threads", "rust"):
                why = f"begins with {own[0]}, not main"
            if not why:
                return ""
            reasons.append(why)
        if reasons:
            return reasons[0]
        # Before main the loader is the root, after it _start; exec and exit have the kernel alone.
        # All else was cut before it came to a function of the workload.
        user = [file for file in files if not file.startswith("[") or file in ("[vdso]", "[anon]")]
        if not user or "/ld-linux" in user[0] or "_start" in names:
            return None
        return f"begins with {names[0]} in {user[0]}, comes from nowhere"

    def test_known_chains_from_the_first_sample_on(self):
        require_sampling()
        total = {"cold": [0, 0], "warm": [0, 0]}
        for build, modes in (LONG if FULL else SHORT).items():
            if not os.path.exists(os.path.join(BIN_DIR, f"workload_{build}")):
                self.note(f"{build} is not built here")
                continue
            profile = self.sampled(build, modes, short_or_full(1, 2), short_or_full(1.5, 10))
            wrong = []
            for frames, values, labels, files in profile.samples:
                run = labels.get("thread")
                why = self.judge(modes, frames[::-1], files[::-1])
                if run not in total or why is None:
                    continue
                total[run][0] += values[0]
                total[run][1] += values[0] if why == "" else 0
                if why and run == "warm":
                    wrong.append(f"{values[0]} x {why}")
            if wrong:
                print(f"  {build}: {len(wrong)} stacks: {wrong[:8]}", flush=True)
        (cold, cold_whole), (warm, warm_whole) = total["cold"], total["warm"]
        self.note(f"{warm_whole} of {warm} samples whole from each process's first on; "
                  f"{cold_whole} of {cold} while tables were built")
        self.assertGreater(warm, 100, "hardly sampled")
        self.assertGreaterEqual(100.0 * warm_whole / warm, WHOLE_PERCENT)
        self.assertGreaterEqual(100.0 * cold_whole / cold, COLD_PERCENT)


class TruthTest(FirewatchTest):

    @unittest.skipUnless(can_trace(), "ptrace is not allowed here")
    def test_ctrl_c_while_gdb_judges_leaves_the_program_running(self):
        require_tool("gdb")
        # libunwind finds nothing in a static program, so gdb is asked at once.
        workload = self.start("workload_stacks_static", "altstack", 3000)
        doctor = self.start("firewatch", "doctor", "--stacks", workload.pid, "--judge", "--stops",
                            100_000, "--cache", os.path.join(self.folder, "cache"))

        def gdb_runs():
            assert doctor.alive(), doctor.tail()
            for child in children_of(doctor.pid):
                try:
                    with open(f"/proc/{child}/comm", encoding="utf-8") as file:
                        if file.read().strip() == "gdb":
                            return True
                except (FileNotFoundError, ProcessLookupError):
                    pass
            return False
        wait_until(gdb_runs, 120, "gdb is never asked", pause=0.005)
        doctor.process.send_signal(signal.SIGINT)
        doctor.process.wait(150)
        before = cpu_seconds(workload.pid)
        wait_until(lambda: cpu_seconds(workload.pid) > before + 0.1, 60,
                   "the program stands still after the doctor was interrupted")
        workload.kill()

    @unittest.skipUnless(can_trace(), "ptrace is not allowed here")
    def test_agrees_with_libunwind(self):
        """The short form of tests/stacks/truth.py: about 25 stops per program."""
        command = [sys.executable, os.path.join(ROOT, "tests", "stacks", "truth.py"), "--bin-dir",
                   BIN_DIR] + (["--full"] if FULL else [])
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=short_or_full(900, 3600), check=False)
        print(done.stdout, flush=True)
        total = re.search(r"^all +(\d+) +(\d+) +(\S+) +(\d+)", done.stdout, re.M)
        self.assertIsNotNone(total, done.stdout[-2000:])
        self.note(f"{total.group(1)} stops, {total.group(2)} frames, {total.group(3)} % as libunwind, "
                  f"{total.group(4)} against us by gdb"
                  + ("" if shutil.which("gdb") else " (no gdb here)"))
        self.assertEqual(done.returncode, 0)
