// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The walk of bpf/user_stack.h as a host program: the same text that runs in the kernel, on stacks
// made by hand, under sanitizers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "bpf/include/frame.h"

namespace {
// Memory of the walked process: pages that are there, by address.
std::map<fw_u64, std::vector<fw_u8>>* process_memory = nullptr;
size_t reads = 0;

long fw_read_user(void* to, fw_u32 size, fw_u64 address) {
  ++reads;
  auto* out = static_cast<fw_u8*>(to);
  for (fw_u32 i = 0; i < size; ++i) {
    const auto page = process_memory->find((address + i) & ~fw_u64{4095});
    if (page == process_memory->end()) return -14;
    out[i] = page->second[(address + i) & 4095];
  }
  return 0;
}
}  // namespace

#include "bpf/user_stack.h"

namespace firewatch::bpf {
namespace {

using ::testing::ElementsAre;

constexpr fw_u64 kStack = 0x7ffc00000000;
constexpr fw_u64 kCode = 0x400000;

class UserStackTest : public ::testing::Test {
 protected:
  UserStackTest() {
    process_memory = &memory_;
    reads = 0;
  }

  void Write(fw_u64 address, fw_u64 value) {
    for (size_t i = 0; i < sizeof(value); ++i) {
      auto& page = memory_[(address + i) & ~fw_u64{4095}];
      page.resize(4096);
      page[(address + i) & 4095] = static_cast<fw_u8>(value >> (8 * i));
    }
  }
  // Frames hold an address inside the call: one less than where it returns to.
  static fw_u64 Return(fw_u64 frame) { return frame + 1; }
  void WriteRecord(fw_u64 fp, fw_u64 next_fp, fw_u64 return_address) {
    Write(fp, next_fp);
    Write(fp + 8, return_address);
  }
  // `count` records from `fp` upwards, `stride` bytes apart; the last one ends the chain.
  void WriteChain(fw_u64 fp, size_t count, fw_u64 stride) {
    for (size_t i = 0; i < count; ++i) {
      WriteRecord(fp + i * stride, i + 1 == count ? 0 : fp + (i + 1) * stride,
                  Return(kCode + 16 * (i + 1)));
    }
  }

  std::vector<fw_u64> Walk(fw_u64 fp, fw_u32 limit = FW_MAX_USER_FRAMES, fw_u32 first = 0,
                           fw_u64 sp = kStack) {
    frames_.assign(FW_WALK_FRAMES, 0xdead);
    walk_ = {};
    if (!fw_walk_begin(&walk_, frames_.data(), first, limit, kCode, sp, fp)) {
      size_t steps = 0;
      while (!fw_walk_step(&walk_, frames_.data())) {
        if (++steps > 2000) ADD_FAILURE() << "the walk does not end";
        if (steps > 2000) break;
      }
    }
    EXPECT_LE(walk_.next, FW_WALK_FRAMES);
    return {frames_.begin() + first, frames_.begin() + walk_.next};
  }
  fw_stack_end end() const { return static_cast<fw_stack_end>(walk_.end); }

