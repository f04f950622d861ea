// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/deferred_unwinder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "symbolizer/testing/fake_symbolizer.h"
#include "symbolizer/unwind/table_writer.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr uint64_t kApp = 0x400000;
constexpr uint64_t kLibrary = 0x7f0000000000;
constexpr uint64_t kMappingBytes = 0x4000;
// Functions by file offset, 256 bytes each; one frame of the library has 16 bytes, main 32.
constexpr uint64_t kStart = 0x100;
constexpr uint64_t kMain = 0x200;
constexpr uint64_t kWork = 0x100;
constexpr uint64_t kStackEnd = 0x7ffe00001000;  // of the copy: the end of a page
constexpr uint64_t kRedZone = 128;

using Table = std::shared_ptr<const symbolizer::MappedUnwindTable>;

fw_unwind_rule Rule(fw_cfa_kind kind, int cfa_offset) {
  fw_unwind_rule rule{};
  rule.base = FW_REGISTER_RSP;
  rule.cfa = kind;
  rule.cfa_offset = static_cast<short>(cfa_offset);
  rule.rbp_offset = FW_REGISTER_UNCHANGED;
  rule.rbx_offset = FW_REGISTER_UNCHANGED;
  return rule;
}

Table MakeTable(fw_unwind_rule first, fw_unwind_rule second, uint8_t id) {
  struct Owner {
    std::string bytes;
    symbolizer::MappedUnwindTable mapped;
  };
  symbolizer::TableSource source;
  source.id.size = 1;
  source.id.bytes[0] = id;
  source.rules = {{}, symbolizer::WordsOf(first, {}), symbolizer::WordsOf(second, {})};
  source.rows = {{0x100, 1}, {0x200, 2}, {0x300, 0}};
  auto owner = std::make_shared<Owner>();
  owner->bytes = symbolizer::EncodeUnwindTable(source);
  auto table = symbolizer::UnwindTable::Parse(std::as_bytes(std::span(owner->bytes)));
  if (!table.ok()) return nullptr;
  owner->mapped.table = *std::move(table);
  return {owner, &owner->mapped};
}

// _start -> main -> work (in a library), as a sample of its first moment: one frame, no table.
class DeferredUnwinderTest : public testing::Test {
 protected:
  DeferredUnwinderTest() {
    process_.pid = Pid{7};
    auto mappings = std::make_shared<MappingSet>();
    mappings->Add(
        {.start = kApp, .end = kApp + kMappingBytes, .file = names_.Intern(Named("/app"))});
    mappings->Add(
        {.start = kLibrary, .end = kLibrary + kMappingBytes, .file = names_.Intern(Named("/lib"))});
    process_.mappings = std::move(mappings);
    SetTable("/app", base::Unavailable("at it"));
    SetTable("/lib", base::Unavailable("at it"));
    header_.version = FW_SAMPLE_VERSION;
    header_.header_size = sizeof(fw_sample);
    header_.user_frames = 1;
    header_.stack_end = FW_STACK_END_NO_TABLE;
    registers_.ip = kLibrary + kWork + 5;
    // work: one word of its own, then the return address; main: three words, then the same.
    stack_.assign(kRedZone / 8, 0);
    stack_.insert(stack_.end(), {1, kApp + kMain + 9, 2, 3, 4, kApp + kStart + 7, 0, 0});
  }

  static symbolizer::FileIdentity Named(const std::string& path) {
    symbolizer::FileIdentity identity;
    identity.path = path;
    return identity;
  }
  void SetTable(const std::string& path, absl::StatusOr<Table> table) {
    names_.tables.insert_or_assign(path, std::move(table));
  }
  void AppTableComes() {
    SetTable("/app", MakeTable(Rule(FW_CFA_ROOT, 0), Rule(FW_CFA_OFFSET, 32), 1));
  }
  void LibraryTableComes() {
    SetTable("/lib", MakeTable(Rule(FW_CFA_OFFSET, 16), Rule(FW_CFA_OFFSET, 16), 2));
  }

  SampleRecord Sample() {
    header_.stack_bytes = static_cast<fw_u32>(stack_.size() * 8);
    registers_.start = kStackEnd - header_.stack_bytes;
    registers_.registers[FW_REGISTER_RSP] = registers_.start + kRedZone;
    words_.assign((sizeof(header_) + 8 + sizeof(registers_)) / 8, registers_.ip);
    std::memcpy(words_.data(), &header_, sizeof(header_));
    std::memcpy(words_.data() + sizeof(header_) / 8 + 1, &registers_, sizeof(registers_));
    words_.insert(words_.end(), stack_.begin(), stack_.end());
    const auto sample = ParseSample(std::as_bytes(std::span(words_)));
    return sample.ok() ? *sample : SampleRecord{};
  }
  bool Take(size_t window = 0) {
    const bool taken = unwinder_.Take(Sample(), process_, window, finished_);
    std::fill(words_.begin(), words_.end(), 0);  // the ring has taken its bytes back
    return taken;
  }

  static fw_u64 Frame(uint64_t file, uint64_t offset) {
    return FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | file << FW_FRAME_FILE_OFFSET_BITS | offset;
  }

  struct Result {
    std::vector<fw_u64> frames;
    fw_stack_end end;
    Pid pid;
    size_t window;
  };
  std::vector<Result> results_;
  const std::function<void(const SampleRecord&, const Process&, size_t)> finished_ =
      [this](const SampleRecord& sample, const Process& process, size_t window) {
        results_.push_back({{sample.user_frames.begin(), sample.user_frames.end()},
                            sample.stack_end,
                            process.pid,
                            window});
      };

