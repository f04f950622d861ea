#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Names and lines: a test for each of the pitfalls that other symbolizers fell into (README.md).

usage: tests/symbols/run.py --bin-dir DIR [--only TEXT[,TEXT...]] [--list]

One line per test, "PASS name (seconds)", "FAIL name" or "SKIP name: reason", then the table of
pitfalls (pitfalls.json) is checked: every pitfall has a test, every test that it names exists, and
those of this folder have run. Closing line "N passed, N failed, N skipped".
"""
import argparse
import glob
import importlib
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PITFALLS = 27
sys.path.insert(0, os.path.dirname(HERE))
import line_result  # noqa: E402


def unit_tests(bin_dir):
    """{"agent_cpu_test": {"WindowTest.IsEmptyAfterClose", ...}}: asks only the binaries of the table."""
    known = {}

    def tests_of(binary):
        if binary not in known:
            path = os.path.join(bin_dir, binary)
            known[binary] = None
            if os.path.exists(path):
                text = subprocess.run([path, "--gtest_list_tests"], capture_output=True, text=True, timeout=60).stdout
                known[binary], suite = set(), ""
                for line in text.splitlines():
                    name = line.split("#")[0].rstrip()
                    if name.endswith(".") and not line.startswith(" "):
                        suite = name
                    elif line.startswith("  "):
                        known[binary].add(suite + name.strip())
        return known[binary]
    return tests_of


def in_sources(name):
    """Suite.Case, or Instance/Suite.Case/parameter, as some *_test.cc writes it."""
    suite, _, case = name.partition(".")
    suite, case = suite.split("/")[-1], case.split("/")[0]
    pattern = re.compile(r"TEST(_F|_P)?\(" + suite + r",\s*" + case + r"\)")
    root = os.path.dirname(os.path.dirname(HERE))
    for room in ("base", "symbolizer", "agent", "server", "cli"):
        for path in glob.glob(os.path.join(root, room, "**", "*_test.cc"), recursive=True):
            with open(path, encoding="utf-8") as file:
                if pattern.search(file.read()):
                    return True
    return False


def check_table(bin_dir, names):
    """Faults of pitfalls.json, as text. `names`: the tests of this folder."""
    with open(os.path.join(HERE, "pitfalls.json"), encoding="utf-8") as file:
        table = json.load(file)
    faults, tests_of = [], unit_tests(bin_dir)
    if sorted(table, key=int) != [str(n) for n in range(1, PITFALLS + 1)]:
        faults.append(f"the table does not list 1 to {PITFALLS}")
    for number, row in table.items():
        if not row["tests"]:
            faults.append(f"pitfall {number} ({row['pitfall']}) has no test")
        for test in row["tests"]:
            where, _, name = test.partition(":")
            if where == "symbols":
                if name not in names:
                    faults.append(f"pitfall {number}: there is no test {test}")
            elif where == "e2e":
                module, _, case = name.partition(".")
                path = os.path.join(os.path.dirname(HERE), "e2e", f"test_{module}.py")
                if not os.path.exists(path) or f"def test_{case}(" not in open(path, encoding="utf-8").read():
                    faults.append(f"pitfall {number}: there is no test {test}")
            elif tests_of(where) is None:  # not built: its source must be there
                if not in_sources(name):
                    faults.append(f"pitfall {number}: there is no test {test}")
            elif name not in tests_of(where):
                faults.append(f"pitfall {number}: there is no test {test}")
    for name in names:
        number = re.match(r"pitfall_(\d+)_", name.split(".")[-1])
        row = table.get(str(int(number.group(1))), {"tests": []}) if number else None
        if row and f"symbols:{name}" not in row["tests"]:
            faults.append(f"{name} is not in the table")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    os.environ["FIREWATCH_BIN_DIR"] = os.path.abspath(arguments.bin_dir)
    sys.path.insert(0, HERE)
    modules = [importlib.import_module(os.path.basename(path)[:-3])
               for path in sorted(glob.glob(os.path.join(HERE, "test_*.py")))]
    tests = line_result.tests_of(modules)
    names = {line_result.name_of(test) for test in tests}
    wanted = [text for text in arguments.only.split(",") if text]
    chosen = [t for t in tests if not wanted or any(text in line_result.name_of(t) for text in wanted)]
    if arguments.list:
        print("\n".join(line_result.name_of(test) for test in chosen))
        return 0
    result, started = line_result.LineResult(), time.monotonic()
    for test in chosen:
        test.run(result)
    faults = check_table(arguments.bin_dir, names)
    for fault in faults:
        print(f"    {fault}")
    print(f"{'FAIL' if faults else 'PASS'} pitfalls.table", flush=True)
    passed, failed = result.passed + (not faults), len(result.problems) + bool(faults)
    print(f"{time.monotonic() - started:.0f} s in all")
    print(f"{passed} passed, {failed} failed, {len(result.skips)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