  std::map<fw_u64, std::vector<fw_u8>> memory_;
  std::vector<fw_u64> frames_;
  fw_walk walk_{};
};

TEST_F(UserStackTest, FollowsAChainToItsEnd) {
  WriteChain(kStack + 64, 3, 48);
  EXPECT_THAT(Walk(kStack + 64), ElementsAre(kCode, kCode + 16, kCode + 32, kCode + 48));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, ReadsByTheChunkNotByTheFrame) {
  WriteChain(kStack, 64, 48);  // 3,072 bytes, in one page
  EXPECT_EQ(Walk(kStack).size(), 65u);
  EXPECT_LE(reads, 4u);
}

TEST_F(UserStackTest, EveryStrideAndOffsetGivesTheSameChain) {
  // Chunk ends, page ends and records across two pages, against the obvious expectation.
  for (const fw_u64 stride : {16u, 24u, 48u, 1000u, 1016u, 1024u, 1032u, 4088u, 4096u, 5000u}) {
    for (const fw_u64 offset : {0u, 8u, 3072u, 4080u, 4088u}) {
      memory_.clear();
      WriteChain(kStack + offset, 40, stride);
      const auto frames = Walk(kStack + offset);
      ASSERT_EQ(frames.size(), 41u) << stride << " " << offset;
      for (size_t i = 0; i < frames.size(); ++i) EXPECT_EQ(frames[i], kCode + 16 * i);
      EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
    }
  }
}

TEST_F(UserStackTest, StackThatEndsAtAnUnmappedPageIsReadWhole) {
  // The last record ends with the page; nothing is mapped behind it.
  WriteChain(kStack + 4096 - 3 * 32, 3, 32);
  EXPECT_EQ(Walk(kStack + 4096 - 3 * 32).size(), 4u);
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, CutsAtTheLimitAndSaysSo) {
  WriteChain(kStack, 2000, 48);
  EXPECT_EQ(Walk(kStack).size(), FW_MAX_USER_FRAMES);
  EXPECT_EQ(end(), FW_STACK_END_TRUNCATED);
}

TEST_F(UserStackTest, AStackOfExactlyTheLimitIsNotCut) {
  WriteChain(kStack, FW_MAX_USER_FRAMES - 1, 48);
  EXPECT_EQ(Walk(kStack).size(), FW_MAX_USER_FRAMES);
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, KeepsOutOfWhatTheKernelFramesTook) {
  WriteChain(kStack, 2000, 48);
  EXPECT_EQ(Walk(kStack, FW_MAX_USER_FRAMES, FW_MAX_KERNEL_FRAMES).size(), FW_MAX_USER_FRAMES);
  EXPECT_EQ(walk_.next, FW_WALK_FRAMES);
  EXPECT_EQ(frames_[FW_MAX_KERNEL_FRAMES - 1], 0xdeadu);
}

TEST_F(UserStackTest, UnreadablePageEndsTheWalkWithWhatIsKnown) {
  WriteRecord(kStack, kStack + 32, Return(kCode + 16));
  WriteRecord(kStack + 32, kStack + 0x100000, Return(kCode + 32));  // not mapped
  EXPECT_THAT(Walk(kStack), ElementsAre(kCode, kCode + 16, kCode + 32));
  EXPECT_EQ(end(), FW_STACK_END_BAD_READ);
}

TEST_F(UserStackTest, RecordAcrossAPageThatIsNotThereEndsTheWalk) {
  Write(kStack + 4088, kStack + 8192);  // its second half would be in the next page
  EXPECT_THAT(Walk(kStack + 4088), ElementsAre(kCode));
  EXPECT_EQ(end(), FW_STACK_END_BAD_READ);
}

TEST_F(UserStackTest, RegisterThatIsNoFramePointerGivesTheLeafOnly) {
  for (const fw_u64 fp : {fw_u64{0}, fw_u64{1}, kStack - 8, kStack + 3, fw_u64{0x555500001000},
                          fw_u64{0xffffffff81000000}, ~fw_u64{0}}) {
    EXPECT_THAT(Walk(fp), ElementsAre(kCode)) << std::hex << fp;
    EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
  }
  EXPECT_EQ(reads, 0u);
}

TEST_F(UserStackTest, MisalignedCallerEndsTheWalk) {
  WriteRecord(kStack, kStack + 33, Return(kCode + 16));
  EXPECT_THAT(Walk(kStack), ElementsAre(kCode, kCode + 16));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, ReturnAddressThatIsNoCodeIsNotKept) {
  for (const fw_u64 address : {fw_u64{0}, fw_u64{4095}, fw_u64{1} << 56, ~fw_u64{0}}) {
    WriteRecord(kStack, kStack + 32, address);
    EXPECT_THAT(Walk(kStack), ElementsAre(kCode)) << std::hex << address;
    EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
  }
}

TEST_F(UserStackTest, RecordThatPointsToItselfEndsTheWalk) {
  WriteRecord(kStack, kStack, Return(kCode + 16));
  EXPECT_THAT(Walk(kStack), ElementsAre(kCode, kCode + 16));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, CircleEndsTheWalk) {
  WriteRecord(kStack, kStack + 32, Return(kCode + 16));
  WriteRecord(kStack + 32, kStack + 64, Return(kCode + 32));
  WriteRecord(kStack + 64, kStack, Return(kCode + 48));
  EXPECT_THAT(Walk(kStack), ElementsAre(kCode, kCode + 16, kCode + 32, kCode + 48));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, FollowsTheChainToAnotherStackBelow) {
  // A handler on a stack above the one that the signal interrupted.
  const fw_u64 other = kStack + 0x100000;
  WriteRecord(other, other + 32, Return(kCode + 16));
  WriteRecord(other + 32, kStack + 64, Return(kCode + 32));
  WriteChain(kStack + 64, 2, 32);
  EXPECT_EQ(Walk(other, FW_MAX_USER_FRAMES, 0, other).size(), 5u);
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, CircleOverTwoStacksEndsAfterOneLap) {
  const fw_u64 other = kStack + 0x100000;
  WriteRecord(other, kStack, Return(kCode + 16));
  WriteRecord(kStack, other, Return(kCode + 32));
  EXPECT_LE(Walk(other, FW_MAX_USER_FRAMES, 0, other).size(), 5u);
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(UserStackTest, LeafBeyondTheBufferIsNotWritten) {
  EXPECT_TRUE(Walk(kStack, FW_MAX_USER_FRAMES, 0).size() == 1u);
  frames_.assign(FW_WALK_FRAMES, 0);
  EXPECT_EQ(fw_walk_begin(&walk_, frames_.data(), FW_WALK_FRAMES, 10, kCode, kStack, kStack), 1);
}

}  // namespace
}  // namespace firewatch::bpf
