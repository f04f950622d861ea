#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Names and lines of real binaries with Debian's debug information, beside llvm-symbolizer 19,
llvm-gsymutil 19 and eu-addr2line, in one run.

usage: tests/bench/symbols.py --bin-dir DIR [--full]

1. Agreement: chains (functions, files, lines) of 100,000 random addresses of .text with
   llvm-symbolizer's, by linkage names. Differences are explained by the policies of docs/symbols.md,
   each counted, or they are not explained. Addresses outside every section: who invents a name.
2. Speed: addresses per CPU second, warm (our index, as ids; one by one and many at
   once), and whole programs reading standard input.
3. Building the index: MB of DWARF per CPU second, private memory over its size, two threads, its
   size over the DWARF's; and what the peer's converter takes for its own kind of index.
4. Cold: 1,000 addresses, one address, one from a saved index, and the first name from a compressed
   debug file.
Binaries are downloaded by apt-get into build/bench-files once (150 MB; --full 600 MB). The default
takes ceph-mon, python and libc; --full adds ceph-osd.
"""
import argparse
import bisect
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from measure import median, print_table, wait_counting

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FILES = ROOT / "build" / "bench-files"
SEED = 20261122
ADDRESSES = 100_000
OUTSIDE = 10_000
EU_ADDRESSES = 200
LLVM = "llvm-symbolizer-19"
GSYMUTIL = "llvm-gsymutil-19"
PEER_ROUNDS = 5
CEPH = "16.2.15+ds-0+deb12u2"
# name, program inside the packages, packages; most important first
BINARIES = [
    ("ceph-mon", "usr/bin/ceph-mon", [f"ceph-mon={CEPH}", f"ceph-mon-dbg={CEPH}"]),
    ("python3.11", "usr/bin/python3.11", ["python3.11-minimal", "python3.11-dbg"]),
    ("libc", "lib/x86_64-linux-gnu/libc.so.6", ["libc6", "libc6-dbg"]),
    ("ceph-osd", "usr/bin/ceph-osd", [f"ceph-osd={CEPH}", f"ceph-osd-dbg={CEPH}"]),
]
FULL_ONLY = {"ceph-osd"}
POLICIES = ["1 gap", "2 plt", "3 alias", "4 file", "5 overlap"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "DEBUGINFOD_URLS"}


def run(command, **options):
    """(CPU seconds, wall seconds, peak RSS in MB, output) of a program that must succeed."""
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=ENVIRONMENT, **options)
        usage, most = wait_counting(process)
        wall = time.monotonic() - started
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, command)
        output.seek(0)
        return usage.ru_utime + usage.ru_stime, wall, most, output.read().decode(errors="replace")


def sections_of(path):
    """[(name, flags, address, size)]"""
    found = []
    for line in subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=True).stdout.splitlines():
        match = re.match(r"\s*\[\s*\d+\]\s+(\S+)\s+\S+\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\S+\s+(\S*)", line)
        if match:
            found.append((match.group(1), match.group(4), int(match.group(2), 16), int(match.group(3), 16)))
    return found


class Binary:
    """A program, its debug file as packaged (compressed), and both in one, decompressed: what the
    peers are fastest with."""

    def __init__(self, name, inside, packages):
        self.name = name
        self.folder = FILES / name
        self.program = str(self.folder / "root" / inside)
        self.joined = str(self.folder / "joined")
        self.packages = packages

    def fetch(self):
        """'' or why it cannot be had."""
        if pathlib.Path(self.joined).exists():
            self.find_debug()
            return ""
        for tool in ("apt-get", "dpkg-deb", "eu-unstrip", "objcopy"):
            if not shutil.which(tool):
                return f"{tool} is not installed"
        packages = self.folder / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["apt-get", "-q", "download", *self.packages], cwd=packages, capture_output=True, text=True)
        if done.returncode != 0:
            return "apt-get download: " + (done.stderr.strip().splitlines() or ["failed"])[-1]
        root = self.folder / "root"
        for package in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
            package.unlink()
        reason = self.find_debug()
        if reason:
            return reason
        # Big: only what is needed stays.
        for other in (root / "usr/lib/debug").rglob("*.debug"):
            if str(other) != self.debug:
                other.unlink()
        joined = self.joined + ".new"
        subprocess.run(["eu-unstrip", "-o", joined, self.program, self.debug], check=True)
        subprocess.run(["objcopy", "--decompress-debug-sections", joined, self.joined], check=True)
        os.unlink(joined)
        return ""

    def find_debug(self):
        notes = subprocess.run(["readelf", "-n", self.program], capture_output=True, text=True).stdout
        build_id = re.search(r"Build ID: ([0-9a-f]+)", notes)
        if not build_id:
            return f"{self.program} has no build id"
        build_id = build_id.group(1)
        self.debug_root = str(self.folder / "root/usr/lib/debug")
        self.debug = f"{self.debug_root}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
        return "" if os.path.exists(self.debug) else f"the packages do not fit together: no {build_id}.debug"

    def addresses(self):
        _, _, start, size = next(s for s in sections_of(self.joined) if s[0] == ".text")
        chosen = random.Random(SEED)
        return [start + chosen.randrange(size) for _ in range(ADDRESSES)]

    def dwarf_megabytes(self):
        return sum(size for name, _, _, size in sections_of(self.joined) if name.startswith(".debug_")) / 1e6

    def outside(self):
        """Addresses in no section: between and behind them, and in the kernel's range."""
        spans = sorted((a, a + s) for _, flags, a, s in sections_of(self.joined) if "A" in flags)
        chosen, found = random.Random(SEED + 1), []
        while len(found) < OUTSIDE:
            kind = chosen.randrange(3)
            address = (chosen.randrange(spans[-1][1] + 0x100000) if kind == 0 else
                       chosen.randrange(spans[-1][1], 1 << 47) if kind == 1 else
                       0xffffffff80000000 + chosen.randrange(1 << 30))
            if not any(a <= address < b for a, b in spans):
                found.append(address)
        return found


