// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The walk of bpf/unwind.h where no tables are: chains of frame records, made by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bpf/unwind_fixture.h"

namespace firewatch::bpf {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

// ---- frame pointers: no tables at all ----

class FramePointerTest : public UnwindTest {
 protected:
  FramePointerTest() {
    use_tables = false;
    AddMapping(kCode, kCodeEnd, FW_MAPPING_ANONYMOUS);
  }

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
  std::vector<fw_u64> WalkFrom(fw_u64 fp, fw_u64 sp = kStack) {
    rbp() = fp;
    rsp() = sp;
    return Walk();
  }
};

TEST_F(FramePointerTest, FollowsAChainToItsEnd) {
  WriteChain(kStack + 64, 3, 48);
  EXPECT_THAT(WalkFrom(kStack + 64), ElementsAre(kCode, kCode + 16, kCode + 32, kCode + 48));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, KnownFilesStillHaveTheirIds) {
  process_.mappings.clear();
  AddCode({{kCode, RspPlus(8)}});
  WriteChain(kStack + 64, 2, 48);
  EXPECT_THAT(WalkFrom(kStack + 64),
              ElementsAre(CodeFrame(kCode), CodeFrame(kCode + 16), CodeFrame(kCode + 32)));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
  EXPECT_EQ(process_.table_look_ups, 0u);
}

TEST_F(FramePointerTest, ReadsByTheChunkNotByTheFrame) {
  WriteChain(kStack, 64, 48);  // 3,072 bytes, in one page
  EXPECT_THAT(WalkFrom(kStack), SizeIs(65));
  EXPECT_LE(process_.reads, 4u);
  EXPECT_EQ(process_.mapping_look_ups, 1u);
}

TEST_F(FramePointerTest, EveryStrideAndOffsetGivesTheSameChain) {
  // Chunk ends, page ends and records across two pages, against the obvious expectation.
  for (const fw_u64 stride : {16u, 24u, 48u, 1000u, 1016u, 1024u, 1032u, 4088u, 4096u, 5000u}) {
    for (const fw_u64 offset : {0u, 8u, 3072u, 4080u, 4088u}) {
      process_.pages.clear();
      WriteChain(kStack + offset, 40, stride);
      const auto frames = WalkFrom(kStack + offset);
      ASSERT_EQ(frames.size(), 41u) << stride << " " << offset;
      for (size_t i = 0; i < frames.size(); ++i) EXPECT_EQ(frames[i], kCode + 16 * i);
      EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
    }
  }
}

TEST_F(FramePointerTest, StackThatEndsAtAnUnmappedPageIsReadWhole) {
  // The last record ends with the page; nothing is mapped behind it.
  WriteChain(kStack + 4096 - 3 * 32, 3, 32);
  EXPECT_THAT(WalkFrom(kStack + 4096 - 3 * 32), SizeIs(4));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, CutsAtTheLimitAndSaysSo) {
  WriteChain(kStack, 2000, 48);
  EXPECT_THAT(WalkFrom(kStack), SizeIs(FW_MAX_USER_FRAMES));
  EXPECT_EQ(end(), FW_STACK_END_TRUNCATED);
}

TEST_F(FramePointerTest, AStackOfExactlyTheLimitIsNotCut) {
  WriteChain(kStack, FW_MAX_USER_FRAMES - 1, 48);
  EXPECT_THAT(WalkFrom(kStack), SizeIs(FW_MAX_USER_FRAMES));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, UnreadablePageEndsTheWalkWithWhatIsKnown) {
  WriteRecord(kStack, kStack + 32, Return(kCode + 16));
  WriteRecord(kStack + 32, kStack + 0x100000, Return(kCode + 32));  // not mapped
  EXPECT_THAT(WalkFrom(kStack), ElementsAre(kCode, kCode + 16, kCode + 32));
  EXPECT_EQ(end(), FW_STACK_END_BAD_READ);
}

TEST_F(FramePointerTest, RecordAcrossAPageThatIsNotThereEndsTheWalk) {
  Write(kStack + 4088, kStack + 8192);  // its second half would be in the next page
  EXPECT_THAT(WalkFrom(kStack + 4088), ElementsAre(kCode));
  EXPECT_EQ(end(), FW_STACK_END_BAD_READ);
}

TEST_F(FramePointerTest, RegisterThatIsNoFramePointerGivesTheLeafOnly) {
  for (const fw_u64 fp : {fw_u64{0}, fw_u64{1}, kStack - 8, kStack + 3, fw_u64{0x555500001000},
                          fw_u64{0xffffffff81000000}, ~fw_u64{0}}) {
    EXPECT_THAT(WalkFrom(fp), ElementsAre(kCode)) << std::hex << fp;
    EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
  }
  EXPECT_EQ(process_.reads, 0u);
}

TEST_F(FramePointerTest, MisalignedCallerEndsTheWalk) {
  WriteRecord(kStack, kStack + 33, Return(kCode + 16));
  EXPECT_THAT(WalkFrom(kStack), ElementsAre(kCode, kCode + 16));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, ReturnAddressThatIsNoCodeIsNotKept) {
  for (const fw_u64 address :
       {fw_u64{0}, fw_u64{4095}, fw_u64{0x600000}, fw_u64{1} << 56, ~fw_u64{0}}) {
    WriteRecord(kStack, kStack + 32, address);
    EXPECT_THAT(WalkFrom(kStack), ElementsAre(kCode)) << std::hex << address;
    EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
  }
}

TEST_F(FramePointerTest, RecordThatPointsToItselfEndsTheWalk) {
  WriteRecord(kStack, kStack, Return(kCode + 16));
  EXPECT_THAT(WalkFrom(kStack), ElementsAre(kCode, kCode + 16));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, CircleEndsTheWalk) {
  WriteRecord(kStack, kStack + 32, Return(kCode + 16));
  WriteRecord(kStack + 32, kStack + 64, Return(kCode + 32));
  WriteRecord(kStack + 64, kStack, Return(kCode + 48));
  EXPECT_THAT(WalkFrom(kStack), ElementsAre(kCode, kCode + 16, kCode + 32, kCode + 48));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, FollowsTheChainToAnotherStackBelow) {
  // A handler on a stack above the one that the signal interrupted.
  const fw_u64 other = kStack + 0x100000;
  WriteRecord(other, other + 32, Return(kCode + 16));
  WriteRecord(other + 32, kStack + 64, Return(kCode + 32));
  WriteChain(kStack + 64, 2, 32);
  EXPECT_THAT(WalkFrom(other, other), SizeIs(5));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, CircleOverTwoStacksEndsAfterOneLap) {
  const fw_u64 other = kStack + 0x100000;
  WriteRecord(other, kStack, Return(kCode + 16));
  WriteRecord(kStack, other, Return(kCode + 32));
  EXPECT_LE(WalkFrom(other, other).size(), 5u);
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

}  // namespace
}  // namespace firewatch::bpf
