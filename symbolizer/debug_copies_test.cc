// SPDX-License-Identifier: Apache-2.0
// Copies without code, made by the true helper: what names are made of is there, the rest is not.
#include "symbolizer/debug_copies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "symbolizer/debug_copy.h"
#include "symbolizer/index_build.h"
#include "symbolizer/testing/tools_for_test.h"

namespace firewatch::symbolizer {
namespace {

using testing::HasSubstr;

constexpr char kSource[] =
    "static inline __attribute__((always_inline)) int Inlined(int x) { return x * 3; }\n"
    "__attribute__((noinline)) int Function(int x) { return Inlined(x) + 1; }\n"
    "const char kSecret[] = \"no name is made of this text\";\n"
    "int data[64] = {7, 7, 7};\n"
    "int main(int argc, char** argv) { (void)argv; return Function(argc) + data[argc] + "
    "kSecret[argc]; }\n";

class DebugCopiesTest : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_TOOL("gcc");
    SKIP_WITHOUT_TOOL("objcopy");
    folder_.Write("a.c", kSource);
    folder_.Run("gcc -O1 -g -Wl,--build-id=0xabcdef -o whole a.c");
    folder_.Run("objcopy --only-keep-debug whole x.debug");
    folder_.Run("objcopy --strip-all --add-gnu-debuglink=x.debug whole linked");
    folder_.Run("objcopy --strip-all whole bare && objcopy --strip-debug whole symbols");
  }
  // Found through the own root: no process has it mapped.
  FileUse UseOf(const std::string& name) {
    struct stat info{};
    EXPECT_EQ(::stat(folder_.At(name).c_str(), &info), 0);
    return {.file = {.path = folder_.At(name), .build_id = BuildId::FromHex("abcdef")},
            .id = BuildId::FromHex("abcdef"),
            .pid = static_cast<uint32_t>(::getpid())};
  }
  DebugCopies Make(uint64_t max_file_bytes = uint64_t{1} << 30) {
    return DebugCopies({.directory = folder_.path(), .max_file_bytes = max_file_bytes}, clock_,
                       metrics_);
  }
  static std::string BytesOf(int fd) {
    std::string bytes(static_cast<size_t>(::lseek(fd, 0, SEEK_END)), '\0');
    EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  static std::string IndexOf(int fd) {
    auto files = ObjectFiles::Open({.elf = fd}, {});
    EXPECT_TRUE(files.ok());
    const base::UniqueFd out = EmptyFile();
    const auto report = BuildIndex(**files, {.lines = true}, out.get());
    EXPECT_TRUE(report.ok());
    EXPECT_GT(report.ok() ? report->rows : 0, 0u);
    return BytesOf(out.get());
  }

  ToolFolder folder_;
  base::SystemClock clock_;
  base::MetricsRegistry metrics_;
  const std::atomic<bool> stop_{false};
};

TEST_F(DebugCopiesTest, ACopyHasSectionsAndSymbolsAndNoCode) {
  DebugCopies copies = Make();
  auto sources = copies.Find(UseOf("whole"), stop_);
  ASSERT_TRUE(sources.ok()) << base::ToString(sources.status());
  ASSERT_EQ(sources->size(), 1u);
  EXPECT_TRUE(sources->front().is_executable && sources->front().has_lines);
  const auto copy = copies.Copy(sources->front(), stop_);
  ASSERT_TRUE(copy.ok()) << base::ToString(copy.status());

  const std::string original = folder_.Read("whole");
  const std::string made = BytesOf(copy->get());
  ASSERT_EQ(made.size(), original.size());
  EXPECT_THAT(original, HasSubstr("no name is made of"));
  EXPECT_EQ(made.find("no name is made of"), std::string::npos);
  const FdByteSource source(sources->front().fd.get());
  const FdByteSource copied(copy->get());
  const auto elf = ElfReader::Open(source);
  const auto elf_copy = ElfReader::Open(copied);
  ASSERT_TRUE(elf.ok() && elf_copy.ok());
  ASSERT_EQ(elf->sections().size(), elf_copy->sections().size());
  // Every byte is that of the file, or lies in a blank section and is zero.
  const BlankRanges ranges = BlankRangesOf(*elf);
  EXPECT_GE(ranges.size(), 4u);
  size_t wrong = 0;
  for (size_t at = 0; at < made.size(); ++at) {
    const bool blank = std::ranges::any_of(
        ranges, [at](const auto& range) { return at >= range.first && at < range.second; });
    if (made[at] != (blank ? '\0' : original[at])) ++wrong;
  }
  EXPECT_EQ(wrong, 0u);
  for (const char* name : {".text", ".rodata", ".data"}) {
    const ElfSection* section = elf->SectionNamed(name);
    ASSERT_NE(section, nullptr) << name;
    EXPECT_EQ(made.substr(section->file_offset, section->size).find_first_not_of('\0'),
              std::string::npos)
        << name;
  }
  EXPECT_EQ(IndexOf(copy->get()), IndexOf(sources->front().fd.get()));
}

TEST_F(DebugCopiesTest, ADebugFileComesBeforeItsProgram) {
  DebugCopies copies = Make();
  auto sources = copies.Find(UseOf("linked"), stop_);
  ASSERT_TRUE(sources.ok()) << base::ToString(sources.status());
  ASSERT_EQ(sources->size(), 2u);
  EXPECT_FALSE((*sources)[0].is_executable);
  EXPECT_TRUE((*sources)[0].has_lines);
  EXPECT_TRUE((*sources)[1].is_executable);
  const auto copy = copies.Copy((*sources)[0], stop_);
  ASSERT_TRUE(copy.ok()) << base::ToString(copy.status());
  EXPECT_EQ(BytesOf(copy->get()), folder_.Read("x.debug"));
}

TEST_F(DebugCopiesTest, TheCommonFileOfDwzComesBeforeAll) {
  SKIP_WITHOUT_TOOL("dwz");
  folder_.Run("cp whole one && gcc -O1 -g -DTWO -o two a.c && dwz -m common one two");
  DebugCopies copies = Make();
  auto sources = copies.Find(UseOf("one"), stop_);
  ASSERT_TRUE(sources.ok()) << base::ToString(sources.status());
  ASSERT_EQ(sources->size(), 2u);
  EXPECT_TRUE((*sources)[0].is_common);
  EXPECT_EQ((*sources)[0].id.size, 20);
  EXPECT_TRUE((*sources)[1].is_executable);
  const auto copy = copies.Copy((*sources)[0], stop_);
  ASSERT_TRUE(copy.ok()) << base::ToString(copy.status());
  EXPECT_EQ(BytesOf(copy->get()), folder_.Read("common"));
  // Of a debug file likewise; one that is not there is left out.
  folder_.Run("objcopy --only-keep-debug one x.debug");
  auto linked = copies.Find(UseOf("linked"), stop_);
  ASSERT_TRUE(linked.ok()) << base::ToString(linked.status());
  ASSERT_EQ(linked->size(), 3u);
  EXPECT_TRUE((*linked)[0].is_common);
  folder_.Run("rm common");
  auto without = copies.Find(UseOf("linked"), stop_);
  ASSERT_TRUE(without.ok());
  EXPECT_EQ(without->size(), 2u);
}

TEST_F(DebugCopiesTest, SymbolsAloneAreOfferedAndNothingIsNot) {
  DebugCopies copies = Make();
  const auto symbols = copies.Find(UseOf("symbols"), stop_);
  ASSERT_TRUE(symbols.ok()) << base::ToString(symbols.status());
  ASSERT_EQ(symbols->size(), 1u);
  EXPECT_FALSE(symbols->front().has_lines);
  EXPECT_EQ(copies.Find(UseOf("bare"), stop_).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(DebugCopiesTest, OtherBuildsLargeFilesAndStopsAreRefused) {
  DebugCopies copies = Make(100);
  auto sources = copies.Find(UseOf("whole"), stop_);
  ASSERT_TRUE(sources.ok());
  EXPECT_EQ(copies.Copy(sources->front(), stop_).status().code(),
            absl::StatusCode::kResourceExhausted);
  FileUse other = UseOf("whole");
  other.id = other.file.build_id = BuildId::FromHex("1234");
  EXPECT_EQ(copies.Find(other, stop_).status().code(), absl::StatusCode::kNotFound);
  folder_.Write("whole", "no ELF file");
  EXPECT_EQ(copies.Find(UseOf("whole"), stop_).status().code(), absl::StatusCode::kInvalidArgument);
  const std::atomic<bool> stopped = true;
  EXPECT_EQ(copies.Find(UseOf("symbols"), stopped).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace firewatch::symbolizer
