// SPDX-License-Identifier: Apache-2.0
// The frames of every location of a profile, with names interned by text: what the flame tree, the
// table of functions and folded stacks are made of. Two functions of one name (other lines, other
// files) are one name here.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "profile/profile.h"

namespace firewatch::profile {

inline constexpr uint8_t kFrameInlined = 1;
inline constexpr uint8_t kFrameKernel = 2;
inline constexpr uint8_t kFrameNotSymbolized = 4;
inline constexpr uint8_t kFrameOther = 8;  // stands for what was pruned
inline constexpr uint8_t kFrameMarks = 15;
inline constexpr int kFrameReasonShift = 4;
inline constexpr uint8_t kFrameReasonMixed = 15 << kFrameReasonShift;

struct Frame {
  uint32_t name = 0;    // index into FrameTable::names()
  uint32_t file = 0;    // the same: base name of the binary, or ""
  uint32_t source = 0;  // the same: path of the source file, or ""
  uint32_t line = 0;    // where the function begins, else the line of the frame; 0: unknown
  uint8_t flags = 0;
};

// One thread. Reads the profile once, in the constructor.
class FrameTable {
 public:
  // `reasons`: as in FlameTreeOptions.
  explicit FrameTable(const Profile& profile, std::span<const uint8_t> reasons = {});

  // Innermost inlined function first, as in Location::lines; at least one frame.
  std::span<const Frame> Of(LocationId location) const {
    return std::span(frames_).subspan(first_[location.index()],
                                      first_[location.index() + 1] - first_[location.index()]);
  }
  uint32_t Intern(std::string_view name);
  const std::vector<std::string>& names() const { return names_; }

 private:
  base::StringMap<uint32_t> index_;
  std::vector<std::string> names_;  // [0] = ""
  std::vector<Frame> frames_;
  std::vector<size_t> first_;  // by location, and one past the last
};

// The values of one type by stack. Out of range: all zero.
std::vector<int64_t> SumByStack(const Profile& profile, int value_index);

}  // namespace firewatch::profile
