# SPDX-License-Identifier: Apache-2.0
"""Pitfalls 18, 19, 25 and 26: names that live in other files, wrong files and hostile ones."""
import os
import shutil
import socket
import struct
import time

import elf_writer
from toolbox import SLOWER, Frame, SymbolsTest, llvm, ours, our_command, run, sections, symbols, tool
from test_lines import INLINED


class OtherFilesTest(SymbolsTest):
    def two_programs(self):
        """Programs that share enough for dwz to move names into a common file."""
        shared = INLINED + "".join(
            f"struct Shared{i} {{ int first_member_{i}, second_member_{i}; int sum() const {{ return first_member_{i} + "
            f"second_member_{i}; }} }};\nextern \"C\" __attribute__((noinline)) int uses_shared_{i}(const Shared{i} &s) "
            "{ return s.sum() * middle(3); }\n" for i in range(30))
        self.write("shared.h", shared.replace("FUNCTION", "in_header"))
        for name in ("one", "two"):
            self.write(f"{name}.cc", f'#include "shared.h"\nint main(int c, char **) {{ Shared3 s{{c, 1}}; '
                                     f"return uses_shared_3(s) + in_header(c); }}\nint only_{name};")
            self.build("g++", "-gdwarf-4", "-O2", f"{name}.cc", "-o", name)
        return self.every_byte_of(self.path("one"), "uses_shared_3", "uses_shared_9", "in_header", "main")

    def test_pitfall_18_names_in_the_common_file_of_dwz(self):
        tool("dwz")
        addresses = self.two_programs()
        before = ours(self.path("one"), addresses)
        self.assertGreater(sum(len(c) > 1 for c in before), 50)
        self.build("dwz", "-m", self.path("common.debug"), "one", "two")
        self.assertIn(".gnu_debugaltlink", sections(self.path("one")))
        # By the path in the link.
        self.assert_chains(addresses, ours(self.path("one"), addresses), before)
        # By build id, where the path leads nowhere.
        note = run([tool("readelf"), "-n", self.path("common.debug")]).stdout
        build_id = note.split("Build ID:")[1].split()[0]
        os.makedirs(self.path(f"debug/.build-id/{build_id[:2]}"))
        shutil.move(self.path("common.debug"), self.path(f"debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug"))
        self.assert_chains(addresses, ours(self.path("one"), addresses, "--debug-file-directory", self.path("debug")), before)
        # Nowhere: the symbol table still names the function; lines stay; no frame is called "??".
        missing = ours(self.path("one"), addresses)
        for got, whole in zip(missing, before):
            self.assertEqual(got[-1].function, whole[-1].function)
            self.assertNotEqual(got[0].line, 0)
            self.assertNotIn("", [f.function for f in got if len(got) == 1])
        # Another file of that name is not taken.
        self.build("cp", "two", "common.debug")
        self.assert_chains(addresses, ours(self.path("one"), addresses), missing)

    def test_pitfall_19_split_debug_information(self):
        for compiler, flags in (("g++", ["-gsplit-dwarf", "-gdwarf-5"]), ("g++", ["-gsplit-dwarf", "-gdwarf-4"]),
                                ("clang++-19", ["-gsplit-dwarf", "-gdwarf-5"]),
                                ("clang++-19", ["-gsplit-dwarf", "-gdwarf-4"])):
            with self.subTest(compiler=compiler, flags=flags):
                self.split(compiler, flags)

    def split(self, compiler, flags):
        folder = self.path("work")
        shutil.rmtree(folder, ignore_errors=True)
        self.write("work/a.cc", INLINED.replace("FUNCTION", "from_a"))
        self.write("work/b.cc", INLINED.replace("FUNCTION", "from_b"))
        self.write("work/main.cc", 'extern "C" { int from_a(int); int from_b(int); }\n'
                                   "int main(int c, char **) { return from_a(c) + from_b(c); }")
        for unit in ("a", "b", "main"):
            run([tool(compiler), *flags, "-O2", "-c", f"{unit}.cc"], folder=folder)
        run([compiler, *flags, "a.o", "b.o", "main.o", "-o", "split"], folder=folder)
        exe = os.path.join(folder, "split")
        # The symbol table names functions; what only a .dwo knows are the inlined ones.
        addresses = self.every_byte_of(exe, "from_a", "from_b", "main")
        whole = llvm(exe, addresses)
        self.assertGreater(sum(len(c) > 2 for c in whole), 20)
        self.assert_chains(addresses, ours(exe, addresses), whole, "beside the program")
        # A stale one: same name, other unit. Lines without inlined frames, never another unit's.
        good = os.path.join(folder, "a.dwo")
        shutil.copy(good, good + ".kept")
        self.write("work/stale.cc", INLINED.replace("FUNCTION", "from_a").replace("N; return", "N + 1; return"))
        run([compiler, *flags, "-O1", "-c", "stale.cc", "-o", "a2.o"], folder=folder)
        stale = next(n for n in ("a2.dwo", "stale.dwo") if os.path.exists(os.path.join(folder, n)))
        shutil.copy(os.path.join(folder, stale), good)
        for chain, before in zip(ours(exe, addresses), whole):
            self.assertEqual(chain[-1].function, before[-1].function)
            if before[-1].function == "from_a":
                self.assertEqual(len(chain), 1, "frames of a stale .dwo")
                self.assertNotEqual(chain[0].line, 0)
            else:
                self.assertEqual(chain, before)
        shutil.copy(good + ".kept", good)
        # Only the package. (llvm-dwp 19 does not end on GCC's DWARF 5, and binutils' crashes.)
        packed = (compiler, flags[1]) != ("g++", "-gdwarf-5")
        if packed:
            run([tool("llvm-dwp-19", "dwp"), "-e", "split", "-o", "split.dwp"], folder=folder)
        for name in ("a.dwo", "b.dwo", "main.dwo"):
            os.remove(os.path.join(folder, name))
        if packed:
            self.assert_chains(addresses, ours(exe, addresses), whole, "package beside the program")
            os.rename(exe + ".dwp", exe + ".moved")
            self.assert_chains(addresses, ours(exe, addresses, "--dwp", exe + ".moved"), whole, "package by name")
        # None at all.
        for chain, before in zip(ours(exe, addresses), whole):
            self.assertEqual((len(chain), chain[-1].function), (1, before[-1].function))
            self.assertNotEqual(chain[0].line, 0)

    def test_pitfall_25_a_wrong_debug_file_is_not_used(self):
        self.write("real.cc", INLINED.replace("FUNCTION", "work") + "int main(int c, char **) { return work(c); }")
        self.write("decoy.cc", "\n\n\n\n" + INLINED.replace("FUNCTION", "decoy") +
                   "int main(int c, char **) { return decoy(c); }")
        for build_id in ("--build-id=sha1", "--build-id=none"):
            with self.subTest(build_id):
                for name in ("real", "decoy"):
                    self.build("g++", "-g", "-O2", f"-Wl,{build_id}", f"{name}.cc", "-o", name)
                    self.build("objcopy", "--only-keep-debug", name, f"{name}.debug")
                whole = self.path("real")
                addresses = self.every_byte_of(whole, "work", "main")
                expected = ours(whole, addresses)
                bare = [[Frame(c[-1].function, "", 0)] for c in expected]
                self.build("objcopy", "-g", "--add-gnu-debuglink=real.debug", "real", "stripped")
                exe = self.path("stripped")
                self.assert_chains(addresses, ours(exe, addresses), expected, "beside the program")
                os.rename(self.path("real.debug"), self.path("kept"))
                self.assert_chains(addresses, ours(exe, addresses), bare, "no debug file")
                shutil.copy(self.path("decoy.debug"), self.path("real.debug"))
                self.assert_chains(addresses, ours(exe, addresses), bare, "a decoy of that name")
                # A decoy does not hide the right one in a later place, by name and by build id.
                os.makedirs(self.path(".debug"), exist_ok=True)
                shutil.copy(self.path("kept"), self.path(".debug/real.debug"))
                self.assert_chains(addresses, ours(exe, addresses), expected, "decoy first")
                shutil.rmtree(self.path(".debug"))
                if build_id != "--build-id=none":
                    note = run([tool("readelf"), "-n", exe]).stdout.split("Build ID:")[1].split()[0]
                    place = f"dir/.build-id/{note[:2]}/{note[2:]}.debug"
                    os.makedirs(os.path.dirname(self.path(place)), exist_ok=True)
                    shutil.copy(self.path("kept"), self.path(place))
                    self.assert_chains(addresses, ours(exe, addresses, "--debug-file-directory", self.path("dir")), expected)
                    shutil.copy(self.path("decoy.debug"), self.path(place))
                    self.assert_chains(addresses, ours(exe, addresses, "--debug-file-directory", self.path("dir")), bare)
                os.remove(self.path("real.debug"))


    def test_pitfall_27_a_silent_debuginfod_delays_nothing(self):
        self.write("a.cc", INLINED.replace("FUNCTION", "work") + "int main(int c, char **) { return work(c); }")
        self.build("g++", "-g", "-O2", "a.cc", "-o", "whole")
        self.build("objcopy", "-g", "whole", "program")
        address = symbols(self.path("whole"))["work"].address
        with socket.socket() as hole:  # takes connections and says nothing
            hole.bind(("127.0.0.1", 0))
            hole.listen(16)
            started = time.monotonic()
            done = run([*our_command(), "--no-cache", "--exe", self.path("program"), f"{address:#x}"], timeout=60,
                       env=dict(os.environ, DEBUGINFOD_URLS=f"http://127.0.0.1:{hole.getsockname()[1]}"))
            self.assertEqual(done.stdout, "work\n??:0:0\n\n")
            self.assertLess(time.monotonic() - started, 5 * SLOWER)
            # Nobody was asked: a command that names addresses does not use the network.
            hole.settimeout(0)
            self.assertRaises(BlockingIOError, hole.accept)


