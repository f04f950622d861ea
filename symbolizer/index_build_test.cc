// SPDX-License-Identifier: Apache-2.0
// Files as compilers, objcopy, dwz and dwp leave them, from descriptors to names and lines.
#include "symbolizer/index_build.h"

#include <elf.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "symbolizer/elf/elf_builder_for_test.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/object_symbols.h"
#include "symbolizer/testing/tools_for_test.h"

namespace firewatch::symbolizer {
namespace {

using testing::HasSubstr;

// Line numbers are part of the test.
constexpr char kSource[] =
    "#include <stdlib.h>\n"                                                   // 1
    "static inline __attribute__((always_inline)) int Inner(int x) {\n"       // 2
    "  return abs(x) + rand();\n"                                             // 3
    "}\n"                                                                     // 4
    "__attribute__((noinline)) static int Middle(int x) {\n"                  // 5
    "  return Inner(x) * 3;\n"                                                // 6
    "}\n"                                                                     // 7
    "__attribute__((noinline)) int Outer(int x) { return Middle(x) + 1; }\n"  // 8
    "int main(int argc, char** argv) { (void)argv; return Outer(argc); }\n";  // 9

constexpr char kChain[] = "Inner a.c:3 < Middle a.c:6";

struct Names {
  const char* elf = nullptr;
  const char* debug = nullptr;
  const char* alt = nullptr;
  const char* dwp = nullptr;
};

class IndexBuildTest : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_TOOL("gcc");
    SKIP_WITHOUT_TOOL("objcopy");
    folder_.Write("a.c", kSource);
  }

  // Opens, builds, parses what was written.
  void Build(const Names& names, ObjectOptions options = {}, int threads = 1, bool lines = true,
             int scratch = -1) {
    fds_.clear();
    const auto open = [&](const char* name) {
      if (name == nullptr) return -1;
      return fds_.emplace_back(folder_.Open(name)).get();
    };
    files_.reset();
    auto files = ObjectFiles::Open({.elf = open(names.elf),
                                    .debug = open(names.debug),
                                    .alt = open(names.alt),
                                    .dwp = open(names.dwp),
                                    .scratch = scratch},
                                   std::move(options));
    ASSERT_TRUE(files.ok()) << base::ToString(files.status());
    files_ = *std::move(files);
    const base::UniqueFd out = EmptyFile();
    auto report = BuildIndex(*files_, {.lines = lines, .threads = threads}, out.get());
    ASSERT_TRUE(report.ok()) << base::ToString(report.status());
    report_ = *report;
    auto mapped = base::MappedFile::FromFd(out.get(), "index");
    ASSERT_TRUE(mapped.ok());
    mapped_ = *std::move(mapped);
    auto index = SymbolIndex::Parse(mapped_.bytes());
    ASSERT_TRUE(index.ok()) << base::ToString(index.status());
    index_ = *index;
    EXPECT_EQ(index_.lines_state(), report_.lines);
  }

  // The address of a symbol in the file that was compiled.
  uint64_t AddressOf(std::string_view file, std::string_view symbol) {
    const base::UniqueFd fd = folder_.Open(file);
    const FdByteSource source(fd.get());
    const auto elf = ElfReader::Open(source);
    EXPECT_TRUE(elf.ok());
    const auto functions = ReadFunctionSymbols(*elf);
    EXPECT_TRUE(functions.ok());
    for (const InputSymbol& candidate : functions->symbols) {
      if (candidate.name == symbol) return candidate.start;
    }
    ADD_FAILURE() << symbol << " is not in " << file;
    return 0;
  }

  // "Inner a.c:3 < Middle a.c:6", of the first address in [start, start + 64) with an inlined
  // frame; without any: of the start.
  std::string ChainAt(uint64_t start) {
    std::string best;
    for (uint64_t address = start; address < start + 64; ++address) {
      std::array<IndexFrame, kMaxIndexFrames> frames;
      const size_t count = index_.FindAddress(address, frames);
      std::string chain;
      for (size_t i = 0; i < count; ++i) {
        if (i > 0) chain += " < ";
        chain += index_.LinkageName(frames[i].name);
        if (frames[i].line == 0) continue;
        const std::string file = index_.LinkageName(frames[i].file);
        chain += " " + file.substr(file.rfind('/') + 1) + ":" + std::to_string(frames[i].line);
      }
      if (chain == kChain) return chain;
      if (address == start || (count > 1 && best.find('<') == std::string::npos)) best = chain;
    }
    return best;
  }

