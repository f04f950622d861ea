// SPDX-License-Identifier: Apache-2.0
// Series over time, added up by some of their labels.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/store/profile_store.h"

namespace firewatch::server {

struct SeriesGroup {
  std::vector<std::string> values;  // of the group's labels, in their order; "" when absent
  int64_t total = 0;
  std::vector<std::pair<int64_t, int64_t>> points;  // (step start ms, sum), ascending
};

// Sorted by total, largest first, then by values. Without labels there is one group (none when
// there is no series). Sums stop at the ends of int64 instead of wrapping.
std::vector<SeriesGroup> GroupSeries(const std::vector<SeriesPoints>& series,
                                     const std::vector<std::string>& labels);

// About 180 points over the range, a multiple of 10 s and at least 10 s (the agents' window).
int64_t DefaultStepMs(TimeRange range);

}  // namespace firewatch::server