  symbolizer::FakeSymbolizer names_;
  base::MetricsRegistry metrics_;
  Process process_;
  fw_sample header_{};
  fw_stack_copy registers_{};
  std::vector<fw_u64> stack_;
  std::vector<fw_u64> words_;
  DeferredUnwinder unwinder_{names_, metrics_, {.samples = 3}};
};

TEST_F(DeferredUnwinderTest, WalksASampleOnceItsTablesAreThere) {
  ASSERT_TRUE(Take(1));
  EXPECT_TRUE(results_.empty());
  LibraryTableComes();
  unwinder_.Advance(finished_);
  EXPECT_TRUE(results_.empty());
  EXPECT_EQ(unwinder_.waiting(1), 1u);
  EXPECT_EQ(unwinder_.waiting(0), 0u);
  AppTableComes();
  unwinder_.Advance(finished_);
  ASSERT_THAT(results_, SizeIs(1));
  EXPECT_THAT(results_[0].frames,
              ElementsAre(Frame(1, kWork + 5), Frame(0, kMain + 8), Frame(0, kStart + 6)));
  EXPECT_EQ(results_[0].end, FW_STACK_END_ROOT);
  EXPECT_EQ(results_[0].pid, Pid{7});
  EXPECT_EQ(results_[0].window, 1u);
  EXPECT_FALSE(unwinder_.waiting());
}

TEST_F(DeferredUnwinderTest, TablesThatAreThereNeedNoWaiting) {
  LibraryTableComes();
  AppTableComes();
  ASSERT_TRUE(Take());
  ASSERT_THAT(results_, SizeIs(1));
  EXPECT_EQ(results_[0].end, FW_STACK_END_ROOT);
}

TEST_F(DeferredUnwinderTest, AFileWithoutTableEndsTheWalkAsInTheKernel) {
  LibraryTableComes();
  SetTable("/app", base::NotFound("no CFI"));
  ASSERT_TRUE(Take());
  ASSERT_THAT(results_, SizeIs(1));
  EXPECT_THAT(results_[0].frames, ElementsAre(Frame(1, kWork + 5), Frame(0, kMain + 8)));
  EXPECT_EQ(results_[0].end, FW_STACK_END_NO_TABLE);
}

TEST_F(DeferredUnwinderTest, AWindowThatCannotWaitTakesWhatIsThere) {
  LibraryTableComes();
  ASSERT_TRUE(Take(0));
  ASSERT_TRUE(Take(1));
  unwinder_.Finish(0, finished_);
  ASSERT_THAT(results_, SizeIs(1));
  EXPECT_THAT(results_[0].frames, SizeIs(2));
  EXPECT_EQ(results_[0].window, 0u);
  EXPECT_EQ(unwinder_.waiting(1), 1u);
}

TEST_F(DeferredUnwinderTest, AStackThatGoesOnAboveItsCopyIsTruncated) {
  LibraryTableComes();
  AppTableComes();
  stack_.resize(kRedZone / 8 + 2);  // up to the return address into main
  ASSERT_TRUE(Take());
  ASSERT_THAT(results_, SizeIs(1));
  EXPECT_THAT(results_[0].frames, SizeIs(2));
  EXPECT_EQ(results_[0].end, FW_STACK_END_TRUNCATED);
}

TEST_F(DeferredUnwinderTest, ARootThatTheKernelProvedIsNotGivenUp) {
  LibraryTableComes();
  AppTableComes();
  header_.stack_end = FW_STACK_END_ROOT;
  stack_.resize(kRedZone / 8 + 2);
  ASSERT_TRUE(Take());
  ASSERT_THAT(results_, SizeIs(1));
  EXPECT_EQ(results_[0].end, FW_STACK_END_ROOT);
  EXPECT_THAT(results_[0].frames, SizeIs(1));
}

TEST_F(DeferredUnwinderTest, CopiesOfTablesGoWhenNobodyComes) {
  LibraryTableComes();
  AppTableComes();
  ASSERT_TRUE(Take());
  unwinder_.Advance(finished_);
  SetTable("/app", base::NotFound("gone"));
  ASSERT_TRUE(Take());
  EXPECT_EQ(results_.back().end, FW_STACK_END_ROOT);  // it was in use
  unwinder_.Advance(finished_);
  unwinder_.Advance(finished_);
  ASSERT_TRUE(Take());
  EXPECT_EQ(results_.back().end, FW_STACK_END_NO_TABLE);  // asked for again
}

TEST_F(DeferredUnwinderTest, WhatWaitsForOneFileAsksForItOnce) {
  ASSERT_TRUE(Take() && Take() && Take());
  names_.table_questions = 0;
  unwinder_.Advance(finished_);
  EXPECT_EQ(names_.table_questions, 1u);
  EXPECT_EQ(unwinder_.waiting(0), 3u);
  LibraryTableComes();
  unwinder_.Advance(finished_);  // all of them go on to the next file
  EXPECT_EQ(unwinder_.waiting(0), 3u);
  AppTableComes();
  names_.table_questions = 0;
  unwinder_.Advance(finished_);
  EXPECT_EQ(names_.table_questions, 1u);
  EXPECT_THAT(results_, SizeIs(3));
  EXPECT_EQ(results_[2].end, FW_STACK_END_ROOT);
}

TEST_F(DeferredUnwinderTest, KeepsNoMoreThanItMay) {
  EXPECT_TRUE(Take() && Take() && Take());
  EXPECT_FALSE(Take());
  EXPECT_TRUE(results_.empty());
  unwinder_.Finish(0, finished_);
  EXPECT_THAT(results_, SizeIs(3));
  EXPECT_TRUE(Take());
}

}  // namespace
}  // namespace firewatch::agent
