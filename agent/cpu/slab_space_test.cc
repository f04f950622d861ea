// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/slab_space.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace firewatch::agent {
namespace {

TEST(SlabSpaceTest, TakesTheShortestRunThatIsLongEnough) {
  SlabSpace space;
  space.Add(0);
  const auto first = space.Take(100, 100);
  const auto second = space.Take(10, 10);
  const auto third = space.Take(50, 50);
  const auto fourth = space.Take(10, 10);
  ASSERT_TRUE(first && second && third && fourth);
  space.Give(*first);
  space.Give(*third);
  EXPECT_EQ(space.Take(40, 40)->location, third->location);
}

TEST(SlabSpaceTest, GivesTheLongestRunWhenNoneIsLongEnough) {
  SlabSpace space;
  space.Add(3);
  const auto run = space.Take(kSlabUnits + 5, 8);
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(run->location, fw_location{3} << FW_LOCATION_UNITS_SHIFT);
  EXPECT_EQ(run->units, kSlabUnits);
  EXPECT_FALSE(space.Take(1, 1).has_value());
}

TEST(SlabSpaceTest, AClosedSlabGivesNothing) {
  SlabSpace space;
  space.Add(0);
  space.SetClosed(0, true);
  EXPECT_FALSE(space.Take(1, 1).has_value());
  space.SetClosed(0, false);
  EXPECT_TRUE(space.Take(1, 1).has_value());
}

TEST(SlabSpaceTest, RunsNeverCrossFromOneSlabIntoTheNext) {
  SlabSpace space;
  space.Add(0);
  space.Add(1);
  const auto a = space.Take(kSlabUnits, kSlabUnits);
  const auto b = space.Take(kSlabUnits, kSlabUnits);
  space.Give(*a);
  space.Give(*b);
  EXPECT_EQ(space.Take(2 * kSlabUnits, 1)->units, kSlabUnits);
}

// Whatever is taken and given back: runs do not overlap, and in the end all is one run again.
TEST(SlabSpaceTest, RandomUseNeitherOverlapsNorLeaks) {
  std::mt19937 random(7);
  SlabSpace space;
  space.Add(0);
  space.Add(1);
  std::vector<bool> taken(size_t{2} * kSlabUnits);
  std::vector<SlabRun> runs;
  for (int i = 0; i < 20'000; ++i) {
    if (random() % 2 == 0 || runs.empty()) {
      const auto run = space.Take(1 + random() % 3000, 1 + random() % 20);
      if (!run.has_value()) continue;
      for (uint32_t unit = 0; unit < run->units; ++unit) {
        ASSERT_FALSE(taken[run->location + unit]);
        taken[run->location + unit] = true;
      }
      runs.push_back(*run);
    } else {
      std::swap(runs[random() % runs.size()], runs.back());
      for (uint32_t unit = 0; unit < runs.back().units; ++unit) {
        taken[runs.back().location + unit] = false;
      }
      space.Give(runs.back());
      runs.pop_back();
    }
  }
  for (const SlabRun run : runs) space.Give(run);
  EXPECT_EQ(space.used_units(), 0u);
  EXPECT_EQ(space.Take(kSlabUnits, kSlabUnits)->units, kSlabUnits);
  EXPECT_EQ(space.Take(kSlabUnits, kSlabUnits)->units, kSlabUnits);
}

}  // namespace
}  // namespace firewatch::agent
