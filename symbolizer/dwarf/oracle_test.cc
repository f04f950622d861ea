// SPDX-License-Identifier: Apache-2.0
// Programs as compilers make them, against llvm-symbolizer: every address of .text must have the
// same chain of names, files and lines. The outermost name is not compared where the symbol table,
// which llvm takes it from, says more (".cold", variants of constructors).
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "symbolizer/dwarf/elf_input_for_test.h"
#include "symbolizer/dwarf/lookup.h"
#include "symbolizer/dwarf/names_for_test.h"
#include "symbolizer/index/line_build.h"
#include "symbolizer/index/line_table.h"

namespace firewatch::symbolizer {
namespace {

constexpr char kLlvm[] = "llvm-symbolizer-19";

struct Frame {
  std::string name;
  std::string file;
  std::string line;
  bool operator==(const Frame&) const = default;
};
using Chain = std::vector<Frame>;

std::ostream& operator<<(std::ostream& out, const Frame& frame) {
  return out << frame.name << " " << frame.file << ":" << frame.line;
}

bool HasTool(const std::string& name) {
  return std::system(("command -v " + name + " > /dev/null 2>&1").c_str()) == 0;
}

class OracleTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = std::filesystem::temp_directory_path() / "dwarf_oracle_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    std::filesystem::copy("symbolizer/testdata/dwarf", folder_);
    if (!HasTool(kLlvm)) GTEST_SKIP() << kLlvm << " is not installed";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Runs a command in the folder; false, with its output, when it fails.
  testing::AssertionResult Runs(const std::string& command) {
    const std::string log = folder_ + "/log";
    std::ofstream(Path("script")) << "set -e\nexport CPATH=.\n" << command << "\n";
    if (std::system(("cd " + folder_ + " && timeout 60 sh script > log 2>&1").c_str()) == 0) {
      return testing::AssertionSuccess();
    }
    std::ifstream file(log);
    return testing::AssertionFailure() << command << "\n"
                                       << std::string(std::istreambuf_iterator<char>(file), {});
  }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  static std::string OrUnknown(std::string_view text) {
    return text.empty() ? "??" : std::string(text);
  }

  // What we say. An index and a cold lookup must say the same, and the index with any number of
  // threads.
  std::vector<Chain> Ours(const DwarfInput& input, const std::vector<uint64_t>& addresses) {
    NamesForTest names;
    VectorSink section;
    const auto stats = BuildLines(input, {}, names, section);
    EXPECT_TRUE(stats.ok()) << base::ToString(stats.status());
    NamesForTest other_names;
    VectorSink other;
    EXPECT_TRUE(BuildLines(input, {.threads = 4}, other_names, other).ok());
    EXPECT_TRUE(section.bytes() == other.bytes());
    EXPECT_EQ(names.size(), other_names.size());
    const auto table = LineTable::Parse(section.bytes(), static_cast<uint32_t>(names.size()));
    EXPECT_TRUE(table.ok()) << base::ToString(table.status());
    std::vector<LookupAnswer> cold;
    dwarf::UnitCounts counts;
    EXPECT_TRUE(LookupAddresses(input, addresses, &cold, &counts).ok());

    std::vector<Chain> chains;
    for (size_t i = 0; i < addresses.size(); ++i) {
      LineFrame frames[64];
      const size_t count = table->Find(addresses[i], frames);
      Chain chain;
      Chain cold_chain;
      for (size_t k = 0; k < count; ++k) {
        const LineTable::Function function = table->FunctionAt(frames[k].function);
        chain.push_back({OrUnknown(names.NameOf(function.name)),
                         OrUnknown(names.NameOf(frames[k].file)), std::to_string(frames[k].line)});
        EXPECT_EQ(frames[k].inlined, k + 1 < count);
      }
      for (const LookupFrame& frame : cold[i].frames) {
        cold_chain.push_back(
            {OrUnknown(frame.function), OrUnknown(frame.file), std::to_string(frame.line)});
      }
      EXPECT_EQ(chain, cold_chain) << std::hex << addresses[i];
      if (chain.empty()) chain.push_back({"??", "??", "0"});
      chains.push_back(std::move(chain));
    }
    return chains;
  }

