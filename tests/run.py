#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test of the project and closes with one line: N passed, N failed, N skipped.

usage: tests/run.py [STAGE,STAGE...]      stages: arrows unit symbols kernels fuzz web e2e browser
(default: all)

Everything runs the binaries of the asan preset. A test that this machine cannot run is skipped with
its reason in the list at the end; a skip is never a pass.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "asan"
BIN = BUILD / "bin"
FUZZ_SECONDS = int(os.environ.get("FIREWATCH_FUZZ_SECONDS", "30"))
# Leaks are real, but LeakSanitizer needs ptrace, which a container may refuse.
ENVIRONMENT = dict(os.environ, UBSAN_OPTIONS="print_stacktrace=1",
                   ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0"))


class Results:
    """What happened, by name. `skipped` maps a name to its reason."""

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], {}

    def ok(self, count=1):
        self.passed += count

    def fail(self, name, output=""):
        self.failed.append(name)
        print(f"FAILED {name}")
        if output:
            print("    " + "\n    ".join(output.strip().splitlines()[-60:]), flush=True)

    def skip(self, name, reason):
        self.skipped[name] = reason


def run(command, timeout, **kwargs):
    """(exit code, combined output). A timeout is exit code 124."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=timeout, cwd=kwargs.pop("cwd", ROOT),
                              env=kwargs.pop("env", ENVIRONMENT), **kwargs)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        return 124, (output.decode(errors="replace") if isinstance(output, bytes) else output) + \
            f"\ntimed out after {timeout} s"


def stage_arrows(results):
    code, output = run([sys.executable, "tests/arrows.py"], 60)
    results.ok() if code == 0 else results.fail("arrows", output)


def unit_binary(binary, results):
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        code, output = run([str(binary), f"--gtest_output=json:{report.name}"], 1200)
        text = pathlib.Path(report.name).read_text()
    if not text:
        results.fail(binary.name, output)
        return
    bad = 0
    for suite in json.loads(text)["testsuites"]:
        for case in suite["testsuite"]:
            name = f"{binary.name}: {suite['name']}.{case['name']}"
            if case.get("failures"):
                bad += 1
                results.fail(name, "\n".join(f["failure"] for f in case["failures"]))
            elif case.get("result") == "SKIPPED":
                why = re.search(re.escape(f"{suite['name']}.{case['name']}") + r"\n(.*?)\[  SKIPPED", output, re.S)
                reason = why.group(1).strip().splitlines()[-1] if why and why.group(1).strip() else "no reason given"
                results.skip(name, reason)
            elif case.get("status") == "RUN":
                results.ok()
    if code != 0 and not bad:
        results.fail(f"{binary.name}: exit code {code}", output)  # a sanitizer report at exit


def stage_unit(results):
    for binary in sorted(BIN.glob("*_test")):
        started = time.time()
        unit_binary(binary, results)
        print(f"unit {binary.name} {time.time() - started:.1f} s", flush=True)


def stage_kernels(results):
    harness_stage("kernels", [sys.executable, "tests/kernels/run.py", "--bin-dir", str(BIN)], results, 2400)


def fuzz_target(line):
    name, corpus = line.split(" ", 1)
    with tempfile.TemporaryDirectory() as scratch:
        # New inputs go to the scratch folder, the committed corpus is read only.
        command = [str(BIN / name), scratch] + ([corpus] if pathlib.Path(corpus).is_dir() else []) + [
            f"-max_total_time={FUZZ_SECONDS}", "-rss_limit_mb=4096", "-timeout=25", "-print_final_stats=1",
            f"-artifact_prefix={BUILD}/fuzz-{name}-"]
        code, output = run(command, FUZZ_SECONDS + 120)
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", output)
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    coverage = f"edges {covered[-1][0]}, features {covered[-1][1]}, corpus {covered[-1][2]}" if covered else "no coverage"
    return name, code, output, f"{runs.group(1) if runs else '?'} runs, {coverage}"


def stage_fuzz(results):
    targets = (BUILD / "fuzz_targets.txt").read_text().split("\n")
    # One per core: two on the machine this is made for.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for name, code, output, summary in pool.map(fuzz_target, [t for t in targets if t]):
            print(f"fuzz {name}: {FUZZ_SECONDS} s, {summary}", flush=True)
            results.ok() if code == 0 else results.fail(name, output)


def npm_stage(name, folder, script, results, timeout, env=None):
    if not shutil.which("npm"):
        results.skip(name, "npm is not installed")
        return
    if not (folder / "node_modules").is_dir():
        code, output = run(["npm", "ci", "--no-audit", "--no-fund"], 600, cwd=folder)
        if code != 0:
            results.fail(f"{name}: npm ci", output)
            return
    code, output = run(["npm", "run", "--silent", script], timeout, cwd=folder,
                       env=dict(ENVIRONMENT, CI="1", **(env or {})))
    clean = re.sub(r"\x1b\[[0-9;]*m", "", output)
    # vitest: "Tests  42 passed (42)"; playwright: "  12 passed (34s)", "  1 failed", "  1 skipped".
    passed = re.findall(r"^\s*(?:Tests\s+)?(?:\d+ failed \| )?(\d+) passed", clean, re.M)
    if code != 0 or not passed:
        results.fail(name, clean)
    results.ok(int(passed[-1]) if passed else 0)


def stage_web(results):
    npm_stage("web", ROOT / "web", "test", results, 300)


def harness_stage(name, command, results, timeout):
    """A script of our own that closes with 'N passed, N failed, N skipped' and 'SKIP name: why'."""
    code, output = run(command, timeout)
    print(output, flush=True)
    # The last such line: a script shows what the scripts that it runs say, theirs among it.
    closing = None
    for closing in re.finditer(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", output, re.M):
        pass
    if not closing or code == 124:
        results.fail(name, "no closing line" if code == 0 else output[-4000:])
        return
    results.ok(int(closing.group(1)))
    for failed in re.findall(r"^FAIL (\S+)", output, re.M):
        results.fail(f"{name}: {failed}")
    for skipped, why in re.findall(r"^SKIP ([^:\s]+):? (.*)$", output, re.M):
        results.skip(f"{name}: {skipped}", why)
    if code != 0 and closing.group(2) == "0":
        results.fail(f"{name}: exit code {code}")


def stage_e2e(results):
    harness_stage("e2e", [sys.executable, "tests/e2e/run.py", "--bin-dir", str(BIN)], results, 3000)


def stage_browser(results):
    harness_stage("browser", [sys.executable, "tests/browser/run.py", "--bin-dir", str(BIN)], results, 1200)


def stage_symbols(results):
    harness_stage("symbols", [sys.executable, "tests/symbols/run.py", "--bin-dir", str(BIN)], results, 900)


STAGES = {"arrows": stage_arrows, "unit": stage_unit, "symbols": stage_symbols, "kernels": stage_kernels,
          "web": stage_web, "e2e": stage_e2e, "browser": stage_browser, "fuzz": stage_fuzz}


def main():
    wanted = sys.argv[1].split(",") if len(sys.argv) > 1 else list(STAGES)
    for name in wanted:
        if name not in STAGES:
            sys.exit(f"tests/run.py: no stage {name!r}; there are {', '.join(STAGES)}")
    results = Results()
    started = time.time()
    print("building (asan preset) ...", flush=True)
    code, output = run(["./dev", "build", "asan"], 3600)
    print(output.strip().splitlines()[-1] if output.strip() else "", flush=True)
    if code != 0:
        results.fail("build", output)
    else:
        for name in wanted:
            stage_started = time.time()
            try:
                STAGES[name](results)
            except Exception as error:  # a broken stage is a failed test, not a lost closing line
                results.fail(name, repr(error))
            print(f"stage {name}: {time.time() - stage_started:.0f} s", flush=True)
    for name, reason in results.skipped.items():
        print(f"skipped {name}: {reason}")
    for name in results.failed:
        print(f"failed {name}")
    print(f"{time.time() - started:.0f} s in all")
    print(f"{results.passed} passed, {len(results.failed)} failed"
          + (f", {len(results.skipped)} skipped" if results.skipped else ""))
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