def symbols_of(path):
    """Sorted [(start, end, name)] of functions; {(start, name)}."""
    rows = []
    for line in subprocess.run(["readelf", "-sW", path], capture_output=True, text=True).stdout.splitlines():
        parts = line.split()
        if len(parts) >= 8 and parts[3] in ("FUNC", "IFUNC", "NOTYPE") and parts[6].isdigit():
            start = int(parts[1], 16)
            rows.append((start, start + int(parts[2], 0), re.sub(r"@.*", "", parts[7])))
    rows.sort()
    return rows


def chains_of(text):
    """Answers of the LLVM form: a list of frames (function, file, line) each."""
    answers = []
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if len(lines) < 2:
            continue
        answers.append([(lines[i], *lines[i + 1].rsplit(":", 2)[:2]) for i in range(0, len(lines) - 1, 2)])
    return answers


class Judge:
    """Compares answers and sorts differences by the policies of docs/symbols.md."""

    def __init__(self, symbols):
        self.symbols = symbols
        self.starts = [row[0] for row in symbols]
        self.by_start = {}
        for start, _, name in symbols:
            self.by_start.setdefault(start, set()).add(name)
        self.counts = dict.fromkeys(["same", *POLICIES, "unexplained"], 0)
        self.examples = []

    def covered(self, address):
        """A sized symbol covers the address (looks at those that start up to 64 symbols before)."""
        at = bisect.bisect_right(self.starts, address)
        return any(end > address for _, end, _ in self.symbols[max(0, at - 64):at])

    def policy(self, address, ours, theirs):
        mine, other = ours[-1], theirs[-1]
        if len(ours) == 1 and mine[0].endswith("@plt"):
            return "2 plt"
        if mine[0] == "??" and not self.covered(address) and len(theirs) == 1 and (
                other[0] == "??" or other[2] == "0"):
            return "1 gap"
        same_places = [f[1:] for f in ours] == [f[1:] for f in theirs]
        if same_places and ours[:-1] == theirs[:-1] and any(
                mine[0] in names and re.sub("@.*", "", other[0]) in names for names in self.aliases_at(address)):
            return "3 alias"
        if len(ours) == len(theirs) == 1 and mine[0] == other[0] and mine[1] == "??" and other[2] == "0":
            return "4 file"
        return None

    def aliases_at(self, address):
        at = bisect.bisect_right(self.starts, address)
        return [self.by_start[s] for s in {start for start, end, _ in self.symbols[max(0, at - 64):at] if end > address}]

    def add(self, address, ours, theirs, overlaps):
        if ours == theirs:
            self.counts["same"] += 1
            return
        policy = self.policy(address, ours, theirs) or ("5 overlap" if overlaps(address) else None)
        self.counts[policy or "unexplained"] += 1
        if policy is None and len(self.examples) < 8:
            self.examples.append((address, ours, theirs))


