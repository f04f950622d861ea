// SPDX-License-Identifier: Apache-2.0
// The answer of GET /api/v1/connections. Its fields stand in docs/network.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/network/connection_table.h"
#include "agent/network/network_metrics.h"
#include "agent/network/probe.h"
#include "base/clock.h"
#include "transport/http_server.h"

namespace firewatch::agent {

enum class ConnectionsSort : uint8_t { kBytes, kRetransmits, kRtt, kAge };

struct ConnectionsQuery {
  std::optional<uint32_t> pid;
  size_t limit = 1'000;  // 0 .. 100,000 of each list
  ConnectionsSort sort = ConnectionsSort::kBytes;
  std::optional<uint64_t> events_since;  // nothing: no events
};

// InvalidArgument says which parameter, and what it may be.
absl::StatusOr<ConnectionsQuery> ParseConnectionsQuery(const transport::HttpRequest& request);

// The first `limit` of the living connections in the order of the query; bounded by that.
class LivingConnections {
 public:
  explicit LivingConnections(const ConnectionsQuery& query) : query_(query) {}

  struct Entry {
    uint64_t rank = 0;
    size_t process = 0;
    fw_net_record record{};
  };
  void Add(const fw_net_record& record, size_t process, const NetworkProcess& name);
  std::vector<Entry> Sorted() const;
  size_t matching() const { return matching_; }

 private:
  const ConnectionsQuery query_;
  std::vector<Entry> heap_;
  size_t matching_ = 0;
};

std::string ConnectionsJson(const ConnectionsQuery& query, const LivingConnections& living,
                            ConnectionTable& table, const Probe& probe, NetworkMetrics& metrics,
                            const base::Clock& clock);

}  // namespace firewatch::agent
