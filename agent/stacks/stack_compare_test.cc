// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/stack_compare.h"

#include <gtest/gtest.h>

#include <vector>

namespace firewatch::agent {
namespace {

using Stack = std::vector<uint64_t>;
constexpr uint64_t kJit = 99;
bool IsJit(uint64_t frame) { return frame == kJit; }
StackComparison Compare(const Stack& ours, const Stack& theirs, size_t limit = 100) {
  return CompareStacks(ours, theirs, limit, IsJit);
}

TEST(StackCompareTest, EqualStacksAgreeInAllFrames) {
  const StackComparison same = Compare({1, 2, 3}, {1, 2, 3});
  EXPECT_EQ(same.difference, StackDifference::kNone);
  EXPECT_EQ(same.agreed, 3u);
  EXPECT_EQ(same.compared, 3u);
}

TEST(StackCompareTest, EveryFrameAboveADifferenceCounts) {
  const StackComparison differ = Compare({1, 2, 3, 4, 5}, {1, 2, 7, 4, 5});
  EXPECT_EQ(differ.difference, StackDifference::kFramesDiffer);
  EXPECT_EQ(differ.agreed, 2u);
  EXPECT_EQ(differ.compared, 5u);
  EXPECT_EQ(Compare({1, 2}, {1, 2, 3}).difference, StackDifference::kOursEndsEarlier);
  EXPECT_EQ(Compare({1, 2}, {1, 2, 3}).compared, 3u);
  EXPECT_EQ(Compare({1, 2, 3}, {1}).difference, StackDifference::kTheirsEndsEarlier);
}

TEST(StackCompareTest, NothingIsComparedFromASharedJitFrameOn) {
  const StackComparison cut = Compare({1, 2, kJit, 4}, {1, 2, kJit, 5, 6});
  EXPECT_EQ(cut.difference, StackDifference::kNone);
  EXPECT_EQ(cut.compared, 2u);
  // One of them went astray into JIT code: that is a difference.
  EXPECT_EQ(Compare({1, kJit}, {1, 2}).difference, StackDifference::kFramesDiffer);
  EXPECT_EQ(Compare({1, 5, kJit}, {1, 2, kJit}).agreed, 1u);
}

TEST(StackCompareTest, NothingIsComparedBeyondTheLimit) {
  EXPECT_EQ(Compare({1, 2}, {1, 2, 3, 4}, 2).difference, StackDifference::kNone);
}

TEST(StackCompareTest, TheJudgeSidesWithWhomItFollowsFurther) {
  const Stack ours = {1, 2, 3, 4};
  EXPECT_EQ(JudgeStacks(ours, Stack{1, 2, 9}, Stack{1, 2, 3, 4}), Verdict::kForUs);
  EXPECT_EQ(JudgeStacks(ours, Stack{1, 2, 9}, Stack{1, 2, 9, 8}), Verdict::kAgainstUs);
  EXPECT_EQ(JudgeStacks(ours, Stack{1, 2, 9}, Stack{1, 2, 7}), Verdict::kNeither);
  EXPECT_EQ(JudgeStacks(ours, Stack{1, 2, 9}, Stack{1}), Verdict::kNeither);
}

TEST(StackCompareTest, TheEndOfAStackCountsForTheJudge) {
  EXPECT_EQ(JudgeStacks(Stack{1, 2}, Stack{1, 2, 3}, Stack{1, 2}), Verdict::kForUs);
  EXPECT_EQ(JudgeStacks(Stack{1, 2, 3}, Stack{1, 2}, Stack{1, 2}), Verdict::kAgainstUs);
}

TEST(StackCompareTest, AJudgeOfAnotherMomentDoesNotJudge) {
  EXPECT_EQ(JudgeStacks(Stack{1, 2}, Stack{1}, Stack{5, 2}), Verdict::kNotJudged);
  EXPECT_EQ(JudgeStacks(Stack{1, 2}, Stack{1}, Stack{}), Verdict::kNotJudged);
}

}  // namespace
}  // namespace firewatch::agent