def overlapping_units(joined):
    """Whether two units' address ranges claim an address: then both answers are right. By
    llvm-dwarfdump's .debug_aranges, which GCC writes per unit."""
    text = subprocess.run(["llvm-dwarfdump-19", "--debug-aranges", joined], capture_output=True, text=True).stdout
    spans = sorted((int(a, 16), int(b, 16)) for a, b in re.findall(r"\[0x([0-9a-f]+), 0x([0-9a-f]+)\)", text))
    doubled, reach = [], 0
    for start, end in spans:
        if start < reach:
            doubled.append((start, min(end, reach)))
        reach = max(reach, end)
    starts = [s for s, _ in doubled]

    def overlaps(address):
        at = bisect.bisect_right(starts, address) - 1
        return at >= 0 and doubled[at][0] <= address < doubled[at][1]
    return overlaps


def values(text):
    return dict(line.split(" ", 1) if " " in line else (line, "") for line in text.splitlines())


class Bench:
    def __init__(self, bin_dir, folder, full):
        self.firewatch = [os.path.join(bin_dir, "firewatch"), "symbolize"]
        self.probe = os.path.join(bin_dir, "symbol_probe")
        self.folder, self.full = folder, full
        self.agreement, self.speed, self.building, self.peer, self.cold, self.together = [], [], [], [], [], []

    def path(self, name):
        return os.path.join(self.folder, name)

    def ask(self, command, addresses, name="addresses", behind=""):
        with open(self.path(name), "w", encoding="ascii") as file:
            file.writelines(f"{a:#x} {behind}".rstrip() + "\n" for a in addresses)
        with open(self.path(name), encoding="ascii") as file:
            return run(command, stdin=file)

    def sums(self):
        if not self.together:
            return []
        dwarf, cpu, index = (sum(column) for column in zip(*self.together))
        return [["together", f"{dwarf:.0f}", f"{dwarf / cpu:.0f}", f"{cpu:.2f}", f"{index:.2f}",
                f"{100 * index / dwarf:.2f} %", "", "", "", ""]]

    def build_command(self, binary, threads, *flags):
        return [self.probe, "build", *flags, "--elf", binary.joined, "--threads", str(threads),
                "--out", self.path(f"{binary.name}.{threads}.fwsym")]

    def build(self, binary, threads, *flags, cpus=None):
        on = ["taskset", "--cpu-list", ",".join(map(str, cpus))] if cpus else []
        return values(run([*on, *self.build_command(binary, threads, *flags)])[3])

    def one(self, binary):
        addresses = binary.addresses()
        cache = self.path(f"cache-{binary.name}")
        os.mkdir(cache)
        dwarf = binary.dwarf_megabytes()
        print(f"{binary.name}: {dwarf:.0f} MB of DWARF", flush=True)

        # Building, with --full the middle one of 15, of builds that take some milliseconds of 60, in
        # turns. Then what memory it takes: asking costs time. One thread on each of two CPUs, and
        # two threads on both: a virtual CPU is slower by half while a neighbour works on its core.
        rounds = (15 if dwarf > 100 else 60) if self.full else 1
        cpus = sorted(os.sched_getaffinity(0))[:2]
        places = [(1, cpus[:1]), (1, cpus[-1:]), (2, cpus)]
        made = [[] for _ in places]
        # The peer beside the same, with the start of both programs, in the first of the rounds.
        gsym = self.path("gsym")
        converter = [GSYMUTIL, "--quiet", "--num-threads=1", f"--convert={binary.joined}", f"--out-file={gsym}"]
        peers = []  # CPU seconds of ours and theirs, RSS of both
        for number in range(rounds):
            turn = list(zip(places, made))
            for (threads, on), results in turn if number % 2 == 0 else reversed(turn):
                results.append(self.build(binary, threads, cpus=on))
            if number < PEER_ROUNDS:
                ours, their = run(self.build_command(binary, 1)), run(converter)
                peers.append((ours[0], their[0], ours[2], their[2]))
        builds = {threads: {key: median([float(m[key]) for m in results])
                            for key in ("cpu_s", "index_bytes")}
                  for threads, results in ((1, made[0] + made[1]), (2, made[2]))}
        # Of neighbours; what one thread does on either CPU by their harmonic mean. One CPU tells nothing.
        faster = median([2 / (1 / first + 1 / second) / both for first, second, both in
                         zip(*([float(m["wall_s"]) for m in results] for results in made))]) if len(cpus) > 1 else None
        private = {threads: median([float(self.build(binary, threads, "--memory")["private_mb"]) * 1.048576
                                    for _ in range(3 if self.full else 1)]) for threads in builds}
        with open(self.path(f"{binary.name}.1.fwsym"), "rb") as a, open(self.path(f"{binary.name}.2.fwsym"), "rb") as b:
            identical = a.read() == b.read()
        index = builds[1]["index_bytes"] / 1e6
        self.together.append((dwarf, builds[1]["cpu_s"], index))
        self.building.append([
            binary.name, f"{dwarf:.0f}", f"{dwarf / builds[1]['cpu_s']:.0f}", f"{builds[1]['cpu_s']:.2f}",
            f"{index:.2f}", f"{100 * index / dwarf:.2f} %", f"{private[1]:.1f}",
            f"{private[1] / index:.2f} / {private[2] / index:.2f}", f"{faster:.2f}" if faster else "-",
            "yes" if identical else "NO"])

        gsym_bytes, cpu = os.path.getsize(gsym) / 1e6, median([ours for ours, _, _, _ in peers])
        self.peer.append([
            binary.name, f"{cpu:.2f}", f"{median([their for _, their, _, _ in peers]):.2f}",
            f"{median([their / ours for ours, their, _, _ in peers]):.1f}x",
            f"{median([dwarf / their for _, their, _, _ in peers]):.0f}",
            f"{peers[0][2]:.0f} / {peers[0][3]:.0f}", f"{gsym_bytes:.1f}", f"{100 * index / gsym_bytes:.0f} %"])

        # Agreement, and the programs as such.
        by_name = ["--no-demangle", "--exe"]
        run([*self.firewatch, "--cache", cache, "--build-index", "--exe", binary.joined, "0x0"])
        ours_cpu, _, ours_rss, ours = self.ask([*self.firewatch, "--cache", cache, *by_name, binary.joined], addresses)
        llvm_cpu, _, llvm_rss, theirs = self.ask([LLVM, "--no-debuginfod", *by_name, binary.joined], addresses)
        warm = values(run([self.probe, "lookup", "--index", self.path(f"{binary.name}.1.fwsym"), "--addresses",
                           self.path("addresses"), "--rounds", "9"])[3])
        gsym_lookup_cpu, _, _, answers = self.ask([GSYMUTIL, "--addresses-from-stdin"], addresses, "with path", gsym)
        if answers.count(" @ ") < len(addresses) / 2:
            raise RuntimeError(f"{GSYMUTIL} found only {answers.count(' @ ')} of {len(addresses)} addresses")
        os.unlink(gsym)
        eu_cpu, _, eu_rss, _ = self.ask(["eu-addr2line", "-i", "-f", "-e", binary.joined], addresses[:EU_ADDRESSES], "few")
        judge, overlaps = Judge(symbols_of(binary.joined)), overlapping_units(binary.joined)
        ours, theirs = chains_of(ours), chains_of(theirs)
        if len(ours) != len(addresses) or len(theirs) != len(addresses):
            raise RuntimeError(f"{len(ours)} and {len(theirs)} answers to {len(addresses)} addresses")
        for address, a, b in zip(addresses, ours, theirs):
            judge.add(address, a, b, overlaps)
        outside = binary.outside()
        ours_outside = chains_of(self.ask([*self.firewatch, "--cache", cache, *by_name, binary.joined], outside)[3])
        llvm_outside = chains_of(self.ask([LLVM, "--no-debuginfod", *by_name, binary.joined], outside)[3])
        invented = [sum(c[0][0] != "??" for c in answers) for answers in (ours_outside, llvm_outside)]
        explained = len(addresses) - judge.counts["unexplained"]
        self.agreement.append([binary.name, judge.counts["same"], *[judge.counts[p] for p in POLICIES],
                               judge.counts["unexplained"], f"{100 * explained / len(addresses):.3f} %", *invented])
        for address, a, b in judge.examples:
            print(f"  unexplained {address:#x}:\n    ours {a}\n    llvm {b}")
        per_second, per_second_many = float(warm["per_cpu_s"]), float(warm["per_cpu_s_many"])
        self.speed.append([
            binary.name, f"{per_second / 1e6:.2f} M", f"{per_second_many / 1e6:.2f} M", f"{int(warm['frames']) / max(1, int(warm['named'])):.2f}",
            f"{len(addresses) / ours_cpu / 1e3:.0f} k", f"{len(addresses) / llvm_cpu / 1e3:.0f} k",
            f"{len(addresses) / gsym_lookup_cpu / 1e3:.0f} k", f"{EU_ADDRESSES / eu_cpu:.0f}", f"{per_second * llvm_cpu / len(addresses):.0f}x",
            f"{ours_rss:.0f} / {llvm_rss:.0f} / {eu_rss:.0f}"])

        # Cold: nothing saved, no index; then a saved one.
        thousand, single = addresses[:1000], addresses[0]
        cold = [*self.firewatch, "--no-cache", "--exe", binary.joined]
        row = [binary.name]
        for command in (cold, [LLVM, "--no-debuginfod", "--exe", binary.joined]):
            row.append(f"{self.ask(command, thousand, 'few')[0]:.2f}")
        for command in (cold, [LLVM, "--no-debuginfod", "--exe", binary.joined]):
            row.append(f"{run([*command, hex(single)])[1]:.2f}")
        saved = ["--elf", binary.joined, "--cache", cache, "--address", hex(single)]
        times = [values(run([self.probe, "saved", *saved])[3]) for _ in range(5)]
        if times[0]["lines"] == "0":
            raise RuntimeError(f"{binary.name}: no line of {single:#x} from the saved index")
        command = [*self.firewatch, "--cache", cache, "--exe", binary.joined, hex(single)]
        row.append(f"{median([float(t['wall_ms']) for t in times]):.1f} / {median([run(command)[1] for _ in range(5)]) * 1e3:.0f}")
        first = [self.probe, "first", "--elf", binary.program, "--debug", binary.debug, "--address", hex(single)]
        times = [values(run(first)[3]) for _ in range(5)]
        row += [f"{os.path.getsize(binary.debug) / 1e6:.0f}", f"{median([float(t['wall_ms']) for t in times]):.0f} / {median([float(t['cpu_ms']) for t in times]):.0f}"]
        packed = [LLVM, "--no-debuginfod", "--debug-file-directory", binary.debug_root, "--exe", binary.program, hex(single)]
        row.append(f"{run(packed)[0] * 1e3:.0f}")
        self.cold.append(row)

    def print(self):
        print_table("agreement with llvm-symbolizer 19, chains of 100,000 random addresses of .text (policies: docs/symbols.md)",
                    ["binary", "same", *POLICIES, "unexplained", "agree", "invented: ours", "llvm"], self.agreement)
        print_table(f"speed: addresses per CPU second (eu-addr2line: {EU_ADDRESSES} addresses only; MB RSS ours / llvm / eu)",
                    ["binary", "warm one by one", "warm many", "frames", "our command", "llvm", "gsymutil", "eu-addr2line", "index/llvm", "RSS"], self.speed)
        print_table("building the index (private memory: RssAnon; rows wait in an unlinked file beside the index)",
                    ["binary", "DWARF MB", "MB/CPU s", "CPU s", "index MB", "of DWARF", "private MB", "private/index (1 / 2 threads)",
                     "2 threads", "identical"], [*self.building, *self.sums()])
        print_table("the same by llvm-gsymutil 19, one thread each (MB RSS ours / gsymutil: with the mapped ELF file)",
                    ["binary", "ours CPU s", "gsymutil", "faster", "MB/CPU s", "RSS", "its file MB", "ours of that"], self.peer)
        print_table("cold (CPU s, wall s, ms; saved: from opening the file, and the whole command)",
                    ["binary", "1000: ours CPU s", "llvm", "1: ours s", "llvm", "saved ms", "packed MB", "first name ms/CPU ms",
                     "llvm CPU ms"], self.cold)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", required=True)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="", help="names of binaries, separated by commas")
    arguments = parser.parse_args()
    for tool in (LLVM, GSYMUTIL, "eu-addr2line", "readelf", "llvm-dwarfdump-19"):
        if not shutil.which(tool):
            print(f"SKIP symbols: {tool} is not installed (packages llvm-19, elfutils, binutils)")
            return 0
    only = [name for name in arguments.only.split(",") if name]
    with tempfile.TemporaryDirectory(prefix="firewatch-bench-") as folder:
        bench = Bench(os.path.abspath(arguments.bin_dir), folder, arguments.full)
        for name, inside, packages in BINARIES:
            if name not in only and (only or (name in FULL_ONLY and not arguments.full)):
                continue
            binary = Binary(name, inside, packages)
            reason = binary.fetch()
            if reason:
                print(f"SKIP {name}: {reason}", flush=True)
                continue
            bench.one(binary)
        bench.print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
