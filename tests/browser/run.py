#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser, on a real server with data of our own workloads.

usage: tests/browser/run.py --bin-dir DIR [--screenshot FILE] [--seconds N]

Starts a server, some workloads with known shapes and an agent that watches only those, waits until
windows have arrived, then runs the Playwright tests of this folder against it. Where sampling is
not allowed, the tests run against the page's own mock server instead, and that is said.
Closes with "N passed, N failed, N skipped".
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

# Workloads by the name that they get on the page.
WORKLOADS = {
    "checkout": ("shares", []),
    "search": ("depth", ["--depth", "60"]),
    "ledger": ("syscalls", []),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", required=True)
    parser.add_argument("--screenshot", default="")
    parser.add_argument("--seconds", type=int, default=8, help="of data before the browser opens")
    return parser.parse_args()


def start_workloads(harness, folder, seconds):
    """Copies under new names, so that the page shows services as a fleet has them."""
    programs = []
    for name, (workload, arguments) in WORKLOADS.items():
        path = os.path.join(folder, name)
        shutil.copy(harness.binary(f"workload_{workload}"), path)
        programs.append(harness.Program(folder, name, [path, "--seconds", str(seconds), *arguments]))
    return programs


def run_playwright(url, screenshot):
    if not (HERE / "node_modules").is_dir():
        installed = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE,
                                   capture_output=True, text=True)
        if installed.returncode != 0:
            return installed.returncode, installed.stdout + installed.stderr
    environment = dict(os.environ, CI="1", PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD="1")
    if url:
        environment["FIREWATCH_URL"] = url
    if screenshot:
        environment["FIREWATCH_SCREENSHOT"] = screenshot
    done = subprocess.run(["npm", "run", "--silent", "test"], cwd=HERE, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=1000)
    return done.returncode, done.stdout


def report(code, output):
    clean = re.sub(r"\x1b\[[0-9;]*m", "", output)
    print(clean, flush=True)

    def count(word):
        found = re.findall(rf"^\s*(\d+) {word}", clean, re.M)
        return int(found[-1]) if found else 0
    passed, failed, skipped = count("passed"), count("failed"), count("skipped")
    if code != 0 and failed == 0:
        failed = 1
    if failed:
        print("FAIL playwright")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


def main():
    arguments = parse_arguments()
    os.environ["FIREWATCH_BIN_DIR"] = str(pathlib.Path(arguments.bin_dir).resolve())
    import harness  # reads FIREWATCH_BIN_DIR
    screenshot = str(pathlib.Path(arguments.screenshot).resolve()) if arguments.screenshot else ""
    for tool in ("npm", "chromium"):
        if not shutil.which(tool):
            print(f"SKIP playwright: {tool} is not installed\n0 passed, 0 failed, 1 skipped")
            return 0
    reason = harness.why_no_sampling()
    if reason:
        print(f"SKIP real-data: no privilege to sample ({reason}); the page runs on its mock server")
        return report(*run_playwright("", screenshot))
    folder = tempfile.mkdtemp(prefix="firewatch-browser-")
    programs = []
    try:
        server = harness.Server(folder, os.path.join(folder, "data"))
        programs.append(server)
        server.wait_healthy()
        workloads = start_workloads(harness, folder, arguments.seconds + 400)
        programs += workloads
        watched = [text for one in workloads for text in ("--pid", str(one.pid))]
        agent = harness.Agent(folder, server.grpc_port, window="2s", arguments=watched)
        programs.append(agent)
        harness.wait_until(lambda: server.status()["store"]["windows"] >= 2, 60, "no window arrived")
        time.sleep(arguments.seconds)
        code, output = run_playwright(f"http://127.0.0.1:{server.port}/", screenshot)
        for program in (agent, server):
            if program.sanitizer_report():
                code, output = 1, output + program.sanitizer_report()
        return report(code, output)
    finally:
        for program in reversed(programs):
            program.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
