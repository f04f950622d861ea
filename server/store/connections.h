// SPDX-License-Identifier: Apache-2.0
// Who talked to whom over TCP: what the network probe's windows hold and what a query gives back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "profile/labels.h"

namespace firewatch::server {

// Numbers of the wire and of stored rows.
enum class ConnectionRole : uint8_t { kConnect = 1, kAccept = 2 };

// Sums; `rtt_us` is a sum over `rtt_count` connections. Each is below 2^63 and stays there.
struct ConnectionCounts {
  uint64_t opened = 0;
  uint64_t closed = 0;
  uint64_t failed = 0;
  uint64_t resets_sent = 0;
  uint64_t resets_received = 0;
  uint64_t retransmits = 0;
  uint64_t syn_retransmits = 0;
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  uint64_t segments_sent = 0;
  uint64_t segments_received = 0;
  uint64_t duration_us = 0;
  uint64_t rtt_us = 0;
  uint64_t rtt_count = 0;

  void Add(const ConnectionCounts& other);
  friend bool operator==(const ConnectionCounts&, const ConnectionCounts&) = default;
};

// In the order of stored rows: never reorder, add at the end.
inline constexpr std::array<uint64_t ConnectionCounts::*, 14> kConnectionCounters = {
    &ConnectionCounts::opened,
    &ConnectionCounts::closed,
    &ConnectionCounts::failed,
    &ConnectionCounts::resets_sent,
    &ConnectionCounts::resets_received,
    &ConnectionCounts::retransmits,
    &ConnectionCounts::syn_retransmits,
    &ConnectionCounts::bytes_sent,
    &ConnectionCounts::bytes_received,
    &ConnectionCounts::segments_sent,
    &ConnectionCounts::segments_received,
    &ConnectionCounts::duration_us,
    &ConnectionCounts::rtt_us,
    &ConnectionCounts::rtt_count};

// Both below 2^63; the sum stops at 2^63 - 1.
constexpr uint64_t AddCounts(uint64_t a, uint64_t b) {
  const uint64_t sum = a + b;
  return sum <= INT64_MAX ? sum : INT64_MAX;
}

inline void ConnectionCounts::Add(const ConnectionCounts& other) {
  for (const auto counter : kConnectionCounters) {
    this->*counter = AddCounts(this->*counter, other.*counter);
  }
}

// All connections of a process's labels in one role with one peer and one port of the service.
struct ConnectionEdge {
  ConnectionRole role = ConnectionRole::kConnect;
  std::string remote;  // 4 or 16 bytes, network order; "" with port 0: what was not kept apart
  uint16_t port = 0;
  ConnectionCounts counts;
  uint64_t living = 0;  // at the end of the window; below 2^63

  auto Key() const { return std::tie(role, remote, port); }
  friend bool operator==(const ConnectionEdge&, const ConnectionEdge&) = default;
};

// Role, length of the address, port, counts as the members' comments say.
bool IsValidEdge(const ConnectionEdge& edge);

// Sorts by Key() and adds equal ones up.
void NormalizeEdges(std::vector<ConnectionEdge>& edges);

struct SeriesConnections {
  profile::LabelSet labels;
  std::vector<ConnectionEdge> edges;
};

// An edge summed over time. `living` is that of the newest window that has it.
struct ConnectionRow {
  profile::LabelSet labels;
  ConnectionEdge edge;
  friend bool operator==(const ConnectionRow&, const ConnectionRow&) = default;
};

struct ConnectionReport {
  std::vector<ConnectionRow> rows;  // ascending by labels, then ConnectionEdge::Key
  uint64_t windows = 0;             // that had something which matched
};

// Of one answer: some 30 MB.
inline constexpr size_t kMaxConnectionRows = 100'000;

// Sums edges of many windows in any order. Bounded: once there are `max_rows`, an edge that is not
// among them counts towards the "other" (no address) of its labels and role. One thread.
class ConnectionMerger {
 public:
  explicit ConnectionMerger(size_t max_rows) : max_rows_(max_rows) {}

  // A handle for Add; equal sets have equal ones.
  size_t AddLabels(const profile::LabelSet& labels);
  void Add(size_t labels, int64_t start_ms, const ConnectionEdge& edge);
  std::vector<ConnectionRow> Finish() &&;

 private:
  struct Sum {
    ConnectionCounts counts;
    uint64_t living = 0;
    int64_t start_ms = 0;  // of the window that `living` is of
  };
  using Key = std::tuple<ConnectionRole, std::string, uint16_t>;

  const size_t max_rows_;
  absl::flat_hash_map<profile::LabelSet, size_t> ids_;
  std::vector<absl::flat_hash_map<Key, Sum>> sums_;  // by handle
  size_t rows_ = 0;
};

}  // namespace firewatch::server
