// SPDX-License-Identifier: Apache-2.0
// The slow and obvious twin of a store: keeps every window as it came and answers by going through
// all of them, with maps of text. Tests compare an engine with it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/store/profile_store.h"

namespace firewatch::server {

class MapStore {
 public:
  void Append(const WindowBatch& batch);

  std::vector<std::string> LabelNames(const Query& query) const;
  std::vector<std::string> LabelValues(const Query& query, std::string_view name) const;
  std::vector<SeriesPoints> Series(const Query& query, int64_t step_ms) const;
  ConnectionReport Connections(const Query& query) const;
  // As DescribeSamples of the merged profile: names are the best that any matching window had.
  std::vector<std::string> MergedSamples(const Query& query) const;

 private:
  std::vector<const SeriesProfile*> Matching(const Query& query) const;
  // Of series with samples or connections.
  std::vector<const profile::LabelSet*> MatchingLabels(const Query& query) const;
  std::vector<WindowBatch> windows_;
};

}  // namespace firewatch::server
