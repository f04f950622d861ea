// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/stack_ends.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace firewatch::agent {
namespace {

ProgramStackEnds Ends(const std::string& program, uint64_t root, uint64_t no_table = 0,
                      uint64_t none = 0) {
  ProgramStackEnds ends{program, {}};
  ends.counts[FW_STACK_END_ROOT] = root;
  ends.counts[FW_STACK_END_NO_TABLE] = no_table;
  ends.counts[FW_STACK_END_NONE] = none;
  return ends;
}

TEST(StackEndsTest, ShareLeavesOutSamplesWithoutUserStack) {
  EXPECT_DOUBLE_EQ(CompleteShare(Ends("a", 3, 1, 100).counts), 0.75);
  EXPECT_DOUBLE_EQ(CompleteShare(Ends("a", 0, 0, 100).counts), 1);
}

TEST(StackEndsTest, AddsWindowsPerProgramAndReason) {
  StackEndsByProgram ends;
  ends.Add(std::vector{Ends("app", 3, 1), Ends("web", 10)});
  ends.Add(std::vector{Ends("app", 2)});
  EXPECT_THAT(
      ends.Series(),
      testing::ElementsAre(
          testing::Pair(base::MetricLabels{{"program", "web"}, {"reason", "root"}}, 10),
          testing::Pair(base::MetricLabels{{"program", "app"}, {"reason", "root"}}, 5),
          testing::Pair(base::MetricLabels{{"program", "app"}, {"reason", "no_table"}}, 1)));
}

TEST(StackEndsTest, KeepsTheProgramsWithMostSamplesAndLosesNoCount) {
  StackEndsByProgram ends;
  std::vector<ProgramStackEnds> window;
  uint64_t all = 0;
  for (uint64_t i = 1; i <= 30; ++i) {
    window.push_back(Ends(fmt::format("p{}", i), i));
    all += i;
  }
  ends.Add(window);
  const auto programs = ends.Programs();
  ASSERT_EQ(programs.size(), StackEndsByProgram::kPrograms + 1);
  EXPECT_EQ(programs.front().program, "p30");
  EXPECT_EQ(programs.back().program, "other");
  uint64_t sum = 0;
  for (const auto& program : programs) sum += program.counts[FW_STACK_END_ROOT];
  EXPECT_EQ(sum, all);
}

TEST(StackEndsTest, ProgramsWithoutUserStacksTakeNoPlace) {
  StackEndsByProgram ends;
  ends.Add(std::vector{Ends("kworker/0:1", 0, 0, 50), Ends("app", 1)});
  const auto programs = ends.Programs();
  ASSERT_EQ(programs.size(), 2u);
  EXPECT_EQ(programs[0].program, "app");
  EXPECT_EQ(programs[1].program, "other");
}

TEST(StackEndsTest, AProgramThatEndedMakesWayForOneThatRuns) {
  StackEndsByProgram ends;
  std::vector<ProgramStackEnds> old;
  for (int i = 0; i < 20; ++i) old.push_back(Ends(fmt::format("old{}", i), 100));
  ends.Add(old);
  for (int i = 0; i < 8; ++i) ends.Add(std::vector{Ends("new", 10)});
  EXPECT_THAT(ends.Programs(),
              testing::Contains(testing::Field(&ProgramStackEnds::program, "new")));
}

}  // namespace
}  // namespace firewatch::agent
