#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our unwinder against libunwind, and gdb where they disagree, on live programs.

usage: tests/stacks/truth.py --bin-dir build/asan/bin [--full] [--only NAME,...] [--verbose]

Starts each program as its own child, lets `firewatch doctor --stacks PID --judge` stop its threads
at random moments, and prints one row per program: stops, frames compared, how many agree, how many
gdb holds against us, and how many stacks are complete. The stacks of the `stacks` workloads must
also be their known call chains (chains.py) in every stop. --full: at least 500 stops per binary and
10,000 in all.
"""
import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import chains  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
AGREE_PERCENT = 99.9
COMPLETE_PERCENT = 99.9
_libc = ctypes.CDLL(None, use_errno=True)

PYTHON = """
import hashlib, json, re, random, zlib
while True:
    data = [{"key %d" % i: [random.random() for _ in range(5)]} for i in range(200)]
    text = json.dumps(json.loads(json.dumps(data)))
    re.findall(r"(key [0-9]+)[^0-9]+([0-9.]+)", text)
    sorted(text.split(","), key=lambda part: part[::-1])
    zlib.decompress(zlib.compress(text.encode()))
    hashlib.sha256(text.encode()).hexdigest()
"""
NODE = """
const crypto = require("crypto"), zlib = require("zlib");
for (;;) {
  const data = Array.from({length: 500}, (_, i) => ({i, text: "text " + Math.random()}));
  const text = JSON.stringify(JSON.parse(JSON.stringify(data)));
  text.match(/text 0\\.[0-9]+/g).sort();
  zlib.gunzipSync(zlib.gzipSync(text));
  crypto.createHash("sha256").update(text).digest("hex");
}
"""
JAVA = """
import java.util.*;
public class Work {
  static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
  public static void main(String[] a) throws Exception {
    for (int t = 0; t < 2; t++) new Thread(() -> {
      for (;;) {
        Map<String, byte[]> map = new HashMap<>();
        for (int i = 0; i < 20000; i++) map.put("key" + i, new byte[i % 999]);
        fib(20);
        String.format("%s %d", map.keySet().iterator().next(), map.hashCode());
      }
    }).start();
  }
}
"""
SQL = """create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
  insert into t select i, hex(randomblob(8)), random() from n;
create index t_b on t(b);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
  select count(*), sum(length(x.b)) from n, t x where x.a % 1000 = n.i group by x.c > 0 order by 1;
"""


def _before_exec():
    """Ends with this script, however that ends (PR_SET_PDEATHSIG); a group of its own."""
    _libc.prctl(1, signal.SIGKILL)
    os.setsid()


class Program:
    """A child that works until it is ended. `prepare` makes its files in `folder`."""

    def __init__(self, command, folder, children=False):
        self.children = children
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=_before_exec)
        self.pid = self.process.pid

    def end(self):
        """The whole group: a shell's children, too."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def forever(command):
    return ["sh", "-c", f"while :; do {command}; done"]


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


class Subject:
    """What is compared: `start(folder)` gives a Program; `mode` names its known chains."""

    def __init__(self, name, binary, start, tool=None, mode=None, warm_seconds=0.3):
        self.name, self.binary, self.start = name, binary, start
        self.tool, self.mode, self.warm_seconds = tool, mode, warm_seconds

    def why_not(self):
        return f"{self.tool} is not there" if self.tool and not shutil.which(self.tool) else ""


def workload_subjects(bin_dir, full):
    builds = {"stacks_gcc": chains.MODES, "stacks_clang": chains.MODES,
              "stacks_realign": ["alloca", "recursion", "realign", "exception", "altstack", "qsort"],
              "stacks_static": chains.STATIC_MODES, "stacks_rust": ["rust"]}
    if not full:
        builds = {"stacks_gcc": chains.MODES, "stacks_clang": ["realign", "exception", "alloca"],
                  "stacks_static": ["altstack", "exception"], "stacks_rust": ["rust"]}
    for build, modes in builds.items():
        path = os.path.join(bin_dir, f"workload_{build}")
        for mode in modes:
            yield Subject(f"{build} {mode}", build,
                          lambda folder, p=path, m=mode: Program([p, m, "3000"], folder,
                                                                 children=m == "vfork"),
                          tool=path, mode=mode)