  // Compiles a.c to `whole`, splits it into `stripped` (with a debug link) and `x.debug`.
  void MakePair(const std::string& flags = "") {
    folder_.Run("gcc -O2 -g " + flags + " -o whole a.c");
    folder_.Run("objcopy --only-keep-debug whole x.debug");
    folder_.Run("objcopy --strip-all --add-gnu-debuglink=x.debug whole stripped");
  }

  ToolFolder folder_;
  std::vector<base::UniqueFd> fds_;
  std::unique_ptr<ObjectFiles> files_;
  IndexBuildReport report_;
  base::MappedFile mapped_;
  SymbolIndex index_;
};

TEST_F(IndexBuildTest, WholeFileHasNamesAndLines) {
  MakePair();
  Build({.elf = "whole"});
  EXPECT_EQ(report_.lines, LinesState::kPresent) << report_.lines_reason;
  EXPECT_EQ(report_.lines_reason, "");
  EXPECT_GT(report_.rows, 0U);
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), kChain);
  EXPECT_TRUE(index_.has_segments());
}

TEST_F(IndexBuildTest, WithoutLinesNothingOfDwarfIsRead) {
  MakePair("-gz=zlib");
  Build({.elf = "stripped", .debug = "x.debug"}, {}, 1, false);
  EXPECT_EQ(report_.lines, LinesState::kNotTried);
  EXPECT_EQ(files_->inflated_bytes(), 0U);
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), "Middle");
}

TEST_F(IndexBuildTest, SeparateDebugFileGivesSymbolsAndLines) {
  MakePair();
  Build({.elf = "stripped"});
  EXPECT_EQ(report_.lines, LinesState::kNoDebugInfo);
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), "");
  Build({.elf = "stripped", .debug = "x.debug"});
  EXPECT_EQ(report_.lines, LinesState::kPresent);
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), kChain);
  EXPECT_TRUE(index_.has_segments());
  EXPECT_EQ(index_.id(), files_->elf()->reader().build_id());
}

TEST_F(IndexBuildTest, DebugFileAloneIsKeyedByAddressOnly) {
  MakePair();
  Build({.debug = "x.debug"});
  EXPECT_EQ(report_.lines, LinesState::kPresent);
  EXPECT_FALSE(index_.has_segments());
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), kChain);
}

TEST_F(IndexBuildTest, DebugFileOfAnotherBuildIsAMismatchWithTheSymbolsLeft) {
  MakePair();
  folder_.Run("gcc -O1 -g -DOTHER -o other a.c -Wl,--build-id=0x0102030405060708");
  folder_.Run("objcopy --only-keep-debug other other.debug");
  Build({.elf = "stripped", .debug = "other.debug"});
  EXPECT_EQ(report_.lines, LinesState::kMismatch);
  EXPECT_THAT(report_.lines_reason,
              HasSubstr("debug file mismatch: build id 0102030405060708, build id "));
  EXPECT_EQ(files_->debug(), nullptr);
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), "") << "a decoy must give no name";
}

TEST_F(IndexBuildTest, WithoutBuildIdTheSumDecides) {
  MakePair("-Wl,--build-id=none");
  Build({.elf = "stripped", .debug = "x.debug"});
  EXPECT_EQ(report_.lines, LinesState::kPresent) << report_.lines_reason;
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), kChain);
  // One byte more is another file.
  folder_.Write("decoy.debug", folder_.Read("x.debug") + "x");
  Build({.elf = "stripped", .debug = "decoy.debug"});
  EXPECT_EQ(report_.lines, LinesState::kMismatch);
  EXPECT_THAT(report_.lines_reason, HasSubstr("debug file mismatch: CRC"));
}

TEST_F(IndexBuildTest, CompressedDebugFilesGiveTheSameIndex) {
  MakePair();
  Build({.elf = "stripped", .debug = "x.debug"});
  const std::vector<std::byte> expected(mapped_.bytes().begin(), mapped_.bytes().end());
  std::vector<std::string> forms = {"objcopy --compress-debug-sections=zlib x.debug packed",
                                    "objcopy --compress-debug-sections=zlib-gnu x.debug packed"};
  if (HaveTool("llvm-objcopy-19")) {
    forms.emplace_back("llvm-objcopy-19 --compress-debug-sections=zstd x.debug packed");
  }
  for (const std::string& form : forms) {
    folder_.Run(form);
    Build({.elf = "stripped", .debug = "packed"});
    EXPECT_GT(files_->inflated_bytes(), 0U) << form;
    EXPECT_TRUE(expected == std::vector<std::byte>(mapped_.bytes().begin(), mapped_.bytes().end()))
        << form;
  }
}

