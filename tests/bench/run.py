#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""./dev bench NAME: one benchmark, its figure beside its peer's from the same run.

A NAME is a script of this folder (agent.py, roundtrip.py) or a program that the bench preset built
(NAME_bench, Google Benchmark or with a table of its own). Prints the machine and the commit first, so that the
output can go into docs/benchmarks.md as it is. Ends within 420 s unless --full is given.
"""
import datetime
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = ROOT / "build" / "bench" / "bin"
LIMIT_SECONDS = 420


def machine():
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip() or "no commit"
    return (f"{datetime.date.today()}  {os.cpu_count()} CPUs, {model}, Linux {platform.release()}, "
            f"commit {commit}")


def choices():
    scripts = {p.stem for p in HERE.glob("*.py")} - {"run", "measure"}
    return scripts | {p.name.removesuffix("_bench") for p in BIN.glob("*_bench")}


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in choices():
        sys.exit(f"usage: ./dev bench NAME [--full]; NAME is one of: {', '.join(sorted(choices()))}")
    name, arguments = sys.argv[1], sys.argv[2:]
    print(machine(), flush=True)
    script = HERE / f"{name}.py"
    if script.exists():
        command = [sys.executable, str(script), "--bin-dir", str(BIN), *arguments]
    else:
        command = [str(BIN / f"{name}_bench"), *[a for a in arguments if a != "--full"]]
    limit = None if "--full" in arguments else LIMIT_SECONDS
    try:
        return subprocess.run(command, cwd=ROOT, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        print(f"stopped after {LIMIT_SECONDS} s; give --full for the long form", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