def start_git(folder):
    repository = os.path.join(folder, "repository")
    subprocess.run(["git", "init", "-q", repository], check=True)
    for i in range(300):
        write(repository, f"file{i}.txt", "\n".join(f"line {i * j % 977}" for j in range(400)))
    git = ["git", "-C", repository, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(git + ["add", "-A"], check=True)
    subprocess.run(git + ["commit", "-qm", "files"], check=True)
    return Program(forever("git repack -adfq; git log -p --stat >out; git grep -c 'line 9[0-9]*'"),
                   repository, children=True)


def tool_subjects(bin_dir):
    def python(folder):
        return Program([os.path.realpath(sys.executable), "-c", PYTHON], folder)

    def node(folder):
        return Program(["node", write(folder, "work.js", NODE)], folder)

    def java(folder):
        write(folder, "Work.java", JAVA)
        subprocess.run(["javac", "Work.java"], cwd=folder, check=True)
        return Program(["java", "-Xmx256m", "-cp", folder, "Work"], folder)

    def clang(folder):
        source = os.path.join(ROOT, "tests/workloads/stacks/libraries.cc")
        return Program(forever(f"clang++-19 -std=c++20 -O2 -g -I{ROOT} -c {source} -o out.o"),
                       folder, children=True)

    def gdb(folder):
        program = os.path.join(bin_dir, "workload_stacks_static")
        return Program(forever(f"gdb -nx -batch -ex 'info functions' -ex 'info types' {program}"),
                       folder, children=True)

    def sqlite(folder):
        return Program(forever(f"sqlite3 :memory: <{write(folder, 'work.sql', SQL)}"), folder,
                       children=True)

    def rocksdb(folder):
        return Program([os.path.join(bin_dir, "workload_rocksdb"), os.path.join(folder, "db"),
                        "3000"], folder)

    yield Subject("python3", "python3", python, warm_seconds=1)
    yield Subject("node", "node", node, tool="node", warm_seconds=2)
    yield Subject("java", "java", java, tool="javac", warm_seconds=3)
    yield Subject("git", "git", start_git, tool="git")
    yield Subject("clang", "clang", clang, tool="clang++-19")
    yield Subject("gdb", "gdb", gdb, tool="gdb")
    yield Subject("sqlite3", "sqlite3", sqlite, tool="sqlite3")
    yield Subject("rocksdb", "rocksdb", rocksdb, warm_seconds=1)


class Row:
    """Figures of one binary, summed over its programs."""

    def __init__(self, name):
        self.name = name
        self.stops = self.frames = self.agreed = self.against = self.roots = self.their_roots = 0
        self.jit = self.chains = self.wrong_chains = self.unjudged = 0
        self.pause_us = 0.0
        self.problems = []

    def add(self, report):
        self.stops += report["stops"]
        self.frames += report["frames_compared"]
        self.agreed += report["frames_agreed"]
        self.against += report["frames_against_us"]
        self.roots += report["our_roots"]
        self.their_roots += report["their_roots"]
        self.jit += report["jit_stops"]
        self.unjudged += sum(c["verdicts"].get("not judged", 0) for c in report["classes"])
        self.pause_us = max(self.pause_us, report["pause_median_ns"] / 1e3)

    def agree_percent(self):
        """Where gdb sides against us or was not asked: that counts."""
        return 100.0 * (self.frames - self.against) / max(self.frames, 1)

    def text(self):
        return (f"{self.name:16} {self.stops:6} {self.frames:9} "
                f"{100.0 * self.agreed / max(self.frames, 1):9.3f} {self.against:7} "
                f"{self.agree_percent():9.3f} {100.0 * self.roots / max(self.stops, 1):9.2f} "
                f"{100.0 * self.their_roots / max(self.stops, 1):9.2f} {self.jit:6} "
                f"{self.wrong_chains:4}/{self.chains:<6} {self.pause_us:7.0f}")


HEADER = (f"{'binary':16} {'stops':>6} {'frames':>9} {'agree %':>9} {'against':>7} {'judged %':>9} "
          f"{'ours to':>9} {'theirs':>9} {'to JIT':>6} {'bad/chains':>11} {'pause':>7}\n"
          f"{'':16} {'':6} {'':9} {'libunwind':>9} {'us(gdb)':>7} {'':9} "
          f"{'root %':>9} {'root %':>9} {'stops':>6} {'':11} {'us':>7}")


def survey(bin_dir, program, stops, judge, cache):
    command = [os.path.join(bin_dir, "firewatch"), "doctor", "--stacks", str(program.pid), "--stops",
               str(stops), "--json", "--functions", "--cache", cache]
    command += ["--judge"] if judge else []
    command += ["--children"] if program.children else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", timeout=1200, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"firewatch doctor: {done.returncode}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout)


