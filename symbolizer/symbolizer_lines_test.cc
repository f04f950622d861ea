// SPDX-License-Identifier: Apache-2.0
// Names first, lines later, through the true helper: libraries made from testdata/inlined.c.
#include <dlfcn.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "symbolizer/cpu_budget.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;

class SymbolizerLinesTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.cache_directory = directory_ + "/cache";
    Restart();
  }
  void TearDown() override {
    symbolizer_.reset();
    for (void* library : libraries_) ::dlclose(library);
    fs::remove_all(directory_);
  }
  static std::string MakeDirectory() {
    std::string path = "/tmp/symbolizer_lines_test-XXXXXX";
    return ::mkdtemp(path.data()) == nullptr ? "" : path;
  }
  void Restart() {
    symbolizer_.reset();
    auto created = Symbolizer::Create(options_, metrics_);
    ASSERT_TRUE(created.ok());
    symbolizer_ = *std::move(created);
  }
  std::string CopyOf(const std::string& fixture) {
    const std::string path = directory_ + "/" + fixture;
    fs::copy_file(std::string(FIREWATCH_FIXTURES) + "/" + fixture, path);
    return path;
  }

  // Loads the library, asks for its names and waits for those, not for lines. The address in
  // InlinedLeaf is `offset_` in `file_`.
  void Load(const std::string& path) {
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(library, nullptr) << ::dlerror();
    libraries_.push_back(library);
    auto* leaf_address = reinterpret_cast<uint64_t (*)()>(::dlsym(library, "LeafAddress"));
    ASSERT_NE(leaf_address, nullptr);
    address_ = leaf_address();
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      uint64_t start = 0, end = 0, file_offset = 0, inode = 0;
      unsigned device_major = 0, device_minor = 0;
      char permissions[8] = {};
      if (std::sscanf(line.c_str(), "%lx-%lx %7s %lx %x:%x %lu", &start, &end, permissions,
                      &file_offset, &device_major, &device_minor, &inode) != 7 ||
          address_ < start || address_ >= end) {
        continue;
      }
      start_ = start;
      end_ = end;
      offset_ = address_ - start + file_offset;
      identity_ = {.path = path,
                   .build_id = {},
                   .device_major = device_major,
                   .device_minor = device_minor,
                   .inode = inode};
    }
    Ask();
  }
  void Ask() {
    file_ = symbolizer_->Intern(identity_);
    symbolizer_->Request(file_, static_cast<uint32_t>(::getpid()), 0, start_, end_);
    for (int i = 0; i < 600 && symbolizer_->Poll(100) > 0; ++i) {
    }
  }
  void WaitForLines() { ASSERT_TRUE(symbolizer_->WaitForLines(60'000)); }

  // "name file:line from start_line" per frame, innermost first; the file without its directory.
  std::vector<std::string> Frames() {
    std::vector<SymbolFrame> frames;
    reason_ = symbolizer_->Lookup(file_, offset_, &frames);
    std::vector<std::string> out;
    for (const SymbolFrame& frame : frames) {
      out.push_back(frame.line == 0
                        ? std::string(frame.name)
                        : fmt::format("{} {}:{} from {}", frame.name,
                                      fs::path(std::string(frame.file)).filename().string(),
                                      frame.line, frame.start_line));
    }
    return out;
  }
  static auto WholeChain() {
    return ElementsAre("InlinedLeaf inlined.c:9 from 8", "InlinedMiddle inlined.c:14 from 13",
                       "PhysicalOuter inlined.c:19 from 18");
  }
  double Metric(const std::string& line) const {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + line + " ");
    return at == std::string::npos ? -1 : std::atof(page.c_str() + at + line.size() + 2);
  }

  const std::string directory_ = MakeDirectory();
  base::MetricsRegistry metrics_;
  SymbolizerOptions options_;
  std::unique_ptr<Symbolizer> symbolizer_;
  std::vector<void*> libraries_;
  FileIdentity identity_;
  uint64_t start_ = 0, end_ = 0, offset_ = 0, address_ = 0;
  FileId file_{};
  NameReason reason_ = NameReason::kNone;
};

TEST_F(SymbolizerLinesTest, SymbolsComeFirstAndWithoutBudgetAlone) {
  options_.lines_budget = {.share = 0, .burst_seconds = 0};
  Restart();
  Load(CopyOf("libinlined.so"));
  EXPECT_THAT(Frames(), ElementsAre("PhysicalOuter"));
  EXPECT_EQ(symbolizer_->Info(file_).no_lines, NameReason::kPending);
  EXPECT_TRUE(symbolizer_->WaitForLines(100));  // nothing that could be had
  EXPECT_THAT(Frames(), ElementsAre("PhysicalOuter"));
}

TEST_F(SymbolizerLinesTest, LinesAndInlinedFunctionsFollow) {
  Load(CopyOf("libinlined.so"));
  WaitForLines();
  EXPECT_THAT(Frames(), WholeChain());
  EXPECT_EQ(symbolizer_->Info(file_).no_lines, NameReason::kNone);
  EXPECT_EQ(symbolizer_->Info(file_).reason, "");
  EXPECT_EQ(Metric("firewatch_symbol_line_files_total{result=\"built\"}"), 1);
  EXPECT_EQ(symbolizer_->SegmentsOf(file_).size(), 1u);
}

TEST_F(SymbolizerLinesTest, AnotherStartFindsThemInTheCache) {
  Load(CopyOf("libinlined.so"));
  WaitForLines();
  Restart();
  Ask();
  EXPECT_THAT(Frames(), WholeChain());
  EXPECT_EQ(Metric("firewatch_symbol_line_files_total{result=\"built\"}"), 1);
}

TEST_F(SymbolizerLinesTest, LinesCanBeSwitchedOff) {
  options_.lines = false;
  Restart();
  Load(CopyOf("libinlined.so"));
  EXPECT_TRUE(symbolizer_->WaitForLines(60'000));
  EXPECT_THAT(Frames(), ElementsAre("PhysicalOuter"));
  EXPECT_EQ(symbolizer_->Info(file_).no_lines, NameReason::kLinesOff);
}

TEST_F(SymbolizerLinesTest, SwitchedOffLinesOfTheCacheAreNotShown) {
  Load(CopyOf("libinlined.so"));
  WaitForLines();
  options_.lines = false;
  Restart();
  Ask();
  EXPECT_THAT(Frames(), ElementsAre("PhysicalOuter"));
  EXPECT_EQ(symbolizer_->Info(file_).no_lines, NameReason::kLinesOff);
}

TEST_F(SymbolizerLinesTest, StrippedFileIsNamedByItsDebugFile) {
  fs::create_directory(directory_ + "/.debug");
  fs::rename(CopyOf("libinlined.debug"), directory_ + "/.debug/libinlined.debug");
  Load(CopyOf("libinlined_stripped.so"));
  WaitForLines();
  EXPECT_THAT(Frames(), WholeChain());
}

TEST_F(SymbolizerLinesTest, DebugFileOfAnotherBuildIsNotUsed) {
  fs::copy_file(CopyOf("libother.so"), directory_ + "/libinlined.debug");
  Load(CopyOf("libinlined_stripped.so"));
  WaitForLines();
  EXPECT_THAT(Frames(), ElementsAre());
  EXPECT_EQ(reason_, NameReason::kDebugMismatch);
  const FileInfo info = symbolizer_->Info(file_);
  EXPECT_EQ(info.no_lines, NameReason::kDebugMismatch);
  EXPECT_THAT(std::string(info.reason), HasSubstr("libinlined.debug is of another build"));
}

TEST_F(SymbolizerLinesTest, FifoInPlaceOfADebugFileDoesNotHang) {
  ASSERT_EQ(::mkfifo((directory_ + "/libinlined.debug").c_str(), 0600), 0);
  Load(CopyOf("libinlined_stripped.so"));
  WaitForLines();
  EXPECT_EQ(symbolizer_->Info(file_).no_lines, NameReason::kNoDebugInfo);
}

TEST_F(SymbolizerLinesTest, FileWithoutAnythingSaysSo) {
  Load(CopyOf("libinlined_stripped.so"));
  WaitForLines();
  EXPECT_EQ(symbolizer_->Info(file_).no_lines, NameReason::kNoDebugInfo);
  EXPECT_EQ(Metric("firewatch_symbol_line_files_total{result=\"without\"}"), 1);
  // Remembered: it is not looked for again.
  Ask();
  WaitForLines();
  EXPECT_EQ(Metric("firewatch_symbol_line_files_total{result=\"without\"}"), 1);
}

TEST_F(SymbolizerLinesTest, FileWithoutABuildIdIsCalledByItsContent) {
  Load(CopyOf("libinlined_no_id.so"));
  EXPECT_EQ(symbolizer_->Info(file_).build_id, "");
  const std::string id(symbolizer_->Info(file_).content_id);
  EXPECT_THAT(id, testing::StartsWith("pseudo-"));
  WaitForLines();
  EXPECT_THAT(Frames(), WholeChain());
  EXPECT_EQ(symbolizer_->Info(file_).content_id, id);
}

TEST(CpuBudgetTest, FullAtTheBeginningThenAShare) {
  constexpr uint64_t kSecond = 1'000'000'000;
  CpuBudget budget({.share = 0.01, .burst_seconds = 5}, 0);
  EXPECT_TRUE(budget.Allows(0));
  budget.Spend(6 * kSecond);
  EXPECT_FALSE(budget.Allows(kSecond));
  EXPECT_FALSE(budget.Allows(99 * kSecond));
  EXPECT_TRUE(budget.Allows(102 * kSecond));
  // Idle for a day: no more than the bucket holds.
  EXPECT_TRUE(budget.Allows(86'400 * kSecond));
  budget.Spend(6 * kSecond);
  EXPECT_FALSE(budget.Allows(86'400 * kSecond));
  EXPECT_NEAR(budget.SecondsToWait(), 100, 1e-3);
}

}  // namespace
}  // namespace firewatch::symbolizer
