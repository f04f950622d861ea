# SPDX-License-Identifier: Apache-2.0
"""`firewatch symbolize` instead of llvm-symbolizer: the same bytes for the same question, but for
what README.md of cli/ lists."""
import json
import os
import re
import select
import subprocess
import time

from test_lines import INLINED
from toolbox import SLOWER, SymbolsTest, ours, our_command, run, symbols, tool

PROGRAM = INLINED.replace("FUNCTION", "work") + """
#include <string>
namespace shapes {
template <class T> struct Box { T v; explicit Box(T x) : v(x) {} __attribute__((noinline)) T twice() const { return v + v; } };
__attribute__((noinline)) std::string name(const Box<int> &b) { return std::to_string(b.twice()); }
}
static __attribute__((noinline)) int hidden(int x) { return x * 3 + sink; }
int main(int argc, char **) { return work(argc) + (int)shapes::name(shapes::Box<int>(argc)).size() + hidden(argc); }
"""
# Not kept by us: columns, discriminators; where inlined functions begin in memory, and the file of it.
NOT_KEPT = [(r'"Column":\d+', '"Column":0'), (r'"Discriminator":\d+', '"Discriminator":0'),
            (r'"StartAddress":"[^"]*"', '"StartAddress":""'), (r'"StartFileName":"[^"]*"', '"StartFileName":""'),
            (r"(?m)^(.*:\d+):\d+$", r"\1:0"), (r" \(discriminator \d+\)", ""), (r"  Column: \d+", "  Column: 0"),
            (r"  Discriminator: \d+\n", ""), (r"  Function start (address|filename): .*\n", ""),
            (r'"Column": \d+', '"Column": 0'), (r'"Discriminator": \d+', '"Discriminator": 0'),
            (r'"StartAddress": "[^"]*"', '"StartAddress": ""'), (r'"StartFileName": "[^"]*"', '"StartFileName": ""')]


def without_what_is_not_kept(text):
    for pattern, replacement in NOT_KEPT:
        text = re.sub(pattern, replacement, text)
    return text


