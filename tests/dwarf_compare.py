#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the chains that dwarf_scan and llvm-symbolizer give for random addresses.

    dwarf_compare.py --scan build/bench/bin/dwarf_scan --program ceph-mon --debug ceph-mon.debug

--debug is the file with the DWARF (sections not compressed), --program the file with .text; both may
be the same. Addresses are drawn from .text with a fixed seed. Of a chain, every name, file and line is
compared but the outermost name, which llvm takes from the symbol table. Exit code 1 when fewer
chains agree than --target says.
"""
import argparse
import collections
import os
import random
import subprocess
import sys


def text_of(path):
    out = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True).stdout
    for line in out.splitlines():
        fields = line.replace("[ ", "[").split()
        if len(fields) > 5 and fields[1] == ".text":
            return int(fields[3], 16), int(fields[5], 16)
    sys.exit(f"{path}: no .text")


def answers(command, addresses):
    """One chain per address: [(name, file, line), …], innermost first."""
    environment = {k: v for k, v in os.environ.items() if k != "DEBUGINFOD_URLS"}
    text = subprocess.run(command, input="\n".join(map(hex, addresses)) + "\n", text=True,
                          capture_output=True, check=True, env=environment).stdout
    chains, frames, name = [], [], None
    for line in text.splitlines():
        if not line:
            chains.append(frames)
            frames, name = [], None
        elif name is None:
            name = line
        else:
            parts = line.rsplit(":", 2)
            if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
                frames.append((name, parts[0], parts[1]))
            else:
                frames.append((name, *line.rsplit(":", 1)))
            name = None
    return chains


def judge(ours, theirs):
    """'' when the chains agree, else what differs first."""
    if len(ours) != len(theirs):
        if ours[0][0] == "??" and ours[0][1] == "??":
            return "unknown to us"
        return "unknown to llvm" if theirs[0][1] == "??" else "length of the chain"
    for i, (mine, other) in enumerate(zip(ours, theirs)):
        if mine[0] != other[0] and i + 1 < len(ours):
            return "name"
        if mine[1] != other[1]:
            return "unknown file" if "??" in (mine[1], other[1]) else "file"
        if mine[2] != other[2]:
            return "leaf line" if i == 0 else "call line"
    return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scan", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--debug", required=True)
    parser.add_argument("--llvm", default="llvm-symbolizer-19")
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--target", type=float, default=99.99)
    parser.add_argument("--show", type=int, default=3, help="examples of each kind of difference")
    parser.add_argument("more", nargs="*", help="further arguments of dwarf_scan, after --")
    options = parser.parse_args()

    start, size = text_of(options.program)
    generator = random.Random(options.seed)
    addresses = [start + generator.randrange(size) for _ in range(options.count)]
    ours = answers([options.scan, "--exe", options.program, "--answer", *options.more,
                    options.debug], addresses)
    theirs = answers([options.llvm, "--inlines", "--no-demangle", f"--obj={options.debug}"],
                     addresses)
    if not len(ours) == len(theirs) == len(addresses):
        sys.exit(f"{len(addresses)} addresses, {len(ours)} and {len(theirs)} answers")
    kinds = collections.defaultdict(list)
    for address, mine, other in zip(addresses, ours, theirs):
        kinds[judge(mine, other)].append((address, mine, other))
    same = len(kinds.pop("", []))
    for kind, cases in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"{len(cases):6} {kind}")
        for address, mine, other in cases[:options.show]:
            print(f"       {address:#x}")
            for title, frames in (("ours", mine), ("llvm", other)):
                for frame in frames:
                    print(f"         {title} {frame[0][:100]} {frame[1]}:{frame[2]}")
    share = 100 * same / len(addresses)
    print(f"{same} of {len(addresses)} chains agree: {share:.4f} %")
    return 0 if share >= options.target else 1


if __name__ == "__main__":
    sys.exit(main())
