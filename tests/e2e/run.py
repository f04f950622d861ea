#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the end-to-end tests one after another.

usage: tests/e2e/run.py --bin-dir DIR [--only TEXT[,TEXT...]] [--full] [--list]

One line per test, "PASS name (seconds; figures)", "FAIL name" or "SKIP name: reason", and a closing
line "N passed, N failed, N skipped". --only takes parts of names ("shares", "record.ctrl_c").
--full runs the long form (30 s of shares, 100 kills, a storm of 60 s); the short form is for CI.
"""
import argparse
import glob
import importlib
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from line_result import LineResult, name_of, tests_of  # noqa: E402


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


def load(only):
    wanted = [text for text in only.split(",") if text]
    tests = tests_of(importlib.import_module(os.path.basename(path)[:-3])
                     for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))))
    return [t for t in tests if not wanted or any(text in name_of(t) for text in wanted)]


def main():
    arguments = parse_arguments()
    os.environ["FIREWATCH_BIN_DIR"] = os.path.abspath(arguments.bin_dir)
    if arguments.full:
        os.environ["FIREWATCH_TEST_SCALE"] = "full"
    sys.path.insert(0, HERE)
    # A shell starts what it runs in the background with SIGINT ignored, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tests = load(arguments.only)
    if arguments.list:
        print("\n".join(name_of(test) for test in tests))
        return 0
    if not tests:
        print(f"no test matches {arguments.only!r}")
        return 2
    result = LineResult()
    started = time.monotonic()
    for test in tests:
        test.run(result)
    print(f"{time.monotonic() - started:.0f} s in all")
    print(f"{result.passed} passed, {len(result.problems)} failed, {len(result.skips)} skipped")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
