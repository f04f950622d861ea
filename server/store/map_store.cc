// SPDX-License-Identifier: Apache-2.0
#include "server/store/map_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace firewatch::server {
namespace {

bool InRange(const WindowBatch& window, const Query& query) {
  return window.tenant == query.tenant && window.window.from_ms >= query.range.from_ms &&
         window.window.from_ms < query.range.to_ms;
}

struct Name {
  size_t lines = 0;
  size_t with_file = 0;
  std::string text;
};

Name NameOf(const profile::Profile& profile, const profile::Location& location) {
  Name name;
  for (const profile::Line& line : location.lines) {
    const profile::Function& function = profile.functions[line.function.index()];
    if (!name.text.empty()) name.text += '<';
    name.text +=
        fmt::format("{}|{}|{}:{}", profile.String(function.name),
                    profile.String(function.system_name), profile.String(function.file), line.line);
    ++name.lines;
    if (!profile.String(function.file).empty() && line.line != 0) ++name.with_file;
  }
  return name;
}

// Offsets only: the test world has one binary.
std::string Place(const profile::Profile& profile, const profile::Location& location) {
  const profile::Mapping& mapping = profile.mappings[location.mapping.index()];
  return fmt::format("{}+{:#x}", profile.String(mapping.file), location.address);
}

}  // namespace

void MapStore::Append(const WindowBatch& batch) {
  for (const WindowBatch& known : windows_) {
    if (known.tenant == batch.tenant && known.upload.agent_id == batch.upload.agent_id &&
        known.upload.sequence == batch.upload.sequence) {
      return;
    }
  }
  windows_.push_back(batch);
}

std::vector<const SeriesProfile*> MapStore::Matching(const Query& query) const {
  std::vector<const SeriesProfile*> matching;
  for (const WindowBatch& window : windows_) {
    if (!InRange(window, query)) continue;
    for (const SeriesProfile& series : window.series) {
      if (query.selector.Matches(series.labels)) matching.push_back(&series);
    }
  }
  return matching;
}

std::vector<const profile::LabelSet*> MapStore::MatchingLabels(const Query& query) const {
  std::vector<const profile::LabelSet*> matching;
  for (const SeriesProfile* series : Matching(query)) matching.push_back(&series->labels);
  for (const WindowBatch& window : windows_) {
    if (!InRange(window, query)) continue;
    for (const SeriesConnections& series : window.connections) {
      if (!series.edges.empty() && query.selector.Matches(series.labels)) {
        matching.push_back(&series.labels);
      }
    }
  }
  return matching;
}

std::vector<std::string> MapStore::LabelNames(const Query& query) const {
  std::set<std::string> names;
  for (const profile::LabelSet* labels : MatchingLabels(query)) {
    for (const auto& [name, value] : labels->pairs()) names.insert(name);
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> MapStore::LabelValues(const Query& query, std::string_view name) const {
  std::set<std::string> values;
  for (const profile::LabelSet* labels : MatchingLabels(query)) {
    if (!labels->Get(name).empty()) values.emplace(labels->Get(name));
  }
  return {values.begin(), values.end()};
}

std::vector<SeriesPoints> MapStore::Series(const Query& query, int64_t step_ms) const {
  std::map<std::string, std::map<int64_t, int64_t>> sums;
  std::map<std::string, profile::LabelSet> labels;
  for (const WindowBatch& window : windows_) {
    if (!InRange(window, query)) continue;
    for (const SeriesProfile& series : window.series) {
      if (!query.selector.Matches(series.labels)) continue;
      labels[series.labels.ToString()] = series.labels;
      int64_t& sum = sums[series.labels.ToString()][window.window.from_ms / step_ms * step_ms];
      const int type = series.profile.FindSampleType(query.sample_type);
      for (const auto& sample : series.profile.samples) {
        sum += sample.values[static_cast<size_t>(type)];
      }
    }
  }
  std::vector<SeriesPoints> result;
  for (const auto& [text, steps] : sums) {
    SeriesPoints points;
    points.labels = labels[text];
    for (const auto& step : steps) {
      points.points.push_back(step);
      points.total += step.second;
    }
    result.push_back(std::move(points));
  }
  std::ranges::sort(result, {}, &SeriesPoints::labels);
  return result;
}

ConnectionReport MapStore::Connections(const Query& query) const {
  using Key = std::tuple<profile::LabelSet, ConnectionRole, std::string, uint16_t>;
  std::map<Key, ConnectionCounts> sums;
  std::map<Key, std::map<int64_t, uint64_t>> living;  // by start of the window
  ConnectionReport report;
  for (const WindowBatch& window : windows_) {
    if (!InRange(window, query)) continue;
    bool matched = false;
    for (const SeriesConnections& series : window.connections) {
      if (!query.selector.Matches(series.labels)) continue;
      for (const ConnectionEdge& edge : series.edges) {
        const Key key(series.labels, edge.role, edge.remote, edge.port);
        for (const auto counter : kConnectionCounters) sums[key].*counter += edge.counts.*counter;
        living[key][window.window.from_ms] += edge.living;
        matched = true;
      }
    }
    if (matched) ++report.windows;
  }
  for (const auto& [key, counts] : sums) {
    const auto& [labels, role, remote, port] = key;
    report.rows.push_back({.labels = labels,
                           .edge = {.role = role,
                                    .remote = remote,
                                    .port = port,
                                    .counts = counts,
                                    .living = living[key].rbegin()->second}});
  }
  return report;
}

std::vector<std::string> MapStore::MergedSamples(const Query& query) const {
  std::map<std::string, Name> names;  // by place
  std::map<std::pair<std::vector<std::string>, std::string>, std::pair<int64_t, int64_t>> sums;
  for (const SeriesProfile* series : Matching(query)) {
    const profile::Profile& profile = series->profile;
    const auto samples = static_cast<size_t>(profile.FindSampleType("samples"));
    const auto cpu = static_cast<size_t>(profile.FindSampleType("cpu"));
    for (const profile::Sample& sample : profile.samples) {
      std::vector<std::string> places;
      for (const profile::LocationId id : profile.stacks[sample.stack.index()]) {
        const profile::Location& location = profile.locations[id.index()];
        places.push_back(Place(profile, location));
        const Name name = NameOf(profile, location);
        Name& best = names[places.back()];
        if (std::pair(name.lines, name.with_file) > std::pair(best.lines, best.with_file)) {
          best = name;
        }
      }
      auto& sum = sums[{places, profile.label_sets[sample.labels.index()].ToString()}];
      sum.first += sample.values[samples];
      sum.second += sample.values[cpu];
    }
  }
  std::vector<std::string> lines;
  for (const auto& [key, sum] : sums) {
    std::string line;
    for (auto place = key.first.rbegin(); place != key.first.rend(); ++place) {
      if (!line.empty()) line += ';';
      line += names[*place].text.empty() ? *place : names[*place].text;
    }
    lines.push_back(fmt::format("{} {} {} {}", line, key.second, sum.first, sum.second));
  }
  std::ranges::sort(lines);
  return lines;
}

}  // namespace firewatch::server
