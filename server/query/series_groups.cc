// SPDX-License-Identifier: Apache-2.0
#include "server/query/series_groups.h"

#include <algorithm>
#include <map>

#include "profile/saturating.h"

namespace firewatch::server {
namespace {

constexpr int64_t kStepUnitMs = 10'000;
constexpr int64_t kWantedPoints = 180;

struct Sum {
  int64_t total = 0;
  std::map<int64_t, int64_t> points;
};

}  // namespace

std::vector<SeriesGroup> GroupSeries(const std::vector<SeriesPoints>& series,
                                     const std::vector<std::string>& labels) {
  std::map<std::vector<std::string>, Sum> sums;
  for (const SeriesPoints& one : series) {
    std::vector<std::string> values;
    values.reserve(labels.size());
    for (const std::string& label : labels) values.emplace_back(one.labels.Get(label));
    Sum& sum = sums[std::move(values)];
    sum.total = profile::SaturatingAdd(sum.total, one.total);
    for (const auto& [time_ms, value] : one.points) {
      int64_t& point = sum.points[time_ms];
      point = profile::SaturatingAdd(point, value);
    }
  }
  std::vector<SeriesGroup> groups;
  groups.reserve(sums.size());
  for (auto& [values, sum] : sums) {
    groups.push_back({values, sum.total, {sum.points.begin(), sum.points.end()}});
  }
  std::sort(groups.begin(), groups.end(), [](const SeriesGroup& a, const SeriesGroup& b) {
    return a.total != b.total ? a.total > b.total : a.values < b.values;
  });
  return groups;
}

int64_t DefaultStepMs(TimeRange range) {
  const int64_t ideal = (range.to_ms - range.from_ms) / kWantedPoints;
  return std::max(kStepUnitMs, (ideal + kStepUnitMs / 2) / kStepUnitMs * kStepUnitMs);
}

}  // namespace firewatch::server
