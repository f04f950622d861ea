// SPDX-License-Identifier: Apache-2.0
// This very process is unwound: registers and a copy of its stack are taken in a known place.
#include "agent/cpu/fallback_unwinder.h"

#include <gtest/gtest.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/metrics.h"

namespace firewatch::agent {
namespace {

struct Copy {
  ThreadState state;
  std::vector<std::byte> stack;
  uint64_t caller = 0;  // return addresses of the two innermost functions
  uint64_t callers_caller = 0;
};

// No redzones around it, and nothing that a sanitizer would say about a copy of the whole stack.
// As far as the stack of this thread goes (the environment lies above it), at most 48 KiB.
[[gnu::noinline, clang::no_sanitize("address", "undefined")]] void TakeCopy(Copy* copy) {
  ucontext_t context;
  getcontext(&context);
  const auto at = [&](int number) {
    return static_cast<uint64_t>(context.uc_mcontext.gregs[number]);
  };
  copy->state.registers = {at(REG_RAX), at(REG_RDX), at(REG_RCX), at(REG_RBX), at(REG_RSI),
                           at(REG_RDI), at(REG_RBP), at(REG_RSP), at(REG_R8),  at(REG_R9),
                           at(REG_R10), at(REG_R11), at(REG_R12), at(REG_R13), at(REG_R14),
                           at(REG_R15), at(REG_RIP)};
  copy->state.stack_start = at(REG_RSP);
  copy->caller = reinterpret_cast<uint64_t>(__builtin_return_address(0));
  const auto end = reinterpret_cast<uint64_t>(environ[0]);
  const size_t bytes = std::min<size_t>(48 * 1024, end - at(REG_RSP)) & ~size_t{7};
  const auto* from = reinterpret_cast<const std::byte*>(at(REG_RSP));
  for (size_t i = 0; i < bytes; ++i) copy->stack[i] = from[i];
  copy->state.stack = std::span(copy->stack).first(bytes);
}

[[gnu::noinline]] void Outer(Copy* copy) {
  copy->callers_caller = reinterpret_cast<uint64_t>(__builtin_return_address(0));
  TakeCopy(copy);
  asm volatile("" ::: "memory");
}

class StackUnwinderTest : public testing::Test {
 protected:
  void SetUp() override {
    auto created = symbolizer::Symbolizer::Create({}, metrics_);
    ASSERT_TRUE(created.ok());
    symbolizer_ = *std::move(created);
    table_ = std::make_unique<ProcessTable>(ProcessTableOptions(), *symbolizer_, metrics_);
    unwinder_ = std::make_unique<StackUnwinder>(*symbolizer_);
    copy_.stack.resize(64 * 1024);
  }
  const Process& Self() {
    return table_->ForSample(Pid{static_cast<uint32_t>(::getpid())}, 1, "test", 0, false);
  }
  // Where in the copy this return address lies.
  size_t PlaceOf(uint64_t address) const {
    for (size_t at = 0; at + 8 <= copy_.state.stack.size(); at += 8) {
      if (std::memcmp(copy_.state.stack.data() + at, &address, 8) == 0) return at;
    }
    return 0;
  }

  base::MetricsRegistry metrics_;
  std::unique_ptr<symbolizer::Symbolizer> symbolizer_;
  std::unique_ptr<ProcessTable> table_;
  std::unique_ptr<StackUnwinder> unwinder_;
  Copy copy_;
};

TEST_F(StackUnwinderTest, FindsItsCallersUpToTheProvenRoot) {
  Outer(&copy_);
  std::vector<fw_u64> frames;
  EXPECT_EQ(unwinder_->Unwind(Self(), copy_.state, frames), FW_STACK_END_ROOT);
  ASSERT_GT(frames.size(), 6u);
  EXPECT_EQ(frames[0], copy_.state.registers[ThreadState::kRip]) << "the leaf is as it is";
  EXPECT_EQ(frames[1], copy_.caller - 1) << "a return address lies inside its call";
  EXPECT_EQ(frames[2], copy_.callers_caller - 1);
}

TEST_F(StackUnwinderTest, TheSameAgainFromItsCache) {
  Outer(&copy_);
  std::vector<fw_u64> first;
  std::vector<fw_u64> second;
  EXPECT_EQ(unwinder_->Unwind(Self(), copy_.state, first), FW_STACK_END_ROOT);
  EXPECT_EQ(unwinder_->Unwind(Self(), copy_.state, second), FW_STACK_END_ROOT);
  EXPECT_EQ(first, second);
  EXPECT_GT(unwinder_->cached_bytes(), 0u);
}

TEST_F(StackUnwinderTest, AStackThatGoesOnBeyondItsCopyIsTruncated) {
  Outer(&copy_);
  std::vector<fw_u64> whole;
  unwinder_->Unwind(Self(), copy_.state, whole);
  copy_.state.stack = copy_.state.stack.first(PlaceOf(copy_.callers_caller));
  copy_.state.stack_goes_on = true;
  std::vector<fw_u64> frames;
  EXPECT_EQ(unwinder_->Unwind(Self(), copy_.state, frames), FW_STACK_END_TRUNCATED);
  EXPECT_LT(frames.size(), whole.size());
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[1], copy_.caller - 1);
}

TEST_F(StackUnwinderTest, AStackThatCouldNotBeReadIsABadRead) {
  Outer(&copy_);
  copy_.state.stack = {};
  std::vector<fw_u64> frames;
  EXPECT_EQ(unwinder_->Unwind(Self(), copy_.state, frames), FW_STACK_END_BAD_READ);
  EXPECT_EQ(frames.size(), 1u);
}

TEST_F(StackUnwinderTest, CodeInNoMappingSaysSo) {
  Outer(&copy_);
  copy_.state.registers[ThreadState::kRip] = 0x10;
  copy_.state.registers[FW_REGISTER_RBP] = 0x20;  // no frame to guess by either
  std::vector<fw_u64> frames;
  const fw_stack_end end = unwinder_->Unwind(Self(), copy_.state, frames);
  EXPECT_NE(end, FW_STACK_END_ROOT);
  EXPECT_TRUE(unwinder_->met_unmapped());
  EXPECT_EQ(frames.size(), 1u);
}

// As the stacks of fuzzers and of code without tables have it.
TEST_F(StackUnwinderTest, AReturnAddressThatIsNoneEndsTheStack) {
  Outer(&copy_);
  const uint64_t garbage = FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | 0x7777'0000'1234;
  std::vector<std::byte> stack(copy_.state.stack.begin(), copy_.state.stack.end());
  std::memcpy(stack.data() + PlaceOf(copy_.callers_caller), &garbage, 8);
  copy_.state.stack = stack;
  std::vector<fw_u64> frames;
  EXPECT_EQ(unwinder_->Unwind(Self(), copy_.state, frames), FW_STACK_END_NO_MAPPING);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[1], copy_.caller - 1);
}

// libunwind keeps what it allocates for an address; it must not do so for every walk.
TEST_F(StackUnwinderTest, ManyWalksTakeNoMoreMemory) {
  Outer(&copy_);
  std::vector<fw_u64> frames;
  for (int i = 0; i < 5'000; ++i) {
    frames.clear();
    copy_.state.registers[FW_REGISTER_RBX] = static_cast<uint64_t>(i);
    unwinder_->Unwind(Self(), copy_.state, frames);
  }
  EXPECT_LT(unwinder_->cached_bytes(), size_t{16} << 20);
}

}  // namespace
}  // namespace firewatch::agent