class CommandTest(SymbolsTest):
    def setUp(self):
        super().setUp()
        self.write("program.cc", PROGRAM)
        self.build("g++", "-g", "-O2", "program.cc", "-o", "program")
        self.exe = self.path("program")
        table = symbols(self.exe)
        self.table = table
        self.addresses = [table[n].address + d for n in table if table[n].kind == "FUNC" and table[n].size
                          and re.match("work|main|_ZL6hidden|_ZN.*shapes", n) and "." not in n
                          for d in range(0, table[n].size, 3)]

    def both(self, flags, text=None, arguments=(), peer="llvm-symbolizer-19", cwd=None):
        """((exit code, output, errors) of ours, the same of the peer), comparable."""
        results = []
        for command in ([*our_command(), "--no-cache"], [tool(peer)]):
            done = run([*command, *flags, *arguments], text=text, check=False, folder=cwd or self.folder)
            errors = re.sub(r"(?m)^(llvm-symbolizer\S*|firewatch symbolize): ", "", done.stderr)
            results.append((done.returncode, without_what_is_not_kept(done.stdout), errors))
        return results

    def test_every_form_is_byte_for_byte_that_of_llvm(self):
        self.assertGreater(len(self.addresses), 50)
        lines = "".join(f"{a:#x}\n" for a in self.addresses)
        forms = [[], ["--no-inlines"], ["-p"], ["-a"], ["-a", "-p"], ["-s"], ["-f=none"], ["--no-demangle"], ["--verbose"],
                 ["--print-source-context-lines=3"], ["--inlining=false", "-C"], ["-aps"], ["--demangle", "--inlines"],
                 ["--functions=linkage", "--basenames", "--print-address"], ["--relativenames"]]
        compared = 0
        for peer in ("llvm-symbolizer-19", "llvm-symbolizer-14"):
            if peer.endswith("14") and run(["sh", "-c", f"command -v {peer}"], check=False).returncode:
                continue
            for style in ("LLVM", "GNU", "JSON"):
                for form in forms:
                    if peer.endswith("14") and (style == "JSON" or "--verbose" in form):
                        continue  # 14 has other JSON and other verbose text than 19
                    if peer.endswith("14") and {"--no-inlines", "--inlining=false"} & set(form):
                        continue  # 14 names the inlined function then, 19 the physical one
                    with self.subTest(peer=peer, style=style, form=form):
                        flags = ["--exe", self.exe, f"--output-style={style}", *form]
                        ours_, theirs = self.both(flags, text=lines, peer=peer)
                        self.assertEqual(ours_[0], theirs[0])
                        if peer.endswith("14"):  # demangled C++98's way
                            theirs = (theirs[0], theirs[1].replace("> >", ">>").replace("> >", ">>"), theirs[2])
                        self.assertEqual(ours_[1], theirs[1])
                        compared += len(theirs[1])
        self.notes = [f"{compared} bytes"]

    def test_arguments_are_answered_as_a_list(self):
        arguments = [hex(a) for a in self.addresses[:5]] + ["0x0", "junk", "0xffffffffffffffff"]
        for style in ("LLVM", "GNU", "JSON"):
            for form in ([], ["-p"]):
                with self.subTest(style=style, form=form):
                    flags = ["--exe", self.exe, "--output-style", style, *form]
                    # llvm-symbolizer names the last symbol for an address behind everything.
                    mine, theirs = self.both(flags, arguments=arguments[:-1])
                    self.assertEqual(mine, theirs)

    def test_short_function_names(self):
        lines = "".join(f"{a:#x}\n" for a in self.addresses)
        # Ours are cut from the demangled name: template arguments may be spelled otherwise.
        mine, theirs = ([re.sub("<.*>", "<>", line) for line in result[1].splitlines()] for result in
                        self.both(["--exe", self.exe, "--functions=short"], text=lines))
        self.assertEqual(mine, theirs)

    def test_lines_name_their_file(self):
        at = hex(self.addresses[0])
        os.mkdir(self.path("with space"))
        os.symlink(self.exe, self.path("with space/program"))
        lines = [f"program {at}", f"{self.exe} {at}", f'"with space/program" {at}', f"'with space/program' {at}",
                 f"CODE program {at}", f"FILE:program {at}", f'CODE FILE:"program" {at}', f"program {at} ignored",
                 "program work", "program work+4", "program nosuch", "program", "program 0x", "program 12x", at, "", " ",
                 "nofile 0x1", "program.cc 0x1", '"program 0x1', "FILE:", "FILE:FILE:program 0x1", f"program  {int(at, 16)}",
                 "BUILDID:", "BUILDID:xyz 0x1", "BUILDID:0000000000 0x1", f"  program {at}"]
        for style in ("LLVM", "JSON"):
            for line in lines:
                with self.subTest(style=style, line=line):
                    mine, theirs = self.both([f"--output-style={style}", "--no-debuginfod"], text=line + "\n")
                    if line.startswith("program.cc"):  # the reason is told in other words
                        mine, theirs = [(r[0], re.sub('"Message":"[^"]*"', "", r[1]), "") for r in (mine, theirs)]
                    self.assertEqual(mine, theirs)

    def test_errors_and_exit_codes(self):
        for flags, code, error in (
                (["--exe", "nofile", "0x1"], 1, "error: 'nofile': No such file or directory"),
                (["--exe", ".", "0x1"], 1, "error: '.': Is a directory"),
                (["--exe", "program.cc", "0x1"], 1, "error: 'program.cc': "),
                (["--nosuch"], 1, "error: unknown argument '--nosuch'"),
                (["--exe"], 1, "error: --exe: missing argument"),
                (["--exe", "program", "--adjust-vma=x"], 1, "expected a non-negative integer, but got 'x'"),
                (["--exe", "program", "12x"], 0, "error: '12x': expected a number as module offset"),
                (["0x12"], 0, "error: '0x12': no module offset has been specified")):
            with self.subTest(flags=flags):
                mine, theirs = self.both(flags)
                self.assertEqual(mine[0], code)
                self.assertEqual(theirs[0], code)
                self.assertIn(error, mine[2])

    def test_adjust_vma_is_subtracted(self):
        lines = "".join(f"{a + 0x10000:#x}\n" for a in self.addresses[:20])
        mine, theirs = self.both(["--exe", self.exe, "--adjust-vma=0x10000", "-a"], text=lines)
        self.assertEqual(mine, theirs)

    def test_variables_are_refused_with_a_reason(self):
        done = run([*our_command(), "--no-cache", "--exe", self.exe, "DATA 0x4010"])
        self.assertEqual(done.stdout, "??\n??:0:0\n\n")
        self.assertIn("variables are not kept", done.stderr)

    def test_each_line_is_answered_before_the_next_one_is_read(self):
        process = subprocess.Popen([*our_command(), "--no-cache", "--exe", self.exe], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        try:
            for address in self.addresses[:5]:
                os.write(process.stdin.fileno(), f"{address:#x}\n".encode())
                text, deadline = b"", time.monotonic() + 30 * SLOWER
                while not text.endswith(b"\n\n"):
                    ready, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
                    self.assertTrue(ready, "no answer while standard input is open")
                    text += os.read(process.stdout.fileno(), 65536)
                self.assertIn(b"program.cc:", text)
        finally:
            process.stdin.close()
            process.stdout.close()

    def test_a_sanitizer_and_a_link_named_llvm_symbolizer(self):
        if os.environ.get("FIREWATCH_SYMBOLIZE"):
            self.skipTest("tests our own binary")
        os.symlink(our_command()[0], self.path("llvm-symbolizer"))
        self.write("crash.cc", """
            #include <cstdlib>
            static inline __attribute__((always_inline)) int inlined_read(int *p) { return p[3]; }
            __attribute__((noinline)) int reads_too_far(int *p) { return inlined_read(p); }
            int main() { int *p = (int *)malloc(4); int r = reads_too_far(p); free(p); return r; }""")
        self.build("clang++-19", "-g", "-O1", "-fsanitize=address", "crash.cc", "-o", "crash")
        done = run([self.path("crash")], check=False, env=dict(
            os.environ, ASAN_OPTIONS="detect_leaks=0", XDG_CACHE_HOME=self.path("cache"),
            ASAN_SYMBOLIZER_PATH=self.path("llvm-symbolizer")))
        self.assertRegex(done.stderr, r"#0 0x[0-9a-f]+ in inlined_read(\(int\*\))? .*crash\.cc:3")
        self.assertRegex(done.stderr, r"#1 0x[0-9a-f]+ in reads_too_far\(int\*\) .*crash\.cc:4")

    def test_go_pprof_takes_it_for_llvm_symbolizer(self):
        # pprof starts `llvm-symbolizer --inlining -demangle=false` and writes FILE ADDRESS lines.
        text = f"{self.exe} {self.addresses[0]:#x}\n{self.exe} 0x0\n"
        mine, theirs = self.both(["--inlining", "-demangle=false"], text=text)
        self.assertEqual(mine, theirs)

    def test_many_addresses_and_few_give_the_same_answers(self):
        # A few thousand are answered from an index that is built on the way.
        some = self.addresses[::len(self.addresses) // 20]
        few = ours(self.exe, some)
        many = ours(self.exe, some * 500)
        self.assertEqual(many, few * 500)

    def test_a_saved_index_answers_as_the_file_does(self):
        fresh = ours(self.exe, self.addresses)
        cache = self.path("cache")
        command = [*our_command(), "--cache", cache, "--exe", self.exe, "--output-style=JSON"]
        lines = "".join(f"{a:#x}\n" for a in self.addresses)
        first = run([*command, "--build-index"], text=lines).stdout
        saved = [os.path.join(cache, name) for name in os.listdir(cache) if name.endswith(".fwsym")]
        self.assertEqual(len(saved), 1)
        self.assertEqual(run(command, text=lines).stdout, first)
        answers = [[(s["FunctionName"], s["FileName"], s["Line"]) for s in json.loads(line)["Symbol"]]
                   for line in first.splitlines()]
        self.assertEqual(answers, [[tuple(f) for f in chain] for chain in fresh])
        # By build id alone, the file is not needed.
        note = run(["readelf", "-n", self.exe]).stdout.split("Build ID:")[1].split()[0]
        done = run([*our_command(), "--cache", cache, "--build-id", note, "--no-demangle", hex(self.table["work"].address)])
        self.assertIn("\nwork\n", "\n" + done.stdout)
        # A damaged one is built again.
        with open(saved[0], "r+b") as file:
            file.seek(200)
            file.write(b"\xff" * 100)
        self.assertEqual(run(command, text=lines).stdout, first)

    def test_starts_without_the_libraries_of_http(self):
        # They are most of what a start would cost; what asks over HTTP loads them (transport/curl_api.h).
        if os.environ.get("FIREWATCH_SYMBOLIZE"):
            self.skipTest("ours alone")
        loaded = run(["ldd", our_command()[0]]).stdout
        self.assertIn("libstdc++", loaded)
        for name in ("libcurl", "libssl", "libldap", "libgnutls", "libgrpc"):
            self.assertNotIn(name, loaded)

    def test_without_lines_the_function_of_the_symbol_table_answers(self):
        def last_functions(text):
            return [[(s["FunctionName"], s["FileName"], s["Line"]) for s in json.loads(line)["Symbol"]]
                    for line in text.splitlines()]
        fresh = ours(self.exe, self.addresses)
        expected = [[(chain[-1][0], "", 0)] for chain in fresh]
        cache = self.path("lines")
        base = [*our_command(), "--output-style=JSON", "--no-lines", "--exe", self.exe]
        run([*our_command(), "--cache", cache, "--build-index", "--exe", self.exe, "0x0"])
        for command in ([*base, "--no-cache"], [*base, "--cache", cache]):
            # Once in one go, and so often that it changes to an index.
            for addresses, chains in ((self.addresses, expected), (self.addresses * 60, expected * 60)):
                done = run(command, text="".join(f"{a:#x}\n" for a in addresses))
                self.assertEqual(last_functions(done.stdout), chains)
        # Line by line: each is a question of its own.
        process = subprocess.Popen([*base, "--no-cache"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for address, chain in list(zip(self.addresses, expected))[:40]:
            process.stdin.write(f"{address:#x}\n")
            process.stdin.flush()
            self.assertEqual(last_functions(process.stdout.readline()), [chain])
        process.stdin.close()
        self.assertEqual(process.wait(60), 0)
        process.stdout.close()
        self.assertIn(":0:0", run([*our_command(), "--no-cache", "--no-lines", "--exe", self.exe, "0x1"]).stdout)