class HostileFilesTest(SymbolsTest):
    def refused(self, path, *arguments):
        """Ends by itself, quickly, with an error and without a name; returns the error text."""
        started = time.monotonic()
        done = run([*our_command(), "--no-cache", "--exe", path, *arguments, "0x401000"], check=False, timeout=60)
        self.assertLess(time.monotonic() - started, 10 * SLOWER)
        self.assertIn(done.returncode, (0, 1), done.stderr)  # not a signal
        self.assertNotIn("Sanitizer", done.stderr)
        return done

    def test_pitfall_26_a_fifo_is_not_waited_for(self):
        os.mkfifo(self.path("fifo"))
        done = self.refused(self.path("fifo"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("error: '" + self.path("fifo") + "': ", done.stderr)
        # As a debug file, too.
        self.write("a.cc", INLINED.replace("FUNCTION", "work") + "int main(int c, char **) { return work(c); }")
        self.build("g++", "-g", "-O2", "a.cc", "-o", "whole")
        self.build("objcopy", "--only-keep-debug", "whole", "a.debug")
        self.build("objcopy", "-g", "--add-gnu-debuglink=a.debug", "whole", "program")
        os.remove(self.path("a.debug"))
        os.mkfifo(self.path("a.debug"))
        address = symbols(self.path("whole"))["work"].address
        self.assertEqual(ours(self.path("program"), [address]), [[Frame("work", "", 0)]])

    def test_pitfall_26_hostile_headers_are_refused(self):
        good = self.path("good")
        elf = elf_writer.Elf()
        elf.load(0x1000, 0x401000, 64, 64, elf_writer.PF_R | elf_writer.PF_X)
        text = elf.section(".text", bytes(64), flags=6, address=0x401000, offset=0x1000)
        elf.symbol("here", 0x401000, 64, text)
        elf.write(good)
        self.assertEqual(ours(good, [0x401000])[0][-1].function, "here")
        with open(good, "rb") as file:
            content = file.read()
        headers, = struct.unpack_from("<Q", content, 40)
        symtab, strtab = headers + 64 * 2, headers + 64 * 3
        changes = {
            "sh_entsize 0": (symtab + 56, "<Q", 0), "sh_entsize 1": (symtab + 56, "<Q", 1),
            "symbols of 2^60 bytes": (symtab + 32, "<Q", 1 << 60), "symbols past the end": (symtab + 24, "<Q", 1 << 40),
            "offset wraps": (symtab + 24, "<Q", (1 << 64) - 8), "strings of 4 GB": (strtab + 32, "<Q", 1 << 32),
            "strings at the end of memory": (strtab + 24, "<Q", (1 << 64) - 1), "link to itself": (symtab + 40, "<I", 2),
            "link to nowhere": (symtab + 40, "<I", 60000), "60,000 sections": (60, "<H", 60000),
            "headers past the end": (40, "<Q", 1 << 50), "65,535 program headers": (56, "<H", 65535),
            "segment past the end": (64 + 8, "<Q", 1 << 45), "name at 4 GB": (symtab + 24 - 24 + 24, "<Q", 0x40),
        }
        for name, (offset, form, value) in changes.items():
            with self.subTest(name):
                bad = bytearray(content)
                struct.pack_into(form, bad, offset, value)
                with open(self.path("bad"), "wb") as file:
                    file.write(bad)
                self.refused(self.path("bad"))
        symbols_at, = struct.unpack_from("<Q", content, symtab + 24)
        with self.subTest("st_name 4 GB"):
            bad = bytearray(content)
            struct.pack_into("<I", bad, symbols_at + 24, 0xfffffff0)
            with open(self.path("bad"), "wb") as file:
                file.write(bad)
            self.assertNotIn("here", self.refused(self.path("bad")).stdout)
        for size in (0, 1, 4, 63, 64, 100, 0x1000, len(content) - 1):
            with self.subTest(f"cut to {size}"):
                with open(self.path("bad"), "wb") as file:
                    file.write(content[:size])
                self.refused(self.path("bad"))

    def test_pitfall_26_damaged_debug_information_ends(self):
        self.write("a.cc", INLINED.replace("FUNCTION", "work") + "int main(int c, char **) { return work(c); }")
        self.build("g++", "-g", "-O2", "a.cc", "-o", "whole")
        place = sections(self.path("whole"))
        address = symbols(self.path("whole"))["work"].address
        with open(self.path("whole"), "rb") as file:
            content = file.read()
        for name in (".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_line_str", ".debug_rnglists"):
            _, offset, size = place[name]
            for kind, filling in (("ones", b"\xff"), ("zeros", b"\0"), ("continued", b"\x80")):
                for part in (0, 2):
                    with self.subTest(section=name, kind=kind, part=part):
                        start = offset + part * size // 4
                        with open(self.path("bad"), "wb") as file:
                            file.write(content[:start] + filling * (offset + size - start) + content[offset + size:])
                        done = self.refused(self.path("bad"), f"{address:#x}")
                        # The symbol table is whole: it answers.
                        self.assertIn("work\n", done.stdout)
