// SPDX-License-Identifier: Apache-2.0
// Two unwinders, one moment: how far do they agree, and with whom does a third one side.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace firewatch::agent {

enum class StackDifference : uint8_t {
  kNone,
  kOursEndsEarlier,
  kTheirsEndsEarlier,
  kFramesDiffer,
};
// "same", "ours ends earlier" …
std::string_view Name(StackDifference difference);

struct StackComparison {
  StackDifference difference = StackDifference::kNone;
  size_t agreed = 0;    // leading frames that are the same
  size_t compared = 0;  // frames of the longer stack; equal to `agreed` when nothing differs
};

// Both leaf first. What lies at and above the first frame that both have and that `is_cut` says yes
// to is not compared (JIT code: neither has rules for it). Neither is what lies above
// `limit` frames.
StackComparison CompareStacks(std::span<const uint64_t> ours, std::span<const uint64_t> theirs,
                              size_t limit, absl::FunctionRef<bool(uint64_t)> is_cut);

enum class Verdict : uint8_t {
  kNotJudged,  // the judge was not there, or saw another moment
  kForUs,      // it follows us further than them
  kAgainstUs,  // it follows them further than us
  kNeither,    // it leaves both at the same frame
};
std::string_view Name(Verdict verdict);

// The end of a stack counts as a frame: who stops where the judge stops is right there, too.
Verdict JudgeStacks(std::span<const uint64_t> ours, std::span<const uint64_t> theirs,
                    std::span<const uint64_t> judge);

}  // namespace firewatch::agent
