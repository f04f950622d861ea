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
import sys
import time
import traceback
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


class LineResult(unittest.TestResult):
    """Prints each outcome when the test, its clean-up included, is over."""

    def __init__(self):
        super().__init__()
        self.passed = 0
        self.problems = {}  # name -> text
        self.skips = {}

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        self.current = name_of(test)

    def addError(self, test, err):
        self._problem(test, err)

    def addFailure(self, test, err):
        self._problem(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._problem(subtest, err)

    def addSkip(self, test, reason):
        self.skips[self.current] = reason

    def _problem(self, test, err):
        text = "".join(traceback.format_exception(*err))
        self.problems[self.current] = self.problems.get(self.current, "") + f"{test}\n{text}"

    def stopTest(self, test):
        super().stopTest(test)
        seconds = time.monotonic() - self.started
        name = self.current
        notes = "".join(f"; {note}" for note in getattr(test, "notes", []))
        if name in self.problems:
            print("    " + self.problems[name].replace("\n", "\n    "))
            print(f"FAIL {name} ({seconds:.1f} s{notes})", flush=True)
        elif name in self.skips:
            reason = " ".join(self.skips[name].split())
            print(f"SKIP {name}: {reason}", flush=True)
        else:
            self.passed += 1
            print(f"PASS {name} ({seconds:.1f} s{notes})", flush=True)


def name_of(test):
    """test_record.RecordTest.test_ctrl_c -> record.ctrl_c"""
    parts = test.id().split(".")
    return f"{parts[0].removeprefix('test_')}.{parts[-1].removeprefix('test_')}"


def load(only):
    wanted = [text for text in only.split(",") if text]
    suites = []
    for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
        module = importlib.import_module(os.path.basename(path)[:-3])
        for suite in unittest.defaultTestLoader.loadTestsFromModule(module):
            suites += [test for test in suite]
    return [t for t in suites if not wanted or any(text in name_of(t) for text in wanted)]


def main():
    arguments = parse_arguments()
    os.environ["FIREWATCH_BIN_DIR"] = os.path.abspath(arguments.bin_dir)
    if arguments.full:
        os.environ["FIREWATCH_TEST_SCALE"] = "full"
    sys.path.insert(0, HERE)
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
