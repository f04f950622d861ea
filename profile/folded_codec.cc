// SPDX-License-Identifier: Apache-2.0
#include "profile/folded_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <string_view>

#include "profile/frame_table.h"
#include "profile/saturating.h"

namespace firewatch::profile {
namespace {

constexpr std::string_view kNoStack = "(no stack)";
constexpr size_t kNumberBytes = 22;  // " -9223372036854775808\n"

std::vector<std::string> FoldedNames(const FrameTable& frames) {
  std::vector<std::string> names = frames.names();
  for (std::string& name : names) {
    std::ranges::replace(name, ';', ':');
    std::ranges::replace(name, '\n', ' ');
    std::ranges::replace(name, '\r', ' ');
  }
  return names;
}

// What the line of a stack takes; known before it is built, because it may be far too long.
size_t LineBytes(const FrameTable& frames, const std::vector<std::string>& names,
                 const std::vector<LocationId>& stack) {
  size_t bytes = kNoStack.size() + kNumberBytes;
  for (const LocationId location : stack) {
    for (const Frame& frame : frames.Of(location)) bytes += names[frame.name].size() + 1;
  }
  return bytes;
}

std::string FoldStack(const FrameTable& frames, const std::vector<std::string>& names,
                      const std::vector<LocationId>& stack) {
  if (stack.empty()) return std::string(kNoStack);
  std::string line;
  for (size_t i = stack.size(); i-- > 0;) {
    const std::span<const Frame> of_location = frames.Of(stack[i]);
    for (size_t j = of_location.size(); j-- > 0;) {
      if (!line.empty()) line.push_back(';');
      line.append(names[of_location[j].name]);
    }
  }
  return line;
}

}  // namespace

std::string WriteFolded(const Profile& profile, int value_index, size_t max_bytes) {
  const FrameTable frames(profile);
  const std::vector<std::string> names = FoldedNames(frames);
  const std::vector<int64_t> sums = SumByStack(profile, value_index);
  std::vector<uint32_t> order(sums.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, [&](uint32_t a, uint32_t b) {
    return sums[a] != sums[b] ? sums[a] > sums[b] : a < b;
  });

  std::map<std::string, int64_t> lines;
  int64_t other = 0;
  size_t room = max_bytes;
  for (const uint32_t stack : order) {
    if (sums[stack] == 0) continue;
    const size_t bytes = LineBytes(frames, names, profile.stacks[stack]);
    if (bytes > room) {
      other = SaturatingAdd(other, sums[stack]);
      continue;
    }
    const auto [it, added] = lines.try_emplace(FoldStack(frames, names, profile.stacks[stack]), 0);
    it->second = SaturatingAdd(it->second, sums[stack]);
    if (added) room -= bytes;
  }
  if (other != 0) lines["(other)"] = SaturatingAdd(lines["(other)"], other);

  std::string text;
  for (const auto& [names_of_line, value] : lines) {
    if (value != 0) fmt::format_to(std::back_inserter(text), "{} {}\n", names_of_line, value);
  }
  return text;
}

}  // namespace firewatch::profile