def check_chains(subject, report, row):
    """Every stop of a workload with a known chain, not only those that the unwinders differ on."""
    reached = 0
    for folded, stops in report["folded"].items():
        names = folded.split(";")
        row.chains += stops
        why = chains.why_wrong(subject.mode, names)
        reached += stops if chains.reaches_leaf(subject.mode, names) else 0
        if why:
            row.wrong_chains += stops
            row.problems.append(f"{subject.name}: {why}")
    if reached * 2 < report["stops"]:
        row.problems.append(f"{subject.name}: only {reached} of {report['stops']} stops reached the "
                            "end of the chain")
    if report["our_roots"] < COMPLETE_PERCENT / 100 * report["stops"]:
        row.problems.append(f"{subject.name}: {report['our_roots']} of {report['stops']} stacks end "
                            f"at a root: {report['open_ends']}")


def run_subject(subject, bin_dir, stops, judge, cache, row, verbose):
    folder = tempfile.mkdtemp(prefix="firewatch-stacks-")
    program = None
    try:
        program = subject.start(folder)
        time.sleep(subject.warm_seconds)
        report = survey(bin_dir, program, stops, judge, cache)
    finally:
        if program:
            program.end()
        shutil.rmtree(folder, ignore_errors=True)
    row.add(report)
    if subject.mode:
        check_chains(subject, report, row)
    if report["stops"] < stops:
        row.problems.append(f"{subject.name}: {report['stops']} of {stops} stops: {report['failed']}")
    if verbose:
        print(f"--- {subject.name}: {report['stops']} stops, ends {report['ends']}, "
              f"failed {report['failed']}, no table {report['files_without_table']}")
    for entry in report["classes"]:
        if verbose or "against us" in entry["verdicts"]:
            print(f"  {subject.name}: {entry['stops']} stops, {entry['frames']} frames: "
                  f"{entry['difference']} ({entry['end']}), {entry['rule']} of {entry['binary']}\n"
                  f"    after {entry['after']}: ours {entry['ours']}, libunwind {entry['theirs']}; "
                  f"gdb {entry['verdicts']}", flush=True)


def judge_row(row):
    if row.agree_percent() < AGREE_PERCENT:
        row.problems.append(f"{row.name}: {row.agree_percent():.3f} % of the frames stand")
    return not row.problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin-dir", default=os.path.join(ROOT, "build/asan/bin"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="", help="names of binaries or subjects, by comma")
    parser.add_argument("--stops", type=int, default=0, help="per program")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.bin_dir = os.path.abspath(options.bin_dir)
    judge = bool(shutil.which("gdb"))
    if not judge:
        print("SKIP judge: gdb is not installed; every disagreement with libunwind counts")
    subjects = list(workload_subjects(options.bin_dir, options.full))
    subjects += list(tool_subjects(options.bin_dir))
    wanted = set(options.only.split(",")) if options.only else None
    rows = {}
    with tempfile.TemporaryDirectory(prefix="firewatch-stacks-cache-") as cache:
        for subject in subjects:
            if wanted and not {subject.name, subject.binary, subject.mode} & wanted:
                continue
            if subject.why_not():
                print(f"SKIP {subject.name.replace(' ', '_')}: {subject.why_not()}")
                continue
            row = rows.setdefault(subject.binary, Row(subject.binary))
            stops = options.stops or (25 if not options.full else 160 if subject.mode else 600)
            if subject.mode == "rust" and options.full:
                stops = 600
            try:
                run_subject(subject, options.bin_dir, stops, judge, cache, row, options.verbose)
            except (RuntimeError, subprocess.SubprocessError, json.JSONDecodeError) as error:
                row.problems.append(f"{subject.name}: {error}")
    print(HEADER)
    total = Row("all")
    failed = 0
    for row in rows.values():
        if not judge:
            row.against = row.frames - row.agreed
        print(row.text())
        for name in ("stops", "frames", "agreed", "against", "roots", "their_roots", "jit", "chains",
                     "wrong_chains"):
            setattr(total, name, getattr(total, name) + getattr(row, name))
        if not judge_row(row):
            failed += 1
            for problem in row.problems[:20]:
                print(f"  {problem}")
            print(f"FAIL {row.name}")
    print(total.text())
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
