// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/code_map.h"

#include <iterator>

namespace firewatch::symbolizer {

void CodeMap::SplitAt(uint64_t at) {
  const auto after = ranges_.lower_bound(at);
  if (after == ranges_.begin()) return;
  const auto before = std::prev(after);
  const uint64_t left = at - before->first;
  if (before->second.size <= left) return;
  Piece right = before->second;
  right.size -= static_cast<uint32_t>(left);
  before->second.size = static_cast<uint32_t>(left);
  ranges_.emplace(at, right);
}

bool CodeMap::Add(uint64_t start, uint64_t size, const CodeRange& range) {
  if (size == 0 || size > UINT32_MAX || start > UINT64_MAX - size) return false;
  // Two splits and the newcomer add three at most.
  if (ranges_.size() + 3 > max_ranges_) return false;
  SplitAt(start);
  SplitAt(start + size);
  ranges_.erase(ranges_.lower_bound(start), ranges_.lower_bound(start + size));
  ranges_.emplace(start, Piece{.size = static_cast<uint32_t>(size), .range = range});
  return true;
}

std::optional<CodeRange> CodeMap::Find(uint64_t address) const {
  const auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) return std::nullopt;
  const auto found = std::prev(after);
  if (address - found->first >= found->second.size) return std::nullopt;
  return found->second.range;
}

}  // namespace firewatch::symbolizer