  std::vector<Chain> Llvm(const std::string& program, const std::vector<uint64_t>& addresses) {
    {
      std::ofstream file(Path("addresses"));
      for (const uint64_t address : addresses) file << "0x" << std::hex << address << "\n";
    }
    EXPECT_TRUE(Runs(std::string("env -u DEBUGINFOD_URLS ") + kLlvm +
                     " --inlines --no-demangle --obj=" + program + " < addresses > answers"));
    std::ifstream answers(Path("answers"));
    std::vector<Chain> chains;
    Chain chain;
    std::string name;
    std::string place;
    while (std::getline(answers, name)) {
      if (name.empty()) {
        chains.push_back(std::move(chain));
        chain.clear();
        continue;
      }
      std::getline(answers, place);
      place.resize(place.rfind(':'));  // the column, or the line of "??:0"
      const size_t colon = place.rfind(':');
      if (colon == std::string::npos) {
        chain.push_back({name, place, "0"});
      } else {
        chain.push_back({name, place.substr(0, colon), place.substr(colon + 1)});
      }
    }
    return chains;
  }

  // `least_inlined`: chains of two and more that there must be, so that nothing is compared with
  // nothing.
  void ExpectAgreement(const DwarfTestFiles& files, size_t least_inlined,
                       bool llvm_may_miss = false) {
    const auto input = ElfInputForTest::Open(files);
    ASSERT_TRUE(input.ok()) << base::ToString(input.status());
    std::vector<uint64_t> addresses;
    for (uint64_t i = 0; i < (*input)->text_size(); ++i) {
      addresses.push_back((*input)->text_start() + i);
    }
    const std::vector<Chain> ours = Ours((*input)->input(), addresses);
    const std::vector<Chain> theirs = Llvm(files.main, addresses);
    ASSERT_EQ(ours.size(), theirs.size());
    size_t inlined = 0;
    size_t different = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      inlined += ours[i].size() > 1 ? 1 : 0;
      Chain expected = theirs[i];
      if (ours[i].back().name == "??" && ours[i].back().file == "??" && expected.size() == 1) {
        continue;  // what the symbol table alone knows: start-up code of the C library
      }
      if (llvm_may_miss && expected.size() == 1 && expected[0].file == "??") continue;
      if (!expected.empty()) expected.back().name = ours[i].back().name;
      if (ours[i] != expected && ++different <= 5) {
        EXPECT_EQ(ours[i], expected) << std::hex << "at 0x" << addresses[i];
      }
    }
    EXPECT_EQ(different, 0u);
    EXPECT_GE(inlined, least_inlined);
  }

  std::string folder_;
};

struct Compiler {
  const char* c;
  const char* cc;
};

class CompilersTest : public OracleTest, public testing::WithParamInterface<Compiler> {
 protected:
  void SetUp() override {
    OracleTest::SetUp();
    if (!HasTool(GetParam().cc)) GTEST_SKIP() << GetParam().cc << " is not installed";
  }
  static bool IsGcc() { return GetParam().c[0] == 'g'; }
  testing::AssertionResult Compiles(const std::string& flags, const std::string& link = "") {
    return Runs(std::string(GetParam().cc) + " -c " + flags + " inlines.cc -o inlines.o && " +
                GetParam().c + " -c " + flags + " second.c -o second.o && " + GetParam().cc + " " +
                flags + " " + link + " inlines.o second.o -o program");
  }
};

INSTANTIATE_TEST_SUITE_P(Both, CompilersTest,
                         testing::Values(Compiler{"gcc", "g++"},
                                         Compiler{"clang-19", "clang++-19"}),
                         [](const auto& test) { return test.param.c[0] == 'g' ? "Gcc" : "Clang"; });

TEST_P(CompilersTest, EveryVersionAgrees) {
  for (const char* version : {"2", "3", "4", "5"}) {
    SCOPED_TRACE(version);
    ASSERT_TRUE(Compiles(std::string("-O2 -gdwarf-") + version));
    ExpectAgreement({.main = Path("program")}, 300);
  }
}

