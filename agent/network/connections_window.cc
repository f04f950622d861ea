// SPDX-License-Identifier: Apache-2.0
#include "agent/network/connections_window.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace firewatch::agent {
namespace {

static_assert(static_cast<int>(FW_NET_CONNECT) == ingest::CONNECTION_ROLE_CONNECT);
static_assert(static_cast<int>(FW_NET_ACCEPT) == ingest::CONNECTION_ROLE_ACCEPT);

// A failure, a reset or a retransmit is worth as much room as this many segments.
constexpr uint64_t kTroubleWeight = 100;

// 4 or 16 bytes, network order; "" for the table's "other": no service has port 0.
std::string RemoteOf(const NetworkEdge& edge) {
  constexpr std::string_view kMapped("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
  if (edge.port == 0) return "";
  std::string_view bytes(reinterpret_cast<const char*>(edge.remote.bytes),
                         sizeof(edge.remote.bytes));
  // Any address is all zero in both families.
  if (bytes.starts_with(kMapped) || !edge.ipv6) bytes.remove_prefix(kMapped.size());
  return std::string(bytes);
}

size_t BytesOf(const profile::LabelSet& labels) {
  size_t bytes = 0;
  for (const auto& [name, value] : labels.pairs()) bytes += name.size() + value.size();
  return bytes;
}

}  // namespace

void ConnectionsWindow::Sum::Add(const Sum& other) {
  totals.Add(other.totals);
  living += other.living;
}

uint64_t ConnectionsWindow::Sum::Weight() const {
  return totals.segments_sent + totals.segments_received + living +
         kTroubleWeight * (totals.retransmits + totals.syn_retransmits + totals.failed +
                           totals.resets_sent + totals.resets_received);
}

void ConnectionsWindow::Add(const NetworkEdge& edge, const NetworkProcess& process,
                            const NetworkTotals& recent) {
  const profile::LabelSet& labels = process.labels           ? *process.labels
                                    : process.name().empty() ? *options_.nobody
                                                             : *options_.others;
  groups_[labels][Key(edge.role, RemoteOf(edge), edge.port)].Add(
      {.totals = recent, .living = edge.living});
}

// At most a quarter of the edges are an "other" of their labels each, in two roles: half of them.
size_t ConnectionsWindow::FoldGroups() {
  struct Ranked {
    uint64_t weight = 0;
    const profile::LabelSet* labels = nullptr;
  };
  std::vector<Ranked> ranked;
  for (const auto& [labels, group] : groups_) {
    if (labels == *options_.others) continue;
    Ranked one{.labels = &labels};
    for (const auto& [key, sum] : group) one.weight += sum.Weight();
    ranked.push_back(one);
  }
  std::ranges::sort(ranked, [](const Ranked& a, const Ranked& b) {
    return a.weight != b.weight ? a.weight > b.weight : *a.labels < *b.labels;
  });
  size_t kept = 0;
  size_t bytes = 0;
  std::vector<profile::LabelSet> folded;
  for (const Ranked& one : ranked) {
    bytes += BytesOf(*one.labels);
    if (kept < options_.max_edges / 4 - 1 && bytes <= options_.max_label_bytes) {
      ++kept;
    } else {
      folded.push_back(*one.labels);
    }
  }
  size_t summed = 0;
  for (const profile::LabelSet& labels : folded) {
    auto node = groups_.extract(labels);
    summed += node.mapped().size();
    Group& others = groups_[*options_.others];
    for (const auto& [key, sum] : node.mapped()) others[Key(std::get<0>(key), "", 0)].Add(sum);
  }
  return summed;
}

size_t ConnectionsWindow::FoldEdges() {
  struct Ranked {
    uint64_t weight = 0;
    Group* group = nullptr;
    const Key* key = nullptr;
  };
  std::vector<Ranked> ranked;
  size_t edges = 0;
  for (auto& [labels, group] : groups_) {
    edges += group.size();
    for (const auto& [key, sum] : group) {
      if (!std::get<1>(key).empty()) {
        ranked.push_back({.weight = sum.Weight(), .group = &group, .key = &key});
      }
    }
  }
  if (edges <= options_.max_edges) return 0;
  const size_t room = options_.max_edges - 2 * groups_.size();
  if (ranked.size() <= room) return 0;
  std::ranges::sort(ranked, [](const Ranked& a, const Ranked& b) {
    return a.weight != b.weight ? a.weight > b.weight : *a.key < *b.key;
  });
  for (size_t i = room; i < ranked.size(); ++i) {
    const auto found = ranked[i].group->find(*ranked[i].key);
    const Sum sum = found->second;
    const uint8_t role = std::get<0>(found->first);
    ranked[i].group->erase(found);
    (*ranked[i].group)[Key(role, "", 0)].Add(sum);
  }
  return ranked.size() - room;
}

size_t ConnectionsWindow::Write(ingest::UploadWindowRequest* request) {
  size_t summed = FoldGroups();
  summed += FoldEdges();
  for (const auto& [labels, group] : groups_) {
    ingest::ServiceConnections* service = request->add_connections();
    for (const auto& [name, value] : labels.pairs()) {
      ingest::LabelPair* pair = service->add_labels();
      pair->set_name(name);
      pair->set_value(value);
    }
    for (const auto& [key, sum] : group) {
      const auto& [role, remote, port] = key;
      const NetworkTotals& totals = sum.totals;
      ingest::ConnectionEdge* edge = service->add_edges();
      edge->set_role(static_cast<ingest::ConnectionRole>(role));
      edge->set_remote_address(remote);
      edge->set_port(port);
      edge->set_opened(totals.opened);
      edge->set_closed(totals.closed);
      edge->set_failed(totals.failed);
      edge->set_resets_sent(totals.resets_sent);
      edge->set_resets_received(totals.resets_received);
      edge->set_retransmits(totals.retransmits);
      edge->set_syn_retransmits(totals.syn_retransmits);
      edge->set_bytes_sent(totals.bytes_sent);
      edge->set_bytes_received(totals.bytes_received);
      edge->set_segments_sent(totals.segments_sent);
      edge->set_segments_received(totals.segments_received);
      edge->set_duration_us(totals.duration_us);
      edge->set_rtt_us(totals.rtt_us);
      edge->set_rtt_count(totals.rtt_count);
      edge->set_living(sum.living);
    }
  }
  return summed;
}

}  // namespace firewatch::agent
