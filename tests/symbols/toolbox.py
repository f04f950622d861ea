# SPDX-License-Identifier: Apache-2.0
"""What the tests of names and lines share: a folder with compilers, our command, and the judges
(llvm-symbolizer, nm and readelf, objdump)."""
import collections
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
import unittest

Frame = collections.namedtuple("Frame", "function file line")
UNKNOWN = [Frame("", "", 0)]
# The sanitized command is slow and big; limits on time are for what a user runs.
SLOWER = 10 if os.environ.get("FIREWATCH_BIN_DIR", "").rstrip("/").endswith("asan/bin") else 1


def tool(*names):
    """The first of these programs that is here, else the test is skipped."""
    for name in names:
        if shutil.which(name):
            return name
    raise unittest.SkipTest(f"{' or '.join(names)} is not installed")


def run(command, folder=None, check=True, text=None, timeout=120, **options):
    done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, errors="replace",
                          timeout=timeout, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def our_command():
    """`firewatch symbolize`; FIREWATCH_SYMBOLIZE replaces it, to try the tests on a peer."""
    other = os.environ.get("FIREWATCH_SYMBOLIZE")
    return other.split() if other else [os.path.join(os.environ["FIREWATCH_BIN_DIR"], "firewatch"), "symbolize"]


def chains(command, exe, addresses, *flags):
    """A list of frames per address, innermost first. All through standard input, in JSON."""
    lines = "".join(f"{address:#x}\n" for address in addresses)
    done = run([*command, "--exe", exe, "--output-style=JSON", *flags], text=lines)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(addresses), f"{len(addresses)} asked, {len(answers)} answered\n{done.stderr}"
    for address, answer in zip(addresses, answers):
        assert int(answer["Address"], 16) == address, answer
    return answers


def frames_of(answer):
    return [Frame(s["FunctionName"], s["FileName"], s["Line"]) for s in answer["Symbol"]]


def ours(exe, addresses, *flags):
    """Without a saved index, so that nothing of one test reaches another. Asked twice: straight from
    the debug information, and from an index; both must say the same."""
    if os.environ.get("FIREWATCH_SYMBOLIZE"):
        return [frames_of(a) for a in chains(our_command(), exe, addresses, *flags)]
    cold, built = ([frames_of(a) for a in chains(our_command(), exe, addresses, "--no-cache", *extra, *flags)]
                   for extra in ([], ["--build-index"]))
    for address, a, b in zip(addresses, cold, built):
        assert a == b, f"{address:#x} of {exe}: without an index {a}, with one {b}"
    return cold


def details(exe, addresses, *flags):
    """As ours(), whole: with Flags and Aliases of each frame."""
    if os.environ.get("FIREWATCH_SYMBOLIZE"):
        raise unittest.SkipTest("--details is Firewatch's own")
    return [a["Symbol"] for a in chains(our_command(), exe, addresses, "--no-cache", "--details", *flags)]


def llvm(exe, addresses, *flags):
    peer = tool("llvm-symbolizer-19", "llvm-symbolizer")
    return [frames_of(a) for a in chains([peer, "--no-debuginfod"], exe, addresses, *flags)]


Symbol = collections.namedtuple("Symbol", "address size kind section")


def symbols(exe, table=".symtab"):
    """{name: Symbol} of readelf; the last one of a name counts."""
    found, inside = {}, False
    for line in run([tool("readelf"), "-sW", exe]).stdout.splitlines():
        if line.startswith("Symbol table"):
            inside = f"'{table}'" in line
        parts = line.split()
        if inside and len(parts) >= 8 and parts[0].rstrip(":").isdigit() and parts[6] not in ("UND", "ABS"):
            found[parts[7].split("@")[0]] = Symbol(int(parts[1], 16), int(parts[2], 0), parts[3], parts[6])
    return found


def sections(exe):
    """{name: (address, offset, size)}"""
    found = {}
    for line in run([tool("readelf"), "-SW", exe]).stdout.splitlines():
        match = re.match(r"\s*\[\s*\d+\]\s+(\S+)\s+\S+\s+([0-9a-f]+)\s+([0-9a-f]+)\s+([0-9a-f]+)", line)
        if match:
            found[match.group(1)] = tuple(int(match.group(i), 16) for i in (2, 3, 4))
    return found


Segment = collections.namedtuple("Segment", "offset vaddr filesz memsz flags align")


def segments(exe):
    found = []
    for line in run([tool("readelf"), "-lW", exe]).stdout.splitlines():
        match = re.match(r"\s*LOAD\s+(\S+)\s+(\S+)\s+\S+\s+(\S+)\s+(\S+)\s+([RWE ]+?)\s+(0x\S+)$", line)
        if match:
            number = [int(match.group(i), 16) for i in (1, 2, 3, 4)]
            found.append(Segment(*number, match.group(5).replace(" ", ""), int(match.group(6), 16)))
    return found


def executable_segments(exe):
    return [s for s in segments(exe) if "E" in s.flags]


def cpu_seconds_of(command, **options):
    """(CPU seconds of a command that is run to its end, its result)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(command, **options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


class SymbolsTest(unittest.TestCase):
    """A test with a folder of its own, gone afterwards."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="firewatch-symbols-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        # unittest's own way to print how two long lists differ takes minutes.
        for kind in (list, tuple, str):
            self.addTypeEqualityFunc(kind, self.first_difference)

    def first_difference(self, got, wanted, msg=None):
        if got == wanted:
            return
        if isinstance(got, str):
            got, wanted = got.splitlines(), wanted.splitlines()
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        self.fail(f"{msg or ''} differ at {at} of {len(got)} and {len(wanted)}:\n  got    {str(got[at:at + 1])[:1500]}\n"
                  f"  wanted {str(wanted[at:at + 1])[:1500]}")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def build(self, *command):
        """Runs a tool inside the folder; skips when it is not there."""
        tool(command[0])
        return run(list(command), folder=self.folder)

    def assert_chains(self, addresses, got, wanted, message=""):
        self.assertEqual(len(got), len(wanted), message)
        for address, a, b in zip(addresses, got, wanted):
            self.assertEqual(a, b, f"{message} at {address:#x}")

    def same_as_llvm(self, exe, addresses, *flags):
        """Chains of both, linkage names and files and lines; returns how many frames were compared.
        (Demangled, a part of a function is shown as the function here: pitfall 11.)"""
        mine = ours(exe, addresses, "--no-demangle", *flags)
        theirs = llvm(exe, addresses, "--no-demangle", *flags)
        self.assert_chains(addresses, mine, theirs, os.path.basename(exe))
        return sum(len(chain) for chain in mine)

    def every_byte_of(self, exe, *functions):
        table = symbols(exe)
        return [a for f in functions for a in range(table[f].address, table[f].address + table[f].size)]
