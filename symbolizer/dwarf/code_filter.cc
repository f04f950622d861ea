// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/code_filter.h"

#include <algorithm>

namespace firewatch::symbolizer::dwarf {

bool CodeFilter::IsCode(AddressRange* range) const {
  if (range->start >= range->end) return false;
  if (executable_.empty()) {
    return range->start > 1 && range->start < UINT64_MAX - 1 &&
           !(range->start >= UINT32_MAX - 1 && range->start <= UINT32_MAX);
  }
  for (const AddressRange& segment : executable_) {  // one or two
    if (range->start < segment.start || range->start >= segment.end) continue;
    range->end = std::min(range->end, segment.end);
    return true;
  }
  return false;
}

bool CodeFilter::IsWanted(uint64_t start, uint64_t end) const {
  if (!limited_) return true;
  const auto first = std::lower_bound(wanted_.begin(), wanted_.end(), start);
  return first != wanted_.end() && *first < end;
}

}  // namespace firewatch::symbolizer::dwarf
