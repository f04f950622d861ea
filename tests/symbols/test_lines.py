# SPDX-License-Identifier: Apache-2.0
"""Pitfalls 13 to 17, 20 and 21: debug information as compilers, linkers and optimizers leave it."""
import re
import struct

import dwarf_asm
import elf_writer
from dwarf_asm import function, inlined, row
from toolbox import (SLOWER, Frame, SymbolsTest, UNKNOWN, cpu_seconds_of, llvm, ours, our_command, run, sections,
                     symbols, tool)

INLINED = """
    static volatile int sink;
    struct Half { int v; int get() const { return v / 2; } };
    template <int N> static inline __attribute__((always_inline)) int deep(Half h) { sink = N; return h.get() + N; }
    static inline __attribute__((always_inline)) int middle(int x) { return deep<3>({x}) + deep<4>({x + 1}); }
    extern "C" __attribute__((noinline)) int FUNCTION(int x) { sink += x; return middle(x) * middle(x + 2); }
"""


class LinesTest(SymbolsTest):
    def made(self, name, size, nodes, sequences, extra=""):
        """A program from dwarf_asm; (path, address of text_start)."""
        self.write(f"{name}.S", dwarf_asm.source(size, nodes, sequences, extra))
        self.build("gcc", "-nostdlib", "-static", f"{name}.S", "-o", name)
        return self.path(name), symbols(self.path(name))["_start"].address

    def test_pitfall_13_units_without_address_ranges_are_found(self):
        self.write("clang.cc", INLINED.replace("FUNCTION", "from_clang"))
        self.write("gcc.cc", INLINED.replace("FUNCTION", "from_gcc"))
        self.write("main.cc", 'extern "C" { int from_clang(int); int from_gcc(int); }\n'
                              "int main(int c, char **) { return from_clang(c) + from_gcc(c); }")
        self.build("clang++-19", "-gdwarf-5", "-O2", "-c", "clang.cc")
        self.build("g++", "-gdwarf-5", "-O2", "-c", "gcc.cc")
        self.build("g++", "-gdwarf-5", "-O2", "main.cc", "clang.o", "gcc.o", "-o", "mixed")
        self.build("objcopy", "--remove-section=.debug_aranges", "mixed", "bare")
        self.assertIn(".debug_aranges", sections(self.path("mixed")))
        self.assertNotIn(".debug_aranges", sections(self.path("bare")))
        addresses = self.every_byte_of(self.path("mixed"), "from_clang", "from_gcc", "main")
        self.assertGreater(self.same_as_llvm(self.path("mixed"), addresses), 2 * len(addresses))
        self.assert_chains(addresses, ours(self.path("bare"), addresses), ours(self.path("mixed"), addresses))

    def test_pitfall_14_dead_code_does_not_hide_living_code(self):
        source = self.write("dead.cc", INLINED.replace("FUNCTION", "living") + "".join(
            f'extern "C" int dead{i}(int x) {{ return middle(x) + {i}; }}' for i in range(40)) +
            'extern "C" void _start() { living(3); for (;;) {} }')
        linkers = {"bfd": ["-fuse-ld=bfd"], "gold": ["-fuse-ld=gold"], "lld": ["-fuse-ld=lld"]}
        for linker, flags in linkers.items():
            for version in ("4", "5"):
                with self.subTest(linker=linker, dwarf=version):
                    name = f"{linker}{version}"
                    compiler = "clang++-19" if linker == "lld" else "g++"
                    tool({"bfd": "ld.bfd", "gold": "ld.gold", "lld": "ld.lld-19"}[linker])
                    # Linked low: the code is where ranges of dead code end up (0 + size).
                    low = ["-Wl,-Ttext=0x40", "-Wl,-N"] if linker == "bfd" else \
                        ["-Wl,-Ttext=0x1000"] if linker == "gold" else ["-Wl,--image-base=0x1000"]
                    self.build(compiler, f"-gdwarf-{version}", "-O2", "-ffunction-sections", "-fno-pie", "-no-pie",
                               "-nostdlib", "-static", "-fno-asynchronous-unwind-tables", source,
                               "-Wl,--gc-sections", "-Wl,--build-id=none", *low, *flags, "-o", name)
                    exe = self.path(name)
                    table = symbols(exe)
                    self.assertNotIn("dead7", table)
                    living = self.every_byte_of(exe, "living", "_start")
                    self.assertLess(min(living), 0x4000)
                    chains = ours(exe, living)
                    self.assertEqual({c[-1].function for c in chains}, {"living", "_start"})
                    self.assertGreater(sum(len(c) > 1 for c in chains), 10)
                    for chain in chains:
                        self.assertFalse(any(f.function.startswith("dead") for f in chain), chain)
                        self.assertNotEqual(chain[0].line, 0, chain)
                    # Where the dead functions' ranges lie now, nothing is.
                    below = [a for a in range(0, 0x40) if a not in living]
                    above = [a for a in (0x700, 0x7ff, 0xffff, (1 << 64) - 1, (1 << 64) - 2) if a not in living]
                    self.assert_chains(below + above, ours(exe, below + above), [UNKNOWN] * len(below + above))

    def test_pitfall_15_line_rows_in_every_disorder(self):
        whole = [function("f", 0, 64, 10)]
        cases = {
            # sequences: highest address first
            "unsorted": [([row(32, 32), row(48, 48)], 64), ([row(0, 1), row(16, 16)], 32)],
            # two sequences claim 16 to 32
            "overlapping": [([row(0, 1), row(16, 2)], 32), ([row(16, 100), row(24, 101)], 64)],
            # the second is inside of the first
            "nested": [([row(0, 1)], 64), ([row(16, 100)], 32)],
            "line_zero": [([row(0, 1), row(8, 0), row(16, 3)], 64)],
            "empty": [([], 0), ([row(0, 0)], 0), ([row(0, 1), row(8, 2)], 64), ([row(32, 9)], 32)],
            "twice": [([row(0, 1), row(8, 2), row(8, 3), row(8, 4), row(16, 5)], 64)],
            "gap": [([row(0, 1)], 16), ([row(48, 2)], 64)],
            "past_the_end": [([row(0, 1), row(32, 2)], 96)],
        }
        compared = 0
        for name, sequences in cases.items():
            with self.subTest(name):
                exe, base = self.made(name, 64, whole, sequences)
                addresses = [base + i for i in range(64)]
                mine, theirs = ours(exe, addresses), llvm(exe, addresses)
                for i, (a, b) in enumerate(zip(mine, theirs)):
                    self.assertEqual(a[-1].function, "f", hex(i))
                    claims = {line for rows, end in sequences for (at, line), after in
                              zip(rows, [r[0] for r in rows[1:]] + [end]) if at <= i < after}
                    # Of two rows that claim a byte both are right.
                    self.assertIn(a[0].line, claims or {0}, f"{name} at {i}")
                    if name not in ("nested", "overlapping"):  # there llvm-symbolizer loses rows
                        self.assertEqual(a, b, f"{name} at {i}")
                    compared += 1
        self.assertEqual(compared, 64 * len(cases))

    def test_pitfall_15_addresses_that_go_backwards_lose_no_row(self):
        # Forbidden, but there: a row before the one before it. Every byte has a row of this table
        # (the nearest at or below it in some order), so none may be without a line.
        exe, base = self.made("backwards", 64, [function("f", 0, 64, 10)],
                              [([row(0, 1), row(32, 2), row(16, 3), row(48, 4)], 64)])
        chains = ours(exe, [base + i for i in range(64)])
        possible = {0: {1}, 16: {1, 3}, 32: {2, 3}, 48: {4}}
        for i, chain in enumerate(chains):
            self.assertEqual(chain[-1].function, "f")
            self.assertIn(chain[0].line, possible[i & ~15], f"at {i}")

    def test_pitfall_16_a_chain_does_not_depend_on_a_row(self):
        nodes = [function("f", 0, 32, 10, inlined("g", 8, 24, 12, inlined("h", 12, 20, 8)))]
        exe, base = self.made("rowless", 32, nodes, [([row(0, 1), row(8, 2)], 14)])
        made = "/made/made.c"
        expected = {0: [Frame("f", made, 1)], 8: [Frame("g", made, 2), Frame("f", made, 12)],
                    12: [Frame("h", made, 2), Frame("g", made, 8), Frame("f", made, 12)],
                    # No row from 14 on: the innermost line is not known, the calls' lines are.
                    15: ["h", ("g", 8), ("f", 12)], 22: ["g", ("f", 12)], 25: ["f"]}
        for offset, chain in zip(expected, ours(exe, [base + o for o in expected])):
            wanted = expected[offset]
            if isinstance(wanted[0], Frame):
                self.assertEqual(chain, wanted, offset)
                continue
            self.assertEqual((chain[0].function, chain[0].line), (wanted[0], 0), offset)
            self.assertEqual([(f.function, f.line) for f in chain[1:]], wanted[1:], offset)

    def test_pitfall_17_functions_inside_functions_keep_their_inlines(self):
        source = self.write("lambda.cc", """
            #include <algorithm>
            static volatile int sink;
            static inline __attribute__((always_inline)) int three(int x) { sink = x; return x * 3 + sink; }
            static inline __attribute__((always_inline)) int two(int x) { return three(x + 1) + three(x + 2); }
            static inline __attribute__((always_inline)) int one(int x) { return two(x) + two(x + 5); }
            template <class F> __attribute__((noinline)) int call(F f, int x) { return f(x) + sink; }
            extern "C" __attribute__((noinline)) int holder(int n) {
              struct Local { static __attribute__((noinline)) int inside(int x) { return one(x) * 5; } };
              auto outer = [n](int x) __attribute__((noinline)) {
                auto inner = [x](int y) __attribute__((noinline)) { return one(x + y); };
                return call(inner, x) + one(n);
              };
              return call(outer, n) + Local::inside(n);
            }
            int main(int argc, char **) { return holder(argc); }""")
        for compiler, version in (("g++", "5"), ("g++", "4"), ("clang++-19", "5"), ("clang++-19", "4")):
            with self.subTest(compiler=compiler, dwarf=version):
                self.build(compiler, "-O2", f"-gdwarf-{version}", source, "-o", "lambda")
                exe = self.path("lambda")
                names = [n for n, s in symbols(exe).items() if s.kind == "FUNC" and
                         re.search("holder|call|main", n) and "." not in n and s.size]
                self.assertGreaterEqual(len(names), 5)
                addresses = self.every_byte_of(exe, *names)
                self.assertGreater(self.same_as_llvm(exe, addresses), len(addresses))
                deep = max(ours(exe, addresses), key=len)
                self.assertGreaterEqual(len(deep), 4, deep)

    def test_pitfall_20_one_giant_unit_of_link_time_optimization(self):
        parts = 6
        for i in range(parts):
            self.write(f"part{i}.cc", f"""
                int next{(i + 1) % parts}(int);
                static volatile int sink;
                static inline int helper{i}(int x) {{ sink = x; return x * {i + 3} + sink; }}
                int next{i}(int x) {{ if (x <= 0) return helper{i}(x); return next{(i + 1) % parts}(x - 1) + helper{i}(x + 1); }}
                """)
        self.write("main.cc", "int next0(int); int main(int c, char **) { return next0(c); }")
        builds = {"gcc": ["g++", "-flto"], "thin": ["clang++-19", "-flto=thin", "-fuse-ld=lld"],
                  "full": ["clang++-19", "-flto", "-fuse-ld=lld"]}
        crossing = 0
        for name, command in builds.items():
            with self.subTest(name):
                self.build(*command, "-O2", "-g", "main.cc", *[f"part{i}.cc" for i in range(parts)], "-o", name)
                exe = self.path(name)
                names = [n for n, s in symbols(exe).items() if re.match("main$|_Z5next", n) and s.size and s.kind == "FUNC"]
                addresses = self.every_byte_of(exe, *names)
                self.same_as_llvm(exe, addresses)
                crossing += sum(len({f.file for f in chain}) > 1 for chain in ours(exe, addresses))
        self.assertGreater(crossing, 50, "nothing was inlined from one unit into another")

    def test_pitfall_20_first_address_of_a_giant_unit_has_a_time_cap(self):
        # One unit of 17 MB, as link-time optimization of a large program makes it.
        count = 300_000
        exe = self.path("giant")
        address = write_units(exe, units=1, functions_each=count, name="a_function_with_a_rather_long_name_")
        self.assertGreater(sections(exe)[".debug_info"][2], 15_000_000)
        seconds, done = cpu_seconds_of([*our_command(), "--no-cache", "--exe", exe, f"{address(count // 2):#x}"])
        self.assertIn(f"a_function_with_a_rather_long_name_{count // 2}\n/made/unit0.c:", done.stdout)
        self.notes = [f"{sections(exe)['.debug_info'][2] >> 20} MB, first address {seconds:.2f} CPU s"]
        self.assertLess(seconds, 2.0 * SLOWER)

    def test_pitfall_21_one_abbreviation_table_for_all_units(self):
        seconds = {}
        for units in (25_000, 100_000):
            exe = self.path(f"units{units}")
            address = write_units(exe, units=units, functions_each=1, name="in_unit_")
            asked = [address(i) for i in range(0, units, units // 50)]
            lines = "".join(f"{a:#x}\n" for a in asked)
            seconds[units], done = cpu_seconds_of([*our_command(), "--no-cache", "--exe", exe], text=lines)
            found = re.findall(r"^in_unit_(\d+)\n/made/unit(\d+)\.c:", done.stdout, re.M)
            self.assertEqual(found, [(str(i), str(i)) for i in range(0, units, units // 50)])
        self.notes = [f"25,000 and 100,000 units: {seconds[25_000]:.2f} and {seconds[100_000]:.2f} CPU s"]
        # Four times the units: four times the work, not sixteen times.
        self.assertLess(seconds[100_000], 8 * seconds[25_000] + 0.2)
        self.assertLess(seconds[100_000], 2.0 * SLOWER)


def write_units(path, units, functions_each, name):
    """A program with so many units and functions of 16 bytes, written directly: an assembler would
    take minutes. All units share one abbreviation table. Returns number of function -> address."""
    base, total = 0x400000, units * functions_each
    abbrev = bytes((1, 0x11, 1, 0x03, 0x08, 0x1b, 0x08, 0x10, 0x17, 0x11, 0x01, 0x12, 0x06, 0, 0,
                    2, 0x2e, 0, 0x03, 0x08, 0x3a, 0x0b, 0x3b, 0x06, 0x11, 0x01, 0x12, 0x06, 0, 0, 0))
    header = bytes((1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0))
    info, lines = bytearray(), bytearray()
    for unit in range(units):
        start = base + 16 * unit * functions_each
        body = bytearray(struct.pack("<HIB", 4, 0, 8))
        body += b"\1" + f"unit{unit}.c".encode() + b"\0/made\0" + struct.pack("<IQI", len(lines), start, 16 * functions_each)
        for i in range(functions_each):
            body += b"\2" + f"{name}{unit * functions_each + i}".encode() + b"\0" + \
                struct.pack("<BIQI", 1, 5, start + 16 * i, 16)
        body += b"\0"
        info += struct.pack("<I", len(body)) + body
        files = f"unit{unit}.c".encode() + b"\0\0\0\0\0"
        program = b"\0\x09\2" + struct.pack("<Q", start) + b"\3\4\1" + b"\0\x09\2" + \
            struct.pack("<Q", start + 16 * functions_each) + b"\0\1\1"
        table = struct.pack("<HI", 4, len(header) + len(files)) + header + files + program
        lines += struct.pack("<I", len(table)) + table
    elf = elf_writer.Elf()
    elf.load(0x1000, base, 16 * total, 16 * total, elf_writer.PF_R | elf_writer.PF_X)
    elf.section(".text", flags=elf_writer.SHF_ALLOC | elf_writer.SHF_EXECINSTR, address=base, offset=0x1000,
                size=16 * total)
    elf.section(".debug_abbrev", abbrev)
    elf.section(".debug_info", bytes(info))
    elf.section(".debug_line", bytes(lines))
    elf.write(path)
    return lambda number: base + 16 * number + 3


# Not a test of ours: the made files must be what a reader of DWARF reads.
class MadeFilesTest(SymbolsTest):
    def test_llvm_reads_what_was_made(self):
        exe = self.path("made")
        address = write_units(exe, units=3, functions_each=2, name="n")
        self.assertEqual(llvm(exe, [address(3)]), [[Frame("n3", "/made/unit1.c", 5)]])
        run([tool("llvm-dwarfdump-19", "llvm-dwarfdump"), "--verify", exe])