TEST_F(IndexBuildTest, IndexIsTheSameForAnyNumberOfThreads) {
  MakePair();
  Build({.elf = "stripped", .debug = "x.debug"});
  const std::vector<std::byte> expected(mapped_.bytes().begin(), mapped_.bytes().end());
  Build({.elf = "stripped", .debug = "x.debug"}, {}, 3);
  EXPECT_TRUE(expected == std::vector<std::byte>(mapped_.bytes().begin(), mapped_.bytes().end()));
}

// What waits on disk goes into the same index, also when the disk is full at once.
TEST_F(IndexBuildTest, ScratchFileChangesNothing) {
  MakePair();
  folder_.Run("objcopy --compress-debug-sections=zlib x.debug packed");
  Build({.elf = "stripped", .debug = "packed"});
  const std::vector<std::byte> expected(mapped_.bytes().begin(), mapped_.bytes().end());
  const auto is_the_same = [&] {
    return expected == std::vector<std::byte>(mapped_.bytes().begin(), mapped_.bytes().end());
  };
  for (const int threads : {1, 3}) {
    const base::UniqueFd scratch = EmptyFile();
    Build({.elf = "stripped", .debug = "packed"}, {}, threads, true, scratch.get());
    EXPECT_TRUE(is_the_same()) << threads;
    const off_t size = ::lseek(scratch.get(), 0, SEEK_END);
    EXPECT_GT(static_cast<uint64_t>(size), files_->inflated_bytes()) << "nothing was put aside";
  }
  const base::UniqueFd full(::open("/dev/full", O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(full.valid());
  Build({.elf = "stripped", .debug = "x.debug"}, {}, 1, true, full.get());
  EXPECT_TRUE(is_the_same());
}

TEST_F(IndexBuildTest, MiniDebugInfoNamesAStrippedProgram) {
  SKIP_WITHOUT_TOOL("xz");
  MakePair();
  folder_.Run("objcopy --strip-debug --remove-section=.comment x.debug mini");
  folder_.Run("xz -k mini");
  folder_.Run("objcopy --add-section .gnu_debugdata=mini.xz stripped fedora");
  Build({.elf = "fedora"});
  EXPECT_EQ(report_.lines, LinesState::kNoDebugInfo);
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), "Middle");
  // A damaged one is as good as none.
  folder_.Write("bad.xz", folder_.Read("mini.xz").substr(0, 100));
  folder_.Run("objcopy --add-section .gnu_debugdata=bad.xz stripped damaged");
  Build({.elf = "damaged"});
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), "");
}

class DwzTest : public IndexBuildTest {
 protected:
  // Two programs of one source whose common names end up in common.dwz.
  void MakeDwz() {
    folder_.Run("gcc -O2 -g -o one a.c && gcc -O2 -g -DTWO -o two a.c");
    folder_.Run("cp one whole && dwz -m common.dwz one two");
  }
};

TEST_F(DwzTest, NamesComeFromTheCommonFile) {
  SKIP_WITHOUT_TOOL("dwz");
  MakeDwz();
  Build({.elf = "one", .alt = "common.dwz"});
  EXPECT_TRUE(files_->companion_status().ok()) << base::ToString(files_->companion_status());
  EXPECT_EQ(files_->facts().altlink, "common.dwz");
  EXPECT_EQ(report_.lines_reason, "");
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), kChain);
}

TEST_F(DwzTest, MissingCommonFileIsSaidAndTheSymbolsNameStays) {
  SKIP_WITHOUT_TOOL("dwz");
  MakeDwz();
  Build({.elf = "one"});
  EXPECT_EQ(report_.lines, LinesState::kPresent);
  EXPECT_THAT(report_.lines_reason, HasSubstr("dwz file that is missing"));
  EXPECT_THAT(ChainAt(AddressOf("whole", "Middle")), HasSubstr("Middle a.c:6"));
}

