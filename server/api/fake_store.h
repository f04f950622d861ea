// SPDX-License-Identifier: Apache-2.0
// A ProfileStore in a vector, for tests: the obvious form of every question.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "profile/builder.h"
#include "profile/merge.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

class FakeStore final : public ProfileStore {
 public:
  // `stack` is root first, "main;work;leaf". Each sample counts 1 and `cpu_ns`.
  void Add(int64_t start_ms, profile::LabelSet labels, std::string_view stack, int64_t cpu_ns) {
    profile::ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
    std::vector<profile::LocationId> leaf_first;
    while (!stack.empty()) {
      const size_t end = std::min(stack.find(';'), stack.size());
      profile::Location location;
      location.lines.push_back({builder.AddFunction(stack.substr(0, end), "", "x.cc"), 0, 0});
      leaf_first.insert(leaf_first.begin(), builder.AddLocation(location));
      stack.remove_prefix(std::min(end + 1, stack.size()));
    }
    const std::vector<int64_t> values = {1, cpu_ns};
    builder.AddSample(builder.AddStack(leaf_first), profile::LabelSetId(), values);
    entries_.push_back({start_ms, {std::move(labels), builder.Finish()}});
  }

  absl::Status Append(const WindowBatch& batch, bool* duplicate) override {
    *duplicate = false;
    for (const SeriesProfile& series : batch.series) {
      entries_.push_back({batch.window.from_ms, series});
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<std::string>> LabelNames(const Query& query) override {
    std::set<std::string> names;
    for (const Entry* entry : Matching(query)) {
      for (const auto& [name, value] : entry->series.labels.pairs()) names.insert(name);
    }
    return std::vector<std::string>(names.begin(), names.end());
  }

  absl::StatusOr<std::vector<std::string>> LabelValues(const Query& query,
                                                       std::string_view name) override {
    std::set<std::string> values;
    for (const Entry* entry : Matching(query)) {
      const std::string_view value = entry->series.labels.Get(name);
      if (!value.empty()) values.emplace(value);
    }
    return std::vector<std::string>(values.begin(), values.end());
  }

  absl::StatusOr<std::vector<SeriesPoints>> Series(const Query& query, int64_t step_ms) override {
    std::map<profile::LabelSet, SeriesPoints> series;
    for (const Entry* entry : Matching(query)) {
      SeriesPoints& points = series[entry->series.labels];
      points.labels = entry->series.labels;
      const int value_index = entry->series.profile.FindSampleType(query.sample_type);
      for (const profile::Sample& sample : entry->series.profile.samples) {
        const int64_t value = sample.values[static_cast<size_t>(value_index)];
        points.points.emplace_back(entry->start_ms / step_ms * step_ms, value);
        points.total += value;
      }
    }
    std::vector<SeriesPoints> all;
    for (auto& [labels, points] : series) all.push_back(std::move(points));
    return all;
  }

  absl::StatusOr<profile::Profile> Merge(const Query& query) override {
    if (!merge_error.ok()) return merge_error;
    last_range = query.range;
    profile::ProfileMerger merger;
    for (const Entry* entry : Matching(query)) {
      RETURN_IF_ERROR(merger.Add(entry->series.profile));
    }
    return merger.Finish();
  }

  absl::StatusOr<ConnectionReport> Connections(const Query& query) override {
    if (!merge_error.ok()) return merge_error;
    last_range = query.range;
    ConnectionReport matching{.rows = {}, .windows = connections.windows};
    for (const ConnectionRow& row : connections.rows) {
      if (query.selector.Matches(row.labels)) matching.rows.push_back(row);
    }
    return matching;
  }

  absl::StatusOr<StoreStats> Stats() override { return stats; }
  absl::Status CheckHealth() override { return health; }
  absl::Status ApplyRetention(int64_t) override { return absl::OkStatus(); }

  // What it answers; set before it is asked.
  absl::Status merge_error;
  absl::Status health;
  StoreStats stats;
  ConnectionReport connections;
  // What it was asked last.
  TimeRange last_range;

 private:
  struct Entry {
    int64_t start_ms = 0;
    SeriesProfile series;
  };

  std::vector<const Entry*> Matching(const Query& query) const {
    std::vector<const Entry*> matching;
    for (const Entry& entry : entries_) {
      if (entry.start_ms >= query.range.from_ms && entry.start_ms < query.range.to_ms &&
          query.selector.Matches(entry.series.labels)) {
        matching.push_back(&entry);
      }
    }
    return matching;
  }

  std::vector<Entry> entries_;
};

}  // namespace firewatch::server