TEST_P(CompilersTest, UnoptimizedCodeAgrees) {
  ASSERT_TRUE(Compiles("-O0 -g"));
  ExpectAgreement({.main = Path("program")}, 100);
}

TEST_P(CompilersTest, SixtyFourBitFormatAgrees) {
  ASSERT_TRUE(Compiles("-O2 -gdwarf-5 -gdwarf64"));
  ExpectAgreement({.main = Path("program")}, 300);
}

TEST_P(CompilersTest, TypeUnitsArePassedOver) {
  for (const char* version : {"4", "5"}) {
    ASSERT_TRUE(Compiles(std::string("-O2 -fdebug-types-section -gdwarf-") + version));
    ExpectAgreement({.main = Path("program")}, 300);
  }
}

TEST_P(CompilersTest, SplitUnitsAgree) {
  for (const char* version : {"4", "5"}) {
    SCOPED_TRACE(version);
    ASSERT_TRUE(Compiles(std::string("-O2 -gsplit-dwarf -gdwarf-") + version));
    ExpectAgreement({.main = Path("program"), .find_dwo = true}, 300);
  }
}

TEST_P(CompilersTest, PackagedSplitUnitsAgree) {
  // Of what GCC 12 makes of DWARF 5, llvm-dwp 19 never ends and dwp 2.40 crashes.
  const std::string packer = IsGcc() ? "dwp" : "llvm-dwp-19";
  if (!HasTool(packer)) GTEST_SKIP() << packer << " is not installed";
  for (const char* version : {"4", "5"}) {
    SCOPED_TRACE(version);
    if (IsGcc() && version[0] == '5') continue;
    ASSERT_TRUE(Compiles(std::string("-O2 -gsplit-dwarf -gdwarf-") + version));
    ASSERT_TRUE(Runs(packer + " -e program -o program.dwp && rm -f *.dwo"));
    ExpectAgreement({.main = Path("program"), .dwp = Path("program.dwp")}, 300);
  }
}

TEST_P(CompilersTest, DeadCodeHidesNothing) {
  for (const char* linker : {"bfd", "gold", "lld-19"}) {
    for (const char* version : {"4", "5"}) {
      SCOPED_TRACE(std::string(linker) + version);
      // Linked low, so that what is left of dead code lies in the midst of what is not. gold leaves
      // a pair of zeros where a range was, which ends the list of DWARF 4 and the set of aranges
      // early: llvm does not find what comes behind.
      const std::string name = linker == std::string("lld-19") && IsGcc() ? "lld" : linker;
      if (!HasTool("ld." + name)) continue;
      ASSERT_TRUE(Compiles(std::string("-O2 -ffunction-sections -fno-pie -gdwarf-") + version,
                           "-no-pie -Wl,--gc-sections -fuse-ld=" + name));
      ExpectAgreement({.main = Path("program")}, 300, name == "gold");
    }
  }
}

TEST_P(CompilersTest, LinkTimeOptimizationAgrees) {
  if (!IsGcc() && !HasTool("ld.lld-19")) GTEST_SKIP() << "ld.lld-19 is not installed";
  ASSERT_TRUE(Compiles("-O2 -g -flto", IsGcc() ? "" : "-fuse-ld=lld-19"));
  ExpectAgreement({.main = Path("program")}, 300);
}

TEST_P(CompilersTest, NoTableOfRangesIsNeeded) {
  ASSERT_TRUE(Compiles("-O2 -g"));
  ASSERT_TRUE(Runs("objcopy --remove-section .debug_aranges program"));
  ExpectAgreement({.main = Path("program")}, 300);
}

TEST_P(CompilersTest, LinesAloneAgree) {
  ASSERT_TRUE(Compiles("-O2 -g1"));
  ExpectAgreement({.main = Path("program")}, 300);
}

