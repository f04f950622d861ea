#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Firewatch on the kernels it supports: each boots in an emulator, with the agent, its BPF programs
and workloads with known answers, and reports.

usage: run.py [NAME...] [--bin-dir DIR] [--update] [--accept] [--jobs N] [--keep]
  NAME       5.10, 6.1, 6.12, sid (these by default), backports (trixie's: the newest that Debian has)
  --update   look for newer kernels; without it, what is there is used and nothing is downloaded
  --accept   write the counts of verified instructions to verified.json
  --keep     leave consoles and results in the store

Closes with "N passed, N failed, N skipped": one for each kernel.
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
import guest  # noqa: E402
import initramfs  # noqa: E402
import judge  # noqa: E402
import packages  # noqa: E402

PROGRAMS = ("firewatch", "firewatch-agent", "agent_cpu_bpf_test", "agent_enforce_bpf_test")
WORKLOADS = ("workload_depth_nofp", "workload_shares", "workload_syscalls", "workload_stacks_gcc",
             "workload_stacks_clang", "workload_stacks_static", "libstacks_plt.so", "workload_tcp")
DEFAULT = ("5.10", "6.1", "6.12", "sid")
TABLE = HERE / "verified.json"
GUEST_BYTES = 2 << 30


def store_folder():
    state = os.environ.get("FIREWATCH_STATE")
    return (pathlib.Path(state) if state else ROOT / "build") / "kernels"


def guests_at_a_time(jobs):
    """Guests at a time that the machine's memory has room for."""
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return max(1, min(jobs, free // (GUEST_BYTES + (512 << 20))))


class Matrix:
    def __init__(self, arguments):
        self.arguments = arguments
        self.store = store_folder()
        self.known = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        self.skipped, self.verdicts = {}, {}
        self._mirrors = None
        self._printing = threading.Lock()

    def note(self, text):
        with self._printing:
            print(f"kernels: {text}", flush=True)

    def mirrors(self):
        self._mirrors = self._mirrors or packages.Mirrors()
        return self._mirrors

    def fetch(self):
        """(tools, kernels); what cannot be had is in `skipped`."""
        started, kernels, tools = time.monotonic(), [], None
        update = self.arguments.update
        try:
            tools = packages.tools(self.store, self.mirrors, update, self.note)
            version = tools.version()
        except packages.Unavailable as reason:
            self.skipped = {name: str(reason) for name in self.arguments.names}
            return None, []
        for name in self.arguments.names:
            try:
                kernels.append(packages.kernel(name, self.store, self.mirrors, update, self.note))
            except packages.Unavailable as reason:
                self.skipped[name] = str(reason)
        self.note(f"qemu {version}, {len(kernels)} kernels, ready after "
                  f"{time.monotonic() - started:.0f} s")
        return tools, kernels

    def build_initrd(self, tools, kernels):
        bin_dir = pathlib.Path(self.arguments.bin_dir)
        output = self.store / "initrd.gz"
        files = {"etc/workloads": (HERE / "workloads.sh").read_bytes(),
                 "etc/network": (HERE / "network.sh").read_bytes()}
        for kernel in kernels:
            for module in kernel.modules:
                files[f"modules/{kernel.release}/{module.name}"] = module.read_bytes()
        # iproute2's: busybox has none that knows netem. Without it there is no loss, and that is said.
        tc = [program for program in [shutil.which("tc")] if program]
        initramfs.build(tools.busybox, HERE / "init.sh",
                        [*(str(bin_dir / name) for name in PROGRAMS), *tc],
                        [str(bin_dir / name) for name in WORKLOADS], files, output)
        self.note(f"initramfs of {output.stat().st_size / 1e6:.1f} MB")
        return output

    def run_one(self, tools, initrd, kernel):
        outcome = guest.run(tools, kernel.image, initrd, self.store, kernel.name)
        version = tuple(int(part) for part in kernel.release.split(".")[:2])
        verdict, counts = judge.judge(outcome, self.known.get(kernel.identity), version)
        verdict.figures["boots"], verdict.figures["seconds"] = outcome.boots, f"{outcome.seconds:.0f}"
        self.verdicts[kernel.name] = (kernel, verdict, counts)
        if self.arguments.keep:
            folder = self.store / "results" / kernel.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name, data in outcome.files.items():
                (folder / name).write_bytes(data)
            (folder / "console.txt").write_text(outcome.console)
        self.note(f"{kernel.name}: {kernel.identity} {'failed' if verdict.failed else 'ok'} "
                  f"after {outcome.seconds:.0f} s")

    def print_table(self):
        columns = [(name, *self.verdicts[name]) for name in self.arguments.names if name in self.verdicts]
        if not columns:
            return
        rows = list(dict.fromkeys(key for _, _, verdict, _ in columns for key in verdict.figures))
        lines = [["", *(name for name, *_ in columns)],
                 ["version", *(kernel.version for _, kernel, _, _ in columns)],
                 ["suite", *(kernel.suite for _, kernel, _, _ in columns)],
                 *([row, *(str(verdict.figures.get(row, "-")) for _, _, verdict, _ in columns)]
                   for row in rows),
                 ["checks", *(f"{len(v.passed)} ok, {len(v.failed)} failed" for _, _, v, _ in columns)]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        print()
        for line in lines:
            print("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip())
        print(flush=True)

    def accept(self):
        for kernel, _, counts in self.verdicts.values():
            if counts and all(counts.values()):
                self.known[kernel.identity] = dict(sorted(counts.items()))
        TABLE.write_text(json.dumps(dict(sorted(self.known.items())), indent=2) + "\n")

    def close(self):
        failed = 0
        for name in self.arguments.names:
            if name in self.skipped:
                print(f"SKIP {name}: {self.skipped[name]}")
                continue
            _, verdict, _ = self.verdicts[name]
            failed += bool(verdict.failed)
            print(f"{'FAIL' if verdict.failed else 'ok'} {name}")
            for check, detail in verdict.failed.items():
                print(f"  {check}: " + str(detail).strip().replace("\n", "\n    "))
        print(f"{len(self.verdicts) - failed} passed, {failed} failed"
              + (f", {len(self.skipped)} skipped" if self.skipped else ""))
        return 1 if failed else 0

    def run(self):
        self.store.mkdir(parents=True, exist_ok=True)
        tools, kernels = self.fetch()
        if kernels:
            initrd = self.build_initrd(tools, kernels)
            with ThreadPoolExecutor(max_workers=guests_at_a_time(self.arguments.jobs)) as pool:
                list(pool.map(lambda kernel: self.run_one(tools, initrd, kernel), kernels))
        self.print_table()
        if self.arguments.accept:
            self.accept()
        return self.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, usage=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--bin-dir", default=str(ROOT / "build/asan/bin"))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    for flag in ("--update", "--accept", "--keep"):
        parser.add_argument(flag, action="store_true")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in packages.KERNELS:
            parser.error(f"no kernel {name!r}; there are {', '.join(packages.KERNELS)}")
    arguments.names = list(dict.fromkeys(arguments.names)) or list(DEFAULT)
    return Matrix(arguments).run()


if __name__ == "__main__":
    sys.exit(main())
