// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/label_reader.h"

#include <map>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "server/store/embedded/partition_scan.h"

namespace firewatch::server {
namespace {

absl::Status ForEachActiveSeries(const Database& database, const Query& query,
                                 const std::function<void(const profile::LabelSet&)>& visit) {
  RETURN_IF_ERROR(CheckQuery(query));
  Cursor cursor = database.NewCursor(Table::kPartitions);
  return ForEachPartition(cursor, query, [&](const PartitionKey& partition) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SelectedSeries> selected,
                     SelectActiveSeries(cursor, partition, query));
    for (const SelectedSeries& series : selected) visit(series.labels);
    return absl::OkStatus();
  });
}

// Adds up over windows. Values of one series never approach 2^63 (292 years of CPU), but they come
// from outside: sums stop there.
void AddSaturated(int64_t& sum, int64_t value) {
  if (__builtin_add_overflow(sum, value, &sum)) sum = INT64_MAX;
}

using StepSums = std::map<int64_t, int64_t>;

}  // namespace

absl::StatusOr<std::vector<std::string>> ReadLabelNames(const Database& database,
                                                        const Query& query) {
  std::set<std::string, std::less<>> names;
  RETURN_IF_ERROR(ForEachActiveSeries(database, query, [&names](const profile::LabelSet& labels) {
    for (const auto& [name, value] : labels.pairs()) names.insert(name);
  }));
  return std::vector<std::string>(names.begin(), names.end());
}

absl::StatusOr<std::vector<std::string>> ReadLabelValues(const Database& database,
                                                         const Query& query,
                                                         std::string_view name) {
  std::set<std::string, std::less<>> values;
  RETURN_IF_ERROR(ForEachActiveSeries(database, query, [&](const profile::LabelSet& labels) {
    if (const std::string_view value = labels.Get(name); !value.empty()) values.emplace(value);
  }));
  return std::vector<std::string>(values.begin(), values.end());
}

absl::StatusOr<std::vector<SeriesPoints>> ReadSeries(const Database& database, const Query& query,
                                                     int64_t step_ms) {
  RETURN_IF_ERROR(CheckQuery(query));
  if (step_ms <= 0) return base::InvalidArgument("the step is {} ms, not positive", step_ms);
  const bool want_cpu = query.sample_type == "cpu";
  std::map<profile::LabelSet, StepSums> by_labels;
  Cursor cursor = database.NewCursor(Table::kPartitions);
  const auto add_partition = [&](const PartitionKey& partition) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SelectedSeries> selected,
                     SelectSeries(cursor, partition, query.selector));
    if (selected.empty()) return absl::OkStatus();
    absl::flat_hash_map<uint32_t, StepSums> sums;
    for (const SelectedSeries& series : selected) sums[series.id];
    RETURN_IF_ERROR(ForEachWindow(
        cursor, partition, query.range, [&](int64_t start_ms, const WindowRow& window) {
          const int64_t step_start = start_ms - start_ms % step_ms;
          for (const auto& total : window.totals) {
            const auto found = sums.find(total.series);
            if (found == sums.end()) continue;
            AddSaturated(found->second[step_start], want_cpu ? total.cpu_ns : total.samples);
          }
        }));
    for (const SelectedSeries& series : selected) {
      const StepSums& steps = sums[series.id];
      if (steps.empty()) continue;
      StepSums& all = by_labels[series.labels];
      for (const auto& [step, sum] : steps) AddSaturated(all[step], sum);
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(ForEachPartition(cursor, query, add_partition));
  std::vector<SeriesPoints> result;
  for (auto& [labels, steps] : by_labels) {
    SeriesPoints points;
    points.labels = labels;
    for (const auto& [step, sum] : steps) {
      points.points.emplace_back(step, sum);
      AddSaturated(points.total, sum);
    }
    result.push_back(std::move(points));
  }
  return result;
}

}  // namespace firewatch::server
