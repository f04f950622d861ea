// SPDX-License-Identifier: Apache-2.0
#include "server/store/connections.h"

#include <algorithm>
#include <utility>

namespace firewatch::server {

bool IsValidEdge(const ConnectionEdge& edge) {
  if (edge.role != ConnectionRole::kConnect && edge.role != ConnectionRole::kAccept) return false;
  const size_t size = edge.remote.size();
  if (size != 0 && size != 4 && size != 16) return false;
  if (size == 0 && edge.port != 0) return false;
  return edge.living <= INT64_MAX && std::ranges::all_of(kConnectionCounters, [&](auto counter) {
           return edge.counts.*counter <= INT64_MAX;
         });
}

void NormalizeEdges(std::vector<ConnectionEdge>& edges) {
  std::ranges::sort(edges, [](const auto& a, const auto& b) { return a.Key() < b.Key(); });
  size_t kept = 0;
  for (size_t i = 1; i < edges.size(); ++i) {
    if (edges[i].Key() == edges[kept].Key()) {
      edges[kept].counts.Add(edges[i].counts);
      edges[kept].living = AddCounts(edges[kept].living, edges[i].living);
    } else if (++kept != i) {
      edges[kept] = std::move(edges[i]);
    }
  }
  if (!edges.empty()) edges.resize(kept + 1);
}

size_t ConnectionMerger::AddLabels(const profile::LabelSet& labels) {
  const auto [found, is_new] = ids_.try_emplace(labels, sums_.size());
  if (is_new) sums_.emplace_back();
  return found->second;
}

void ConnectionMerger::Add(size_t labels, int64_t start_ms, const ConnectionEdge& edge) {
  auto& sums = sums_[labels];
  const Key key(edge.role, edge.remote, edge.port);
  auto found = sums.find(key);
  if (found == sums.end() && rows_ >= max_rows_) {
    found = sums.try_emplace(Key(edge.role, "", 0)).first;
  } else if (found == sums.end()) {
    ++rows_;
    found = sums.try_emplace(key).first;
  }
  Sum& sum = found->second;
  sum.counts.Add(edge.counts);
  if (start_ms > sum.start_ms) {
    sum.start_ms = start_ms;
    sum.living = edge.living;
  } else if (start_ms == sum.start_ms) {
    // Two agents of one node, or several edges that are one "other" here.
    sum.living = AddCounts(sum.living, edge.living);
  }
}

std::vector<ConnectionRow> ConnectionMerger::Finish() && {
  std::vector<ConnectionRow> rows;
  for (const auto& [labels, id] : ids_) {
    for (const auto& [key, sum] : sums_[id]) {
      const auto& [role, remote, port] = key;
      rows.push_back({.labels = labels,
                      .edge = {.role = role,
                               .remote = remote,
                               .port = port,
                               .counts = sum.counts,
                               .living = sum.living}});
    }
  }
  std::ranges::sort(rows, [](const ConnectionRow& a, const ConnectionRow& b) {
    const auto order = a.labels <=> b.labels;
    return order != 0 ? order < 0 : a.edge.Key() < b.edge.Key();
  });
  return rows;
}

}  // namespace firewatch::server
