// SPDX-License-Identifier: Apache-2.0
// Sample values are added in int64 and stop at its ends: a sum that does not fit is shown as the
// largest number there is, never as a small or negative one.
#pragma once

#include <cstdint>
#include <limits>

namespace firewatch::profile {

inline int64_t SaturatingAdd(int64_t a, int64_t b) {
  int64_t sum;
  if (!__builtin_add_overflow(a, b, &sum)) return sum;
  return b > 0 ? std::numeric_limits<int64_t>::max() : std::numeric_limits<int64_t>::min();
}

}  // namespace firewatch::profile
