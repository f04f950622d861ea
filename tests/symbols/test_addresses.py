# SPDX-License-Identifier: Apache-2.0
"""Pitfalls 1 to 5: from file offsets and live addresses to the addresses of an ELF file."""
import re
import struct

import elf_writer
from toolbox import SymbolsTest, UNKNOWN, executable_segments, ours, run, segments, symbols, tool

# Program headers of a real program whose offsets were taken for those of the segment before, which
# is long in memory only (blazesym 875): two segments of code, a .bss of 13 MB between their offsets.
HEADERS_875 = [  # offset, vaddr, file size, memory size, flags, align
    (0x949be40, 0x969be40, 0x11d6c930, 0x11d6c930, elf_writer.PF_R | elf_writer.PF_X, 0x200000),
    (0x1b208780, 0x1b409780, 0x01b5e8, 0x01c1f0, elf_writer.PF_R | elf_writer.PF_W, 0x1000),
    (0x1b224980, 0x1b426980, 0x343888, 0xca594c, elf_writer.PF_R | elf_writer.PF_W, 0x1000),
    (0x1b600000, 0x1c200000, 0x4a358ac, 0x4a358ac, elf_writer.PF_R | elf_writer.PF_X, 0x200000),
]

# Prints where its functions are in memory and in which mappings, and what dladdr says of them.
LIVE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#define FUNCTION(name, place) \
  __attribute__((noinline, used, section(place))) int name(int x) { return x * 3 + (int)sizeof(#name); }
FUNCTION(first_function, ".text")
FUNCTION(second_function, SECOND)
FUNCTION(last_function, SECOND)
static void tell(const char *name, int (*function)(int)) {
  Dl_info info;
  const char *known = dladdr((void *)function, &info) && info.dli_sname ? info.dli_sname : "?";
  printf("function %s %lx %s\n", name, (unsigned long)function, known);
}
int main(void) {
  tell("first_function", first_function);
  tell("second_function", second_function);
  tell("last_function", last_function);
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[4096];
  while (fgets(line, sizeof line, maps)) if (strstr(line, " r-xp ")) printf("map %s", line);
  return 0;
}
"""


class AddressesTest(SymbolsTest):
    def offsets_of_live_functions(self, exe):
        """{name: (file offset by the kernel's mapping, name by dladdr)} of a run of LIVE."""
        text, found, maps = run([exe]).stdout, {}, []
        for line in text.splitlines():
            if line.startswith("map ") and line.endswith("/" + exe.split("/")[-1]):
                start, end, offset = re.match(r"map (\w+)-(\w+) \S+ (\w+)", line).groups()
                maps.append((int(start, 16), int(end, 16), int(offset, 16)))
        for name, address, known in re.findall(r"^function (\S+) (\S+) (\S+)$", text, re.M):
            address = int(address, 16)
            start, _, offset = next(m for m in maps if m[0] <= address < m[1])
            found[name] = (address - start + offset, known)
        return found, maps

    def check_live(self, exe):
        found, maps = self.offsets_of_live_functions(exe)
        self.assertEqual(len(found), 3)
        offsets = [offset for offset, _ in found.values()]
        answers = ours(exe, offsets, "--file-offsets")
        self.assertEqual([chain[-1].function for chain in answers], list(found))
        self.assertEqual([known for _, known in found.values()], list(found))
        # nm agrees: offset and address meet in the same symbol.
        table = symbols(exe)
        self.assertEqual([chain[-1].function for chain in ours(exe, [table[name].address for name in found])],
                         list(found))
        return maps

    def test_pitfall_01_file_size_not_memory_size_picks_the_segment(self):
        elf = elf_writer.Elf()
        for header in HEADERS_875:
            elf.load(*header)
        code = []
        for number, (offset, vaddr, filesz, _, flags, _) in enumerate(HEADERS_875):
            if not flags & elf_writer.PF_X:
                continue
            section = elf.section(f".text{number}", flags=elf_writer.SHF_ALLOC | elf_writer.SHF_EXECINSTR,
                                  address=vaddr, offset=offset, size=filesz)
            # Functions of 64 KiB, from the first to the last byte of the segment.
            for start in range(0, filesz, 0x10000):
                size = min(0x10000, filesz - start)
                elf.symbol(f"f_{vaddr + start:x}", vaddr + start, size, section)
                code.append((offset + start, vaddr + start, size))
        exe = self.path("headers875")
        elf.write(exe)

        # The address of the report, and both ends and the middle of every function, both ways.
        self.assertEqual(ours(exe, [0x1b63b4d0], "--file-offsets"), ours(exe, [0x1c23b4d0]))
        offsets = [o + d for o, _, size in code for d in (0, size // 2, size - 1)]
        addresses = [v + d for _, v, size in code for d in (0, size // 2, size - 1)]
        names = [f"f_{v:x}" for _, v, _ in code for _ in range(3)]
        self.assertEqual([c[-1].function for c in ours(exe, offsets, "--file-offsets")], names)
        self.assertEqual([c[-1].function for c in ours(exe, addresses)], names)
        # Offsets of data, of the hole after it, and of nothing.
        outside = [0, 0x949be3f, 0x1b208780, 0x1b224980, 0x1b224980 + 0x343887, 0x1b5fffff, 0x1b600000 + 0x4a358ac]
        self.assertEqual(ours(exe, outside, "--file-offsets"), [UNKNOWN] * len(outside))

    def test_pitfall_02_segments_that_do_not_begin_at_a_page(self):
        source = self.write("live.c", LIVE)
        builds = {"lld": ["-fuse-ld=lld"], "lld_separate": ["-fuse-ld=lld", "-Wl,-z,separate-code"],
                  "bfd": ["-fuse-ld=bfd"], "bfd_together": ["-fuse-ld=bfd", "-Wl,-z,noseparate-code"]}
        unaligned = 0
        for name, flags in builds.items():
            with self.subTest(name):
                self.build("clang-19", "-O1", "-DSECOND=\".text\"", source, "-rdynamic", "-o", name, *flags)
                exe = self.path(name)
                maps = self.check_live(exe)
                for segment in executable_segments(exe):
                    unaligned += segment.vaddr % 0x1000 != 0
                    # First and last byte of the segment: the function that nm has there, or none.
                    for offset, address in ((segment.offset, segment.vaddr),
                                            (segment.offset + segment.filesz - 1, segment.vaddr + segment.filesz - 1)):
                        self.assertEqual(ours(exe, [offset], "--file-offsets"), ours(exe, [address]))
                # The kernel maps whole pages: what stands there before the segment is not code.
                first_code = min(s.offset for s in executable_segments(exe))
                before = [m[2] for m in maps if m[2] < first_code]
                self.assertEqual(ours(exe, before, "--file-offsets"), [UNKNOWN] * len(before))
        self.assertGreater(unaligned, 0, "no linker made an unaligned segment: the test tests nothing")

    def test_pitfall_03_alignment_of_two_megabytes(self):
        source = self.write("live.c", LIVE)
        self.build("clang-19", "-O1", "-DSECOND=\".text\"", source, "-rdynamic", "-fuse-ld=lld", "-o", "aligned",
                   "-Wl,-z,max-page-size=0x200000", "-Wl,-z,common-page-size=0x1000", "-no-pie",
                   "-Wl,--image-base=0x9600000")
        exe = self.path("aligned")
        segment = executable_segments(exe)[0]
        self.assertEqual(segment.align, 0x200000)
        self.assertNotEqual(segment.vaddr % 0x200000, 0)
        self.check_live(exe)  # dladdr is asked there

    def test_pitfall_04_two_executable_segments_with_different_bias(self):
        source = self.write("live.c", LIVE)
        # ld's own script, and a second segment of code: far away in memory, close in the file.
        script = run([tool("ld.bfd"), "--verbose", "-no-pie"]).stdout.split("=" * 50)[1]
        parts = script.partition("  PROVIDE (__etext = .);")
        self.assertTrue(parts[1])
        script = parts[0] + "  .far 0x40000040 : { *(.far) }\n" + parts[1] + parts[2]
        self.write("two.ld", script)
        self.build("gcc", "-O1", "-no-pie", "-rdynamic", "-DSECOND=\".far\"", source,
                   "-fuse-ld=bfd", "-Wl,-T,two.ld", "-o", "two")
        exe = self.path("two")
        code = executable_segments(exe)
        self.assertGreaterEqual(len({s.vaddr - s.offset for s in code}), 2, segments(exe))
        self.check_live(exe)

    def test_pitfall_05_the_byte_before_a_return_address(self):
        source = self.write("calls.cc", """
            #include <algorithm>
            #include <map>
            #include <string>
            #include <vector>
            struct Shape { virtual ~Shape() {} virtual double area() const = 0; };
            struct Box : Shape { double a; explicit Box(double x) : a(x) {} double area() const override { return a * a; } };
            static std::map<std::string, std::vector<int>> table;
            __attribute__((noinline)) void fill(int n) {
              for (int i = 0; i < n; ++i) table[std::to_string(i % 7)].push_back(i);
              for (auto &[key, list] : table) std::sort(list.begin(), list.end(), [](int a, int b) { return a > b; });
            }
            __attribute__((noinline, noreturn)) void die(int code) { __builtin_printf("%d", code); __builtin_exit(code); }
            __attribute__((noinline)) void ends_in_a_call(int code) { fill(code); die(code); }
            int after_it(int x) { return x + 1; }
            int main(int argc, char **) {
              std::vector<Shape *> all;
              for (int i = 0; i < argc; ++i) all.push_back(new Box(i));
              double sum = 0;
              for (Shape *s : all) sum += s->area();
              fill(argc);
              if (sum > 1e9) ends_in_a_call(argc);
              return after_it(static_cast<int>(sum));
            }""")
        self.build("g++", "-g", "-O2", source, "-o", "calls")
        exe = self.path("calls")
        calls = []  # (address of the call, return address)
        previous = None
        for line in run([tool("objdump"), "-d", "--no-show-raw-insn", exe]).stdout.splitlines():
            match = re.match(r"\s+([0-9a-f]+):\s+(\S+)", line)
            if not match:
                continue
            address = int(match.group(1), 16)
            if previous is not None:
                calls.append((previous, address))
            previous = address if match.group(2).startswith("call") else None
        self.assertGreater(len(calls), 50)
        at_calls = ours(exe, [call for call, _ in calls])
        before_returns = ours(exe, [back - 1 for _, back in calls])
        self.assert_chains([back - 1 for _, back in calls], before_returns, at_calls)
        # Not subtracting would be wrong, and often: else this test says nothing.
        at_returns = ours(exe, [back for _, back in calls])
        wrong = sum(a != b for a, b in zip(at_calls, at_returns))
        self.assertGreater(wrong, len(calls) // 4)
        # A call that does not come back can be the last instruction of its function.
        table = symbols(exe)
        caller = table["_Z14ends_in_a_calli"]
        last = [back for call, back in calls if caller.address <= call < caller.address + caller.size][-1]
        self.assertEqual(ours(exe, [last - 1])[0][-1].function, "ends_in_a_call(int)")


# Not a test: the writer above is trusted only as far as readelf reads what it wrote.
class WriterTest(SymbolsTest):
    def test_readelf_reads_what_the_writer_wrote(self):
        elf = elf_writer.Elf()
        elf.load(0x1000, 0x402000, 16, 16, elf_writer.PF_R | elf_writer.PF_X)
        text = elf.section(".text", struct.pack("<16B", *range(16)), flags=6, address=0x402000, offset=0x1000)
        elf.symbol("here", 0x402004, 4, text)
        elf.write(self.path("made"))
        self.assertEqual(symbols(self.path("made"))["here"][:2], (0x402004, 4))
        self.assertEqual(segments(self.path("made"))[0][:4], (0x1000, 0x402000, 16, 16))
