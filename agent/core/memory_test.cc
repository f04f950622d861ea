// SPDX-License-Identifier: Apache-2.0
#include "agent/core/memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

namespace firewatch::agent {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(MemoryTest, TouchedAnonymousPagesCountAndFilePagesDoNot) {
  const uint64_t before = RssAnonBytes();
  ASSERT_GT(before, 0u);
  constexpr size_t kBytes = 32 * kMiB;
  void* pages = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  std::memset(pages, 1, kBytes);
  const uint64_t grown = RssAnonBytes();
  // From Linux 6.2 on the counters of a CPU may be some pages behind.
  EXPECT_NEAR(static_cast<double>(grown - before), kBytes, 2.0 * kMiB);
  EXPECT_NEAR(static_cast<double>(grown), static_cast<double>(StatusBytes("RssAnon")), 2.0 * kMiB);
  ::munmap(pages, kBytes);
  EXPECT_LT(RssAnonBytes(), before + 2 * kMiB);
}

class MemoryBudgetTest : public testing::Test {
 protected:
  uint64_t heap_ = 0;
  MemoryBudget budget_{16 * kMiB, [this] { return heap_; }};
};

TEST_F(MemoryBudgetTest, TablesGetWhatTheRestLeaves) {
  heap_ = 5 * kMiB;
  budget_.SetFixedBytes(2 * kMiB);
  EXPECT_EQ(budget_.ForTables().grow_to, 8 * kMiB);
  EXPECT_EQ(budget_.ForTables().keep, 8 * kMiB + kMiB / 2);
  budget_.SetReservedBytes(3 * kMiB);
  EXPECT_EQ(budget_.ForTables().grow_to, 5 * kMiB);
}

TEST_F(MemoryBudgetTest, TheSlackIsASixteenthAndAMebibyteAtLeast) {
  MemoryBudget large(64 * kMiB, [] { return uint64_t{0}; });
  EXPECT_EQ(large.ForTables().grow_to, 60 * kMiB);
  MemoryBudget small(4 * kMiB, [] { return uint64_t{0}; });
  EXPECT_EQ(small.ForTables().grow_to, 3 * kMiB);
}

TEST_F(MemoryBudgetTest, AHeapBeyondTheLimitLeavesNothing) {
  heap_ = 17 * kMiB;
  EXPECT_EQ(budget_.ForTables().grow_to, 0u);
  EXPECT_EQ(budget_.ForTables().keep, 0u);
}

TEST_F(MemoryBudgetTest, APeakCountsInItsWindowAndTheNext) {
  heap_ = 10 * kMiB;
  budget_.Look();
  heap_ = 4 * kMiB;
  EXPECT_EQ(budget_.ForTables().grow_to, 5 * kMiB);
  budget_.EndWindow();
  EXPECT_EQ(budget_.ForTables().grow_to, 5 * kMiB);
  budget_.EndWindow();
  EXPECT_EQ(budget_.ForTables().grow_to, 11 * kMiB);
}

TEST_F(MemoryBudgetTest, TightnessIsOfThisMomentAndAtHalfTheSlack) {
  heap_ = 8 * kMiB;
  budget_.SetFixedBytes(2 * kMiB);
  EXPECT_FALSE(budget_.IsTight(5 * kMiB + kMiB / 2));
  EXPECT_TRUE(budget_.IsTight(5 * kMiB + kMiB / 2 + 1));
  heap_ = 4 * kMiB;
  EXPECT_FALSE(budget_.IsTight(6 * kMiB));
}

}  // namespace
}  // namespace firewatch::agent