TEST_F(DwzTest, CommonFileOfAnotherRunIsLeftOut) {
  SKIP_WITHOUT_TOOL("dwz");
  MakeDwz();
  folder_.Run("gcc -O1 -g -o three a.c && gcc -O1 -g -o four a.c && dwz -m other.dwz three four");
  // Two runs over alike programs may agree in all bytes, and then it is the right file.
  if (folder_.Read("other.dwz") == folder_.Read("common.dwz")) GTEST_SKIP() << "the same file";
  Build({.elf = "one", .alt = "other.dwz"});
  EXPECT_THAT(report_.lines_reason, HasSubstr("dwz file mismatch: build id"));
  EXPECT_THAT(ChainAt(AddressOf("whole", "Middle")), HasSubstr("Middle a.c:6"));
}

class SplitDwarfTest : public IndexBuildTest {
 protected:
  // Opens .dwo files by their last part in the test's folder; remembers what was asked for.
  ObjectOptions WithDwo(std::string_view folder = "") {
    ObjectOptions options;
    options.open_dwo = [this, folder = std::string(folder)](std::string_view name,
                                                            std::string_view directory) {
      asked_.push_back(std::string(directory) + " " + std::string(name));
      const std::string file(name.substr(name.rfind('/') + 1));
      return base::UniqueFd(
          ::open((folder_.At(folder) + "/" + file).c_str(), O_RDONLY | O_CLOEXEC));
    };
    return options;
  }
  std::vector<std::string> asked_;
};

TEST_F(SplitDwarfTest, DwoFilesOfGccAreOpenedByName) {
  for (const char* version : {"-gdwarf-4", "-gdwarf-5"}) {
    asked_.clear();
    folder_.Run(std::string("gcc -O2 -g -gsplit-dwarf -o whole a.c ") + version);
    Build({.elf = "whole"}, WithDwo());
    ASSERT_EQ(asked_.size(), 1U) << version;
    EXPECT_THAT(asked_[0], HasSubstr(folder_.path()));
    EXPECT_EQ(report_.units_without_dwo, 0U);
    EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), kChain) << version;
  }
}

TEST_F(SplitDwarfTest, MissingDwoIsCountedAndLinesStay) {
  folder_.Run("gcc -O2 -g -gsplit-dwarf -o whole a.c");
  Build({.elf = "whole"}, WithDwo("nowhere"));
  EXPECT_EQ(report_.units_without_dwo, 1U);
  EXPECT_EQ(report_.lines_reason, "1 units without their .dwo");
  EXPECT_THAT(ChainAt(AddressOf("whole", "Middle")), HasSubstr("Middle a.c:"));
}

TEST_F(SplitDwarfTest, StaleDwoIsNotUsed) {
  SKIP_WITHOUT_TOOL("clang-19");
  folder_.Run("clang-19 -O2 -g -gsplit-dwarf -c a.c -o a.o && clang-19 a.o -o whole");
  folder_.Run(
      "mkdir stale && sed s/Inner/Decoy/g a.c >b.c && "
      "clang-19 -O2 -g -gsplit-dwarf -c b.c -o b.o && mv b.dwo stale/a.dwo");
  Build({.elf = "whole"}, WithDwo("stale"));
  EXPECT_EQ(report_.units_without_dwo, 1U);
  EXPECT_THAT(ChainAt(AddressOf("whole", "Middle")), testing::Not(HasSubstr("Decoy")));
}

TEST_F(SplitDwarfTest, PackageIsEnough) {
  SKIP_WITHOUT_TOOL("clang-19");
  SKIP_WITHOUT_TOOL("llvm-dwp-19");
  folder_.Run("clang-19 -O2 -g -gsplit-dwarf -c a.c -o a.o && clang-19 a.o -o whole");
  folder_.Run("llvm-dwp-19 -e whole -o whole.dwp && rm a.dwo");
  Build({.elf = "whole", .dwp = "whole.dwp"}, WithDwo());
  EXPECT_EQ(report_.units_without_dwo, 0U) << report_.lines_reason;
  EXPECT_THAT(asked_, testing::IsEmpty());
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), kChain);
}

TEST_F(IndexBuildTest, MoreThanMayBeInflatedIsOverBudgetAndSymbolsStay) {
  MakePair();
  folder_.Run("objcopy --compress-debug-sections=zlib whole packed");
  ObjectOptions options;
  options.max_inflated_bytes = 100;
  Build({.elf = "packed"}, std::move(options));
  EXPECT_EQ(report_.lines, LinesState::kOverBudget) << report_.lines_reason;
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), "Middle");
}

