// SPDX-License-Identifier: Apache-2.0
// Which code is looked at: what lies in executable segments, and of that, if a caller wants no
// more, what holds certain addresses.
#pragma once

#include <cstdint>
#include <span>

#include "symbolizer/dwarf/input.h"

namespace firewatch::symbolizer::dwarf {

class CodeFilter {
 public:
  // Sorted; empty: not known. Must outlive the filter.
  explicit CodeFilter(std::span<const AddressRange> executable) : executable_(executable) {}
  // Sorted; must outlive the filter.
  void LimitTo(std::span<const uint64_t> wanted) {
    wanted_ = wanted;
    limited_ = true;
  }

  // Cuts the range to the executable segment that it starts in. False when it is no code: a
  // tombstone (linkers write 0, 1, -1 or -2 for what they left out), or outside of all segments.
  bool IsCode(AddressRange* range) const;
  // Whether an address in [start, end) is wanted.
  bool IsWanted(uint64_t start, uint64_t end) const;
  bool limited() const { return limited_; }
  std::span<const uint64_t> wanted() const { return wanted_; }

 private:
  std::span<const AddressRange> executable_;
  std::span<const uint64_t> wanted_;
  bool limited_ = false;
};

}  // namespace firewatch::symbolizer::dwarf
