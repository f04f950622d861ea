# SPDX-License-Identifier: Apache-2.0
"""Pitfalls 6 to 12 and 22: what a symbol table says, and what it does not say."""
import os
import re

from toolbox import SymbolsTest, UNKNOWN, details, llvm, ours, our_command, run, sections, symbols, tool

KERNEL_TEXT = 0xffffffff81000000


class NamesTest(SymbolsTest):
    def names_at(self, exe, addresses, *flags):
        """Of the physical function."""
        return [chain[-1].function for chain in ours(exe, addresses, *flags)]

    def test_pitfall_06_identical_code_folding_tells_every_name(self):
        source = self.write("fold.cc", """
            __attribute__((noinline)) int fa(int x) { return x * 7 + 3; }
            __attribute__((noinline)) int fb(int x) { return x * 7 + 3; }
            __attribute__((noinline)) int other(int x) { return x * 9 + 3; }
            extern "C" __attribute__((noinline)) int plain(int x) { return x * 11 + 3; }
            extern "C" int same_function(int) __attribute__((alias("plain")));
            int main(int argc, char **) { return fa(argc) + fb(argc) + other(argc) + plain(argc); }""")
        self.build("clang++-19", "-O1", "-g", "-ffunction-sections", "-fuse-ld=lld", "-Wl,--icf=all", source, "-o", "fold")
        exe = self.path("fold")
        table = symbols(exe)
        self.assertEqual(table["_Z2fai"].address, table["_Z2fbi"].address, "lld did not fold")
        both, other, plain = (answer[-1] for answer in details(
            exe, [table[name].address for name in ("_Z2fai", "_Z5otheri", "plain")], "--no-demangle"))
        self.assertEqual({both["FunctionName"], *both["Aliases"]}, {"_Z2fai", "_Z2fbi"})
        self.assertIn("folded", both["Flags"])
        self.assertEqual((other["FunctionName"], other["Aliases"]), ("_Z5otheri", []))
        self.assertNotIn("folded", other["Flags"])
        # Names of C tell nothing of folding: an alias is an alias.
        self.assertEqual({plain["FunctionName"], *plain["Aliases"]}, {"plain", "same_function"})
        self.assertIn("aliased", plain["Flags"])
        self.assertNotIn("folded", plain["Flags"])
        # The same choice every time, and when the table lists them in another order.
        self.build("llvm-objcopy-19", "--strip-symbol=nothing", "fold", "again")
        self.assertEqual(ours(self.path("again"), [table["_Z2fai"].address]), ours(exe, [table["_Z2fai"].address]))

    def test_pitfall_07_same_input_same_index_for_any_number_of_threads(self):
        # Aliases as glibc has them, in both orders, and some code to build lines from.
        source = "".join(f"""
            int work_{i}(int x) {{ return x + {i}; }}
            template <int N> static inline int twice_{i}(int x) {{ return work_{i}(x * N) * 2; }}
            int __clone_{i}(int x) {{ return twice_{i}<{i}>(x) + twice_{i}<{i + 1}>(x); }}
            extern "C" int __GI___clone_{i}(int) __attribute__((alias("_Z{9 + len(str(i)) - 1}__clone_{i}i")));"""
                         for i in range(10, 60))
        for part in range(4):
            self.write(f"part{part}.cc", f"namespace part{part} {{ {source} }}".replace(
                'alias("_Z', f'alias("_ZN5part{part}').replace('i")', 'Ei")').replace("__GI", f"__GI{part}"))
            self.build("g++", "-g", "-O2", "-c", f"part{part}.cc")
        self.write("main.cc", "int main() {}")
        self.build("g++", "-g", "main.cc", *[f"part{n}.o" for n in range(4)], "-o", "aliases")
        exe = self.path("aliases")
        address = symbols(exe)["__GI0___clone_20"].address
        indexes = []
        for number, threads in enumerate((1, 1, 2, 3)):
            cache = self.path(f"cache{number}")
            run([*our_command(), "--exe", exe, "--cache", cache, "--build-index", "--threads", str(threads),
                 f"{address:#x}"])
            files = [os.path.join(cache, name) for name in os.listdir(cache) if name.endswith(".fwsym")]
            self.assertEqual(len(files), 1, os.listdir(cache))
            with open(files[0], "rb") as file:
                indexes.append(file.read())
        self.assertGreater(len(indexes[0]), 2000)
        for other in indexes[1:]:
            self.assertEqual(indexes[0] == other, True, "two builds of one file differ")

    def test_pitfall_08_symbols_without_type_or_size_end_where_their_section_does(self):
        source = self.write("untyped.S", """
            .text
            .globl _start, sized, after_sized
            .type sized, @function
            sized: nop; nop; nop; nop
            .size sized, 4
            .skip 12, 0x90        /* belongs to nobody: sized has ended */
            untyped: nop; nop; nop; nop; nop; nop; nop; nop
            next_untyped: nop; nop
            .type typed_without_size, @function
            typed_without_size: nop; nop; nop; nop
            _start: ret; nop; nop; nop
            .section .more, "ax", @progbits
            .type in_more, @function
            in_more: nop; nop
            .size in_more, 2
            .data
            data_symbol: .quad 5
        """)
        self.build("gcc", "-nostdlib", "-static", source, "-o", "untyped")
        exe = self.path("untyped")
        table, parts = symbols(exe), sections(exe)
        at = {name: table[name].address for name in table}
        text_end = parts[".text"][0] + parts[".text"][2]
        asked = {at["sized"]: "sized", at["sized"] + 3: "sized", at["sized"] + 4: "", at["untyped"] - 1: "",
                 at["untyped"]: "untyped", at["untyped"] + 7: "untyped", at["next_untyped"]: "next_untyped",
                 at["next_untyped"] + 1: "next_untyped", at["typed_without_size"] + 3: "typed_without_size",
                 at["_start"]: "_start", text_end - 1: "_start", text_end: at.get("in_more") == text_end and "in_more" or "",
                 at["in_more"] + 1: "in_more", at["in_more"] + 2: "", at["data_symbol"]: "",
                 at["_end"]: "", at["_end"] + 0x10000: "", 0: "", parts[".text"][0] - 1: "",
                 KERNEL_TEXT: "", (1 << 64) - 1: ""}
        self.assertEqual(dict(zip(asked, self.names_at(exe, list(asked)))), asked)
        unsized = details(exe, [at["untyped"], at["sized"]])
        self.assertIn("unsized", unsized[0][-1]["Flags"])
        self.assertNotIn("unsized", unsized[1][-1]["Flags"])

    def test_pitfall_09_a_sparse_dynamic_table_does_not_swallow_static_functions(self):
        source = self.write("sparse.c", """
            static __attribute__((noinline)) int hidden_one(int x) { return x * 5 + 1; }
            int exported_first(int x) { return hidden_one(x) + 1; }
            static __attribute__((noinline)) int hidden_two(int x) { return x * 6 + hidden_one(x); }
            int exported_last(int x) { return hidden_two(x); }""")
        self.build("gcc", "-O1", "-shared", "-fPIC", source, "-o", "full.so")
        self.build("strip", "-s", "-o", "sparse.so", "full.so")
        full, sparse = symbols(self.path("full.so")), self.path("sparse.so")
        self.assertEqual(symbols(sparse), {})
        addresses, expected = [], []
        for name, entry in full.items():
            if entry.kind != "FUNC" or not re.match("hidden|exported", name):
                continue
            addresses += [entry.address, entry.address + entry.size - 1]
            expected += [name if name.startswith("exported") else ""] * 2
        self.assertEqual(len(addresses), 8)
        self.assertEqual(self.names_at(sparse, addresses), expected)
        self.assertEqual(self.names_at(self.path("full.so"), addresses[::2]),
                         [n for n in full if re.match("hidden|exported", n) and full[n].kind == "FUNC"])

    def test_pitfall_10_slots_of_the_linkage_table_have_names(self):
        source = self.write("plt.c", """
            #include <stdio.h>
            #include <stdlib.h>
            #include <string.h>
            int (*volatile keep)(const char *) = puts;
            int main(int argc, char **argv) {
              void *p = malloc((size_t)argc);
              memcpy(p, argv[0], 1);
              keep = puts;
              puts(argv[0]); printf("%s %zu", argv[0], strlen(argv[0]));
              free(p);
              return atoi(argv[0]);
            }""")
        slots, kinds = 0, set()
        for name, flags in {"lazy": ["-fcf-protection=none", "-Wl,-z,lazy"], "now": ["-fcf-protection=none", "-Wl,-z,now"],
                            "ibt": ["-fcf-protection", "-Wl,-z,lazy", "-Wl,-z,ibtplt"], "nopie": ["-no-pie"],
                            "lld": ["-fuse-ld=lld"], "lld_ibt": ["-fuse-ld=lld", "-fcf-protection", "-Wl,-z,force-ibt"],
                            }.items():
            with self.subTest(name):
                compiler = "clang-19" if "lld" in name else "gcc"
                self.build(compiler, "-O1", "-fno-builtin", source, "-o", name, *flags)
                exe, parts = self.path(name), sections(self.path(name))
                kinds |= {s for s in parts if s.startswith(".plt")}
                # objdump names the slots, too; its labels are the truth.
                labels = re.findall(r"^([0-9a-f]+) <([^>]+@plt)>:$",
                                    run([tool("objdump"), "-d", exe]).stdout, re.M)
                self.assertGreater(len(labels), 5)
                addresses = [int(a, 16) for a, _ in labels]
                expected = [label for _, label in labels]
                self.assertEqual(self.names_at(exe, addresses), expected)
                self.assertEqual(self.names_at(exe, [a + 5 for a in addresses]), expected)
                self.assertIn("plt", details(exe, addresses[:1])[0][-1]["Flags"])
                slots += len(labels)
        self.assertIn(".plt.sec", kinds)
        self.assertIn(".plt.got", kinds)
        self.assertGreater(slots, 30)

    def test_pitfall_11_parts_and_copies_belong_to_their_function(self):
        source = self.write("parts.cc", """
            #include <cstdio>
            #include <stdexcept>
            #include <string>
            namespace app {
            static volatile int sink;
            __attribute__((noinline)) static int copy_me(const int *p, int unused, int scale) {
              sink = *p; for (int i = 0; i < scale; ++i) sink += i; return sink; }
            __attribute__((noinline)) int splits(int x, const std::string &text) {
              if (__builtin_expect(x > 100, 0)) {
                std::string why = "too big: " + text + std::to_string(x);
                std::fprintf(stderr, "%s", why.c_str());
                throw std::runtime_error(why);
              }
              return copy_me(&x, 1, 3) + copy_me(&x, 2, 3);
            }
            }
            int main(int argc, char **argv) { return app::splits(argc, argv[0]) + app::splits(argc + 1, "x"); }""")
        self.build("g++", "-O2", source, "-o", "parts")
        exe = self.path("parts")
        found = {s.partition(".")[2].split(".")[0]: s for s in symbols(exe)
                 if s.startswith("_ZN3appL") or s.startswith("_ZN3app6splits") and "." in s}
        cold = next(s for s in symbols(exe) if s.startswith("_ZN3app6splits") and s.endswith(".cold"))
        copies = [s for s in symbols(exe) if re.search(r"\.(isra|constprop|part)", s)]
        self.assertTrue(copies, f"the compiler made no copy: {found}")
        raw = self.names_at(exe, [symbols(exe)[cold].address, symbols(exe)[copies[0]].address], "--no-demangle")
        self.assertEqual(raw, [cold, copies[0]])
        in_cold, in_copy = details(exe, [symbols(exe)[cold].address, symbols(exe)[copies[0]].address])
        self.assertTrue(in_cold[-1]["FunctionName"].startswith("app::splits(int, std::"), in_cold)
        self.assertEqual(in_cold[-1]["FunctionName"],
                         self.names_at(exe, [symbols(exe)[cold.removesuffix(".cold")].address])[0])
        self.assertIn("cold", in_cold[-1]["Flags"])
        self.assertTrue(in_copy[-1]["FunctionName"].startswith("app::copy_me(int const*, int, int)"), in_copy)
        self.assertIn("variant", in_copy[-1]["Flags"])
        for text in (in_cold[-1]["FunctionName"], in_copy[-1]["FunctionName"]):
            self.assertNotRegex(text, r"\.(cold|isra|constprop|part)|clone")

    def test_pitfall_12_the_symbol_table_names_the_physical_function(self):
        source = self.write("variants.cc", """
            #include <string>
            static volatile int sink;
            static inline __attribute__((always_inline)) void inner(int x) { sink = x; sink += x; }
            struct Base { virtual ~Base(); int v; };
            struct Widget : virtual Base { explicit Widget(int x); ~Widget() override; };
            __attribute__((noinline)) Widget::Widget(int x) { inner(x); v = x; }
            __attribute__((noinline)) Base::~Base() { inner(7); }
            __attribute__((noinline)) Widget::~Widget() { inner(8); }
            static __attribute__((noinline)) int file_local(int x) { inner(x); return sink; }
            extern "C" int plain(int x) { return file_local(x); }
            int main(int argc, char **) { Widget *w = new Widget(argc); int r = w->v + plain(argc); delete w; return r; }""")
        for compiler in ("g++", "clang++-19"):
            with self.subTest(compiler):
                self.build(compiler, "-O1", "-g", source, "-o", compiler)
                exe, table = self.path(compiler), symbols(self.path(compiler))
                by_address = {}
                for name, entry in table.items():
                    if entry.kind == "FUNC" and re.match(r"_ZN(6Widget|4Base)|_ZL10file_local|plain|main", name):
                        by_address.setdefault(entry.address, set()).add(name)
                self.assertGreaterEqual(len(by_address), 6)
                chains = ours(exe, list(by_address), "--no-demangle")
                inlined = 0
                for address, chain in zip(by_address, chains):
                    self.assertIn(chain[-1].function, by_address[address])
                    self.assertNotRegex(chain[-1].function, r"C4E|D4E", "a name that no symbol has")
                # Inlined frames have the debug information's linkage names.
                every = ours(exe, [a for name in by_address.values() for n in name for a in
                                   range(table[n].address, table[n].address + table[n].size)], "--no-demangle")
                for chain in every:
                    for frame in chain[:-1]:
                        inlined += 1
                        self.assertRegex(frame.function, r"^(inner|_ZL5inneri|_ZL10file_locali|file_local|plain|_ZN(4Base|6Widget)[CD]\dEv|_ZN6WidgetC\dEi)$")
                self.assertGreater(inlined, 10)

    def test_pitfall_22_bytes_between_functions_belong_to_nobody(self):
        source = self.write("data.S", """
            .text
            .globl _start
            .type _start, @function
            _start: ret
            .size _start, . - _start
            .byte 0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef
            .type table_user, @function
            table_user: jmp *(%rax)
            .size table_user, . - table_user
            jump_table: .quad table_user, _start     /* no type, no size: data in text */
            .type jump_data, @object
            jump_data: .quad 1, 2
            .size jump_data, 16
            .balign 64, 0xcc
            .type last, @function
            last: ret
            .size last, . - last
            .balign 64, 0xcc
        """)
        self.build("gcc", "-nostdlib", "-static", source, "-o", "data")
        exe, table = self.path("data"), symbols(self.path("data"))
        start, _, size = sections(exe)[".text"]
        chains = ours(exe, list(range(start, start + size)))
        owner = {}
        for name in ("_start", "table_user", "last"):
            for address in range(table[name].address, table[name].address + table[name].size):
                owner[address] = name
        # A label without a type may be code (pitfall 8): it reaches to the next symbol.
        for address in range(table["jump_table"].address, table["jump_data"].address):
            owner[address] = "jump_table"
        for address, chain in zip(range(start, start + size), chains):
            self.assertEqual(chain[-1].function, owner.get(address, ""), hex(address))
        # With a symbol table and debug information, too: llvm-symbolizer answers the padding with
        # the function before it or with none, never we with one.
        self.assertEqual([c for a, c in zip(range(start, start + size), chains) if a not in owner][0], UNKNOWN)
        self.assertGreater(len(llvm(exe, [start])), 0)