// llvm prints empty names where dwz has moved them away, so the file before dwz is the judge.
TEST_F(OracleTest, NamesInTheSupplementaryFile) {
  if (!HasTool("dwz")) GTEST_SKIP() << "dwz is not installed";
  ASSERT_TRUE(
      Runs("g++ -O2 -g inlines.cc -o program && g++ -O2 -g -DOTHER inlines.cc -o other && "
           "cp program before && dwz -m common program other && test -s common"));
  const auto before = ElfInputForTest::Open({.main = Path("before")});
  const auto after = ElfInputForTest::Open({.main = Path("program"), .alt = Path("common")});
  const auto without = ElfInputForTest::Open({.main = Path("program")});
  ASSERT_TRUE(before.ok() && after.ok() && without.ok());
  std::vector<uint64_t> addresses;
  for (uint64_t i = 0; i < (*before)->text_size(); ++i) {
    addresses.push_back((*before)->text_start() + i);
  }
  const std::vector<Chain> expected = Ours((*before)->input(), addresses);
  EXPECT_EQ(Ours((*after)->input(), addresses), expected);
  // Without it, names are missing but chains are whole.
  const std::vector<Chain> nameless = Ours((*without)->input(), addresses);
  size_t missing = 0;
  for (size_t i = 0; i < addresses.size(); ++i) {
    ASSERT_EQ(nameless[i].size(), expected[i].size());
    for (size_t k = 0; k < expected[i].size(); ++k) {
      EXPECT_EQ(nameless[i][k].line, expected[i][k].line);
      missing += nameless[i][k].name != expected[i][k].name ? 1 : 0;
    }
  }
  EXPECT_GT(missing, 0u);
}

TEST_F(OracleTest, SplitUnitOfAnotherBuildIsNotUsed) {
  ASSERT_TRUE(
      Runs("g++ -O2 -g -gsplit-dwarf -c inlines.cc -o inlines.o && g++ inlines.o -o program "
           "&& g++ -O1 -g -gsplit-dwarf -DSTALE=1 -c inlines.cc -o inlines.o"));
  const auto input = ElfInputForTest::Open({.main = Path("program"), .find_dwo = true});
  ASSERT_TRUE(input.ok());
  NamesForTest names;
  VectorSink section;
  const auto stats = BuildLines((*input)->input(), {}, names, section);
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->units_without_dwo, 1u);
  EXPECT_EQ(stats->functions, 0u);
  EXPECT_GT(stats->rows, 0u);  // lines are in the main file
}

TEST_F(OracleTest, RustAgrees) {
  if (!HasTool("rustc")) GTEST_SKIP() << "rustc is not installed";
  ASSERT_TRUE(
      Runs("cat > program.rs <<'END'\n"
           "#[inline(always)] fn leaf(x: usize) -> usize { std::hint::black_box(x) * 3 }\n"
           "#[inline(always)] fn twice(x: usize) -> usize { leaf(x) + leaf(x + 1) }\n"
           "struct S(usize);\n"
           "impl S { #[inline(never)] fn go(&self) -> usize {\n"
           "  (0..self.0).map(|i| twice(i)).filter(|v| v % 2 == 0).sum() } }\n"
           "fn main() { println!(\"{}\", S(std::env::args().count()).go()); }\n"
           "END\n"
           "rustc -O -g -C panic=abort program.rs -o program"));
  const auto input = ElfInputForTest::Open({.main = Path("program")});
  ASSERT_TRUE(input.ok());
  // The standard library is too much to compare byte by byte.
  std::vector<uint64_t> addresses;
  for (uint64_t i = 0; i < (*input)->text_size(); i += 61) {
    addresses.push_back((*input)->text_start() + i);
  }
  const std::vector<Chain> ours = Ours((*input)->input(), addresses);
  const std::vector<Chain> theirs = Llvm("program", addresses);
  ASSERT_EQ(ours.size(), theirs.size());
  size_t different = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    Chain expected = theirs[i];
    if (ours[i].back().file == "??" && expected.size() == 1) continue;
    expected.back().name = ours[i].back().name;
    if (ours[i] != expected && ++different <= 5) {
      EXPECT_EQ(ours[i], expected) << std::hex << "at 0x" << addresses[i];
    }
  }
  EXPECT_EQ(different, 0u);
}

}  // namespace
}  // namespace firewatch::symbolizer
