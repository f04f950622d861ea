// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/stack_compare.h"

#include <algorithm>

namespace firewatch::agent {
namespace {

size_t CommonFrames(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  const auto [end, unused] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(end - a.begin());
}

// Common frames, and one more when both end there.
size_t CommonWithEnd(std::span<const uint64_t> a, std::span<const uint64_t> b) {
  const size_t common = CommonFrames(a, b);
  return common + (common == a.size() && common == b.size() ? 1 : 0);
}

}  // namespace

std::string_view Name(StackDifference difference) {
  switch (difference) {
    case StackDifference::kNone:
      return "same";
    case StackDifference::kOursEndsEarlier:
      return "ours ends earlier";
    case StackDifference::kTheirsEndsEarlier:
      return "theirs ends earlier";
    case StackDifference::kFramesDiffer:
      return "frames differ";
  }
  return "?";
}

std::string_view Name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNotJudged:
      return "not judged";
    case Verdict::kForUs:
      return "for us";
    case Verdict::kAgainstUs:
      return "against us";
    case Verdict::kNeither:
      return "neither";
  }
  return "?";
}

StackComparison CompareStacks(std::span<const uint64_t> ours, std::span<const uint64_t> theirs,
                              size_t limit, absl::FunctionRef<bool(uint64_t)> is_cut) {
  ours = ours.first(std::min(ours.size(), limit));
  theirs = theirs.first(std::min(theirs.size(), limit));
  const size_t agreed = CommonFrames(ours, theirs);
  for (size_t i = 0; i < agreed; ++i) {
    if (is_cut(ours[i])) return {.agreed = i, .compared = i};
  }
  if (agreed == ours.size() && agreed == theirs.size()) {
    return {.agreed = agreed, .compared = agreed};
  }
  StackDifference difference = StackDifference::kFramesDiffer;
  if (agreed == ours.size()) difference = StackDifference::kOursEndsEarlier;
  if (agreed == theirs.size()) difference = StackDifference::kTheirsEndsEarlier;
  return {
      .difference = difference, .agreed = agreed, .compared = std::max(ours.size(), theirs.size())};
}

Verdict JudgeStacks(std::span<const uint64_t> ours, std::span<const uint64_t> theirs,
                    std::span<const uint64_t> judge) {
  if (judge.empty() || ours.empty() || judge[0] != ours[0]) return Verdict::kNotJudged;
  const size_t with_us = CommonWithEnd(ours, judge);
  const size_t with_them = CommonWithEnd(theirs, judge);
  if (with_us == with_them) return Verdict::kNeither;
  return with_us > with_them ? Verdict::kForUs : Verdict::kAgainstUs;
}

}  // namespace firewatch::agent
