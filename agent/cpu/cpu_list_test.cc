// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/cpu_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CpuListTest, ReadsSinglesAndRanges) {
  EXPECT_THAT(*ParseCpuList("0-3,8,10-11\n"), ElementsAre(0, 1, 2, 3, 8, 10, 11));
  EXPECT_THAT(*ParseCpuList("0"), ElementsAre(0));
  EXPECT_THAT(*ParseCpuList("\n"), IsEmpty());
}

TEST(CpuListTest, RefusesWhatTheKernelNeverWrites) {
  for (const char* text : {"3-1", "1,1", "a", "0-", "-1", "1,,2", "1,", "0-4000000000", "99999"}) {
    EXPECT_FALSE(ParseCpuList(text).ok()) << text;
  }
}

TEST(CpuListTest, ThisMachineHasAnOnlineCpu) {
  const auto cpus = ReadCpuList("/sys/devices/system/cpu/online");
  ASSERT_TRUE(cpus.ok()) << base::ToString(cpus.status());
  EXPECT_FALSE(cpus->empty());
}

TEST(CpuListTest, MissingFileNamesItself) {
  const auto cpus = ReadCpuList("/nonexistent/online");
  EXPECT_EQ(base::Message(cpus.status()), "open /nonexistent/online: No such file or directory");
}

TEST(CpuListTest, UeventNamesItsCpu) {
  using namespace std::string_view_literals;
  EXPECT_EQ(CpuOfUevent("online@/devices/system/cpu/cpu7\0ACTION=online\0"sv), 7);
  EXPECT_EQ(CpuOfUevent("offline@/devices/system/cpu/cpu12"sv), 12);
  EXPECT_EQ(CpuOfUevent("add@/devices/system/cpu/cpu7"sv), -1);
  EXPECT_EQ(CpuOfUevent("online@/devices/system/memory/memory7"sv), -1);
  EXPECT_EQ(CpuOfUevent("online@/devices/system/cpu/cpufreq"sv), -1);
  EXPECT_EQ(CpuOfUevent(""sv), -1);
}

TEST(CpuListTest, WatchIsSilentWhileNothingChanges) {
  auto watch = CpuWatch::Open();
  ASSERT_TRUE(watch.ok()) << base::ToString(watch.status());
  EXPECT_FALSE(watch->Read().maybe_changed);
}

}  // namespace
}  // namespace firewatch::agent
