// SPDX-License-Identifier: Apache-2.0
// What the codec promises, on profiles made by hand; random ones in pprof_oracle_test.cc, hostile
// ones in pprof_hostile_test.cc.
#include "profile/pprof_codec.h"

#include <gtest/gtest.h>

#include "base/status.h"
#include "profile/builder.h"
#include "profile/test_profiles.h"

namespace firewatch::profile {
namespace {

TEST(PprofCodecTest, WhatIsWrittenIsReadBack) {
  const Profile profile = SmallTestProfile();
  for (const Compression compression :
       {Compression::kNone, Compression::kGzip, Compression::kZstd}) {
    const auto bytes = WritePprof(profile, compression);
    ASSERT_TRUE(bytes.ok());
    const auto read = ReadPprof(*bytes);
    ASSERT_TRUE(read.ok()) << base::ToString(read.status());
    EXPECT_EQ(DescribeForTest(*read), DescribeForTest(profile));
  }
}

TEST(PprofCodecTest, WritingIsDeterministicAndStable) {
  const auto once = WritePprof(SmallTestProfile(), Compression::kNone);
  const auto twice = WritePprof(SmallTestProfile(), Compression::kNone);
  ASSERT_TRUE(once.ok() && twice.ok());
  EXPECT_EQ(*once, *twice);
}

}  // namespace
}  // namespace firewatch::profile
