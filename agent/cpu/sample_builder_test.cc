// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sample_builder.h"

#include <gtest/gtest.h>

namespace firewatch::agent {
namespace {

TEST(SampleBuilderTest, WhatIsPutInIsWhatTheRecordSays) {
  SampleBuilder builder;
  builder.header().pid = 7;
  builder.header().tid = 8;
  builder.header().time_ns = 99;
  builder.header().stack_end = FW_STACK_END_ROOT;
  builder.SetComm("a name that is longer than the field");
  builder.kernel_frames() = {0xffffffff81000000};
  builder.user_frames() = {0x1000, 0x2000};
  const SampleRecord record = builder.Finish();
  EXPECT_EQ(record.pid, Pid{7});
  EXPECT_EQ(record.tid, 8u);
  EXPECT_EQ(record.time_ns, 99u);
  EXPECT_EQ(record.stack_end, FW_STACK_END_ROOT);
  EXPECT_EQ(record.comm, "a name that is ");
  EXPECT_EQ(record.kernel_frames.size(), 1u);
  ASSERT_EQ(record.user_frames.size(), 2u);
  EXPECT_EQ(record.user_frames[1], 0x2000u);
  EXPECT_EQ(record.bytes.size(), sizeof(fw_sample) + 3 * sizeof(fw_u64));
}

TEST(SampleBuilderTest, NothingIsLeftFromTheSampleBefore) {
  SampleBuilder builder;
  builder.header().flags = FW_SAMPLE_IN_KERNEL;
  builder.SetComm("first");
  builder.user_frames() = {1, 2, 3};
  builder.Finish();
  builder.Clear();
  const SampleRecord record = builder.Finish();
  EXPECT_FALSE(record.in_kernel);
  EXPECT_EQ(record.comm, "");
  EXPECT_TRUE(record.user_frames.empty());
}

}  // namespace
}  // namespace firewatch::agent
