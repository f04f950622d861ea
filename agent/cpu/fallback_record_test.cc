// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/fallback_record.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace firewatch::agent {
namespace {

// A record is built word by word, as the kernel lays it out.
class Words {
 public:
  Words& Add(std::initializer_list<uint64_t> more) {
    words_.insert(words_.end(), more);
    return *this;
  }
  Words& AddMany(size_t count, uint64_t first) {
    for (size_t i = 0; i < count; ++i) words_.push_back(first + i);
    return *this;
  }
  // The header's size is made to fit.
  std::span<const std::byte> Bytes(uint16_t misc = PERF_RECORD_MISC_USER) {
    perf_event_header header{.type = PERF_RECORD_SAMPLE,
                             .misc = misc,
                             .size = static_cast<uint16_t>((words_.size() + 1) * 8)};
    record_.assign(1, 0);
    std::memcpy(record_.data(), &header, sizeof(header));
    record_.insert(record_.end(), words_.begin(), words_.end());
    return std::as_bytes(std::span(record_));
  }

 private:
  std::vector<uint64_t> words_;
  std::vector<uint64_t> record_;
};

// ip, pid and tid, time, cpu.
Words Fixed() { return Words().Add({0x1000, uint64_t{43} << 32 | 42, 777, 3}); }

TEST(FallbackRecordTest, RegistersComeInDwarfOrder) {
  Words words = Fixed();
  words.Add({0}).Add({PERF_SAMPLE_REGS_ABI_64}).AddMany(17, 100).Add({16, 0xaa, 0xbb, 16});
  const auto record = ParseFallbackRecord(words.Bytes());
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(record->pid, 42u);
  EXPECT_EQ(record->tid, 43u);
  EXPECT_EQ(record->time_ns, 777u);
  EXPECT_EQ(record->cpu, 3u);
  EXPECT_FALSE(record->in_kernel);
  EXPECT_EQ(record->abi, RegisterAbi::k64);
  // ax bx cx dx si di bp sp ip r8..r15 -> ax dx cx bx si di bp sp r8..r15 ip
  const std::array<uint64_t, 17> expected = {100, 103, 102, 101, 104, 105, 106, 107, 109,
                                             110, 111, 112, 113, 114, 115, 116, 108};
  EXPECT_EQ(record->registers, expected);
  EXPECT_EQ(record->stack.size(), 16u);
  EXPECT_TRUE(record->stack_goes_on);
}

TEST(FallbackRecordTest, AStackThatEndedIsShorterThanItsCopy) {
  Words words = Fixed();
  words.Add({0}).Add({PERF_SAMPLE_REGS_ABI_64}).AddMany(17, 0).Add({16, 0xaa, 0xbb, 8});
  const auto record = ParseFallbackRecord(words.Bytes());
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(record->stack.size(), 8u);
  EXPECT_FALSE(record->stack_goes_on);
}

TEST(FallbackRecordTest, AKernelThreadHasACallChainOnly) {
  Words words = Fixed();
  words.Add({2, PERF_CONTEXT_KERNEL, 0xffffffff81000000}).Add({PERF_SAMPLE_REGS_ABI_NONE, 0});
  const auto record = ParseFallbackRecord(words.Bytes(PERF_RECORD_MISC_KERNEL));
  ASSERT_TRUE(record.ok());
  EXPECT_TRUE(record->in_kernel);
  EXPECT_EQ(record->abi, RegisterAbi::kNone);
  EXPECT_EQ(record->call_chain.size(), 16u);
  EXPECT_TRUE(record->stack.empty());
}

TEST(FallbackRecordTest, EveryShorterRecordIsRefused) {
  Words words = Fixed();
  words.Add({1, PERF_CONTEXT_KERNEL})
      .Add({PERF_SAMPLE_REGS_ABI_64})
      .AddMany(17, 0)
      .Add({16, 0xaa, 0xbb, 16});
  const auto whole = words.Bytes();
  ASSERT_TRUE(ParseFallbackRecord(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    if (size >= sizeof(perf_event_header)) {
      perf_event_header header;
      std::memcpy(&header, cut.data(), sizeof(header));
      header.size = static_cast<uint16_t>(size);
      std::memcpy(cut.data(), &header, sizeof(header));
    }
    EXPECT_FALSE(ParseFallbackRecord(cut).ok()) << size;
  }
}

TEST(FallbackRecordTest, LengthsThatContradictAreRefused) {
  Words chain = Fixed();
  chain.Add({~uint64_t{0} / 8 + 1, 0, 0, 0});
  EXPECT_FALSE(ParseFallbackRecord(chain.Bytes()).ok());
  Words stack = Fixed();
  stack.Add({0, PERF_SAMPLE_REGS_ABI_NONE, 8, 0xaa, 9});
  EXPECT_FALSE(ParseFallbackRecord(stack.Bytes()).ok()) << "more copied than there is";
}

}  // namespace
}  // namespace firewatch::agent