TEST_F(IndexBuildTest, DamagedSectionsAreSaidAndSymbolsStay) {
  MakePair();
  folder_.Run(
      "head -c 2000 /dev/zero >zeros && "
      "objcopy --update-section .debug_info=zeros whole damaged");
  Build({.elf = "damaged"});
  EXPECT_EQ(report_.lines, LinesState::kDamaged) << report_.lines_reason;
  EXPECT_EQ(ChainAt(AddressOf("whole", "Middle")), "Middle");
}

TEST_F(IndexBuildTest, SymbolsAloneNameWhatTheIndexNames) {
  MakePair("-gz=zlib");
  Build({.elf = "stripped", .debug = "x.debug"}, {}, 1, false);
  const auto symbols = ObjectSymbols::Read(*files_);
  ASSERT_TRUE(symbols.ok());
  EXPECT_EQ(files_->inflated_bytes(), 0U);
  const uint64_t middle = AddressOf("whole", "Middle");
  int named = 0;
  for (uint64_t address = middle - 0x400; address < middle + 0x400; ++address) {
    const auto expected = index_.SymbolAt(address);
    const auto alone = ObjectSymbols::ReadAt(*files_, std::span(&address, 1));
    ASSERT_TRUE(alone.ok());
    for (const auto& found : {symbols->At(address), alone->At(address)}) {
      ASSERT_EQ(found.has_value(), expected.has_value()) << address;
      if (!found) continue;
      ++named;
      EXPECT_EQ(found->name, index_.LinkageName(expected->name)) << address;
      EXPECT_EQ(found->start, expected->start) << address;
      EXPECT_EQ(found->continued, (expected->flags & kContinued) != 0) << address;
    }
  }
  EXPECT_GT(named, 20);
}

// Symbols that overlap, nest, share bytes, have no size, and data among code, drawn at random: who
// reads only what the asked addresses need says what who reads everything says.
TEST_F(IndexBuildTest, AFewAddressesAreNamedAsAllAre) {
  std::mt19937 random(20261122);
  const auto below = [&](int limit) { return std::uniform_int_distribution<>(0, limit)(random); };
  for (int round = 0; round < 200; ++round) {
    constexpr uint64_t text = 0x1000;
    ElfBuilder builder;
    builder.Load(0x200, text, 256, 256);
    const uint16_t section = builder.Text(text, 0x200, 256);
    const int count = 1 + below(12);
    for (int i = 0; i < count; ++i) {
      const auto start = text + static_cast<uint64_t>(below(255));
      const auto size = static_cast<uint64_t>(below(3) == 0 ? 0 : below(64));
      builder.Symbol(below(9) == 0 ? "" : std::string(1, static_cast<char>('a' + i)), start, size,
                     section, below(7) == 0 ? STT_OBJECT : STT_FUNC,
                     below(2) == 0 ? STB_LOCAL : STB_GLOBAL);
    }
    const std::string bytes = builder.Build(1024);
    const SpanByteSource source(std::as_bytes(std::span(bytes)));
    const auto files = ObjectFiles::OfSource(source, {});
    ASSERT_TRUE(files.ok()) << base::Message(files.status());
    const auto all = ObjectSymbols::Read(**files);
    ASSERT_TRUE(all.ok());
    std::vector<uint64_t> some;
    for (uint64_t address = text - 1; address < text + 258; ++address) {
      if (below(3) == 0) some.push_back(address);
    }
    const auto few = ObjectSymbols::ReadAt(**files, some);
    ASSERT_TRUE(few.ok());
    for (uint64_t address = text - 1; address < text + 258; ++address) {
      const auto alone = ObjectSymbols::ReadAt(**files, std::span(&address, 1));
      ASSERT_TRUE(alone.ok());
      const auto expected = all->At(address);
      const bool asked = std::binary_search(some.begin(), some.end(), address);
      for (const auto& found : {alone->At(address), asked ? few->At(address) : expected}) {
        ASSERT_EQ(found.has_value(), expected.has_value()) << round << " " << address - text;
        if (!found) continue;
        EXPECT_EQ(found->name, expected->name) << round << " " << address - text;
        EXPECT_EQ(found->start, expected->start) << round << " " << address - text;
        EXPECT_EQ(found->continued, expected->continued) << round << " " << address - text;
      }
    }
  }
}

TEST_F(IndexBuildTest, TextIsNoElfFile) {
  const base::UniqueFd fd = folder_.Open("a.c");
  EXPECT_EQ(ObjectFiles::Open({.elf = fd.get()}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ObjectFiles::Open({}, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace firewatch::symbolizer
