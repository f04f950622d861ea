// SPDX-License-Identifier: Apache-2.0
// One window's connections on their way to the server: what the table has had since the last
// window, per labels, role, peer and port. Bounded; what does not fit is one "other" of its labels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "agent/network/connection_table.h"
#include "profile/labels.h"
#include "proto/ingest.pb.h"

namespace firewatch::agent {

struct ConnectionsWindowOptions {
  size_t max_edges = 4'096;                  // those called "other" among them; at least 8
  size_t max_label_bytes = size_t{1} << 20;  // of all sets of labels together
  // Of processes that nobody knows, and of those that were too many to keep apart. Not null.
  std::shared_ptr<const profile::LabelSet> nobody;
  std::shared_ptr<const profile::LabelSet> others;
};

// One thread; used once.
class ConnectionsWindow {
 public:
  explicit ConnectionsWindow(ConnectionsWindowOptions options) : options_(std::move(options)) {}

  void Add(const NetworkEdge& edge, const NetworkProcess& process, const NetworkTotals& recent);
  bool empty() const { return groups_.empty(); }

  // Appends to `request->connections`. Returns how many (labels, role, peer, port) were summed into
  // an "other" because of the bounds: those with the least traffic.
  size_t Write(ingest::UploadWindowRequest* request);

 private:
  using Key = std::tuple<uint8_t, std::string, uint16_t>;  // role, 0, 4 or 16 bytes, port
  struct Sum {
    NetworkTotals totals;
    uint64_t living = 0;
    void Add(const Sum& other);
    uint64_t Weight() const;
  };
  using Group = std::map<Key, Sum>;

  size_t FoldGroups();
  size_t FoldEdges();

  const ConnectionsWindowOptions options_;
  std::map<profile::LabelSet, Group> groups_;
};

}  // namespace firewatch::agent
