# SPDX-License-Identifier: Apache-2.0
"""One line per test, as tests/run.py reads them: PASS name (seconds; figures), FAIL name, SKIP name: reason."""
import time
import traceback
import unittest


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


def tests_of(modules):
    """The single tests of modules, in order of name."""
    return [test for module in modules for suite in unittest.defaultTestLoader.loadTestsFromModule(module)
            for test in suite]
