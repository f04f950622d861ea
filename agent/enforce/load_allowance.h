// SPDX-License-Identifier: Apache-2.0
// How many sets of rules may be put in force: so many a second, and a burst of three seconds' worth
// before that. A set takes milliseconds of CPU to build and to put in the place of the other; who
// sends a hundred a second would take a tenth of a CPU from the node.
#pragma once

#include <algorithm>
#include <cstdint>

namespace firewatch::agent {

// One thread at a time.
class LoadAllowance {
 public:
  static constexpr uint64_t kBurstSeconds = 3;

  // 0: as many as come. A change begins with a full burst.
  void SetRate(uint32_t per_second) {
    if (per_second == per_second_) return;
    per_second_ = per_second;
    left_ns_ = kFullNs;
  }

  // Nothing when one may be loaded, which is then counted; else how long to wait, in nanoseconds.
  // `now_ns` never goes back.
  uint64_t Take(uint64_t now_ns) {
    if (per_second_ == 0) return 0;
    // Kept as time, so that nothing is rounded away.
    left_ns_ = std::min(kFullNs, left_ns_ + (now_ns - std::min(now_ns, last_ns_)));
    last_ns_ = now_ns;
    const uint64_t price_ns = kSecondNs / per_second_;
    if (left_ns_ < price_ns) return price_ns - left_ns_;
    left_ns_ -= price_ns;
    return 0;
  }

 private:
  static constexpr uint64_t kSecondNs = 1'000'000'000;
  static constexpr uint64_t kFullNs = kBurstSeconds * kSecondNs;

  uint32_t per_second_ = 4;
  uint64_t left_ns_ = kFullNs;
  uint64_t last_ns_ = 0;
};

}  // namespace firewatch::agent
