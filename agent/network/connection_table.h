// SPDX-License-Identifier: Apache-2.0
// What the TCP probe has seen, put together: sums per (program, peer, port) from the kernel's
// edges, from living connections and from ends of connections; listeners; drops; the latest events.
// Pure: no kernel, no clock; everything it holds is bounded, and what does not fit goes to one
// "other".
//
// How a connection is counted once. One that ends before any report has shown it comes in the edges
// and is added whole. One that a report has shown is tracked: each report adds what is new since
// the last, its end adds the rest, and it never comes in the edges (bpf/network.bpf.c, finish()).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "bpf/include/network.h"
#include "profile/labels.h"

namespace firewatch::agent {

// Which program it was, as far as it is shown. Two processes of one program in one container are
// one, unless their labels differ; the pid is that of the latest.
struct NetworkProcess {
  uint32_t pid = 0;  // 0: unknown
  std::string comm;
  std::string exe;  // path, or its last part where the path is not known; "" unknown
  std::string service;
  std::string container_id;
  // Those of its profiles; nullptr: nobody knows the process, or it is one of several.
  std::shared_ptr<const profile::LabelSet> labels;

  std::string name() const { return !exe.empty() ? exe : comm; }
};

struct NetworkTotals {
  uint64_t opened = 0;  // established, either side
  uint64_t closed = 0;
  uint64_t failed = 0;  // never established
  uint64_t resets_sent = 0;
  uint64_t resets_received = 0;
  uint64_t retransmits = 0;      // data segments
  uint64_t syn_retransmits = 0;  // of connecting sockets
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  uint64_t segments_sent = 0;
  uint64_t segments_received = 0;
  uint64_t duration_us = 0;  // of the closed
  uint64_t rtt_us = 0;       // sum over rtt_count
  uint64_t rtt_count = 0;

  void Add(const NetworkTotals& other);
  bool empty() const {
    return opened + closed + failed + bytes_sent + bytes_received + retransmits + syn_retransmits +
               resets_sent + resets_received ==
           0;
  }
};

struct NetworkEdge {
  size_t process = 0;  // index into ConnectionTable::processes()
  uint8_t role = 0;    // enum fw_net_role: CONNECT or ACCEPT
  bool ipv6 = false;
  fw_net_address remote{};
  uint16_t port = 0;
  NetworkTotals totals;
  NetworkTotals recent;       // since the last TakeRecent
  uint64_t living = 0;        // connections, at the last report
  uint64_t living_taken = 0;  // as the last TakeRecent told
};

struct NetworkDrop {
  uint32_t reason = 0;
  uint64_t location = 0;  // of a drop without reason; else 0
  uint8_t protocol = 0;
  size_t process = 0;  // 0: no process
  uint64_t packets = 0;
};

struct NetworkListener {
  fw_net_record record{};
  size_t process = 0;
  uint64_t drops = 0;  // of its life, as the kernel counts
  uint64_t synack_retransmits = 0;
};

struct NetworkEvent {
  uint64_t number = 0;  // 1, 2, …
  fw_net_record record{};
  size_t process = 0;
};

struct ConnectionTableOptions {
  size_t max_edges = 8'192;
  size_t max_tracked = 131'072;
  size_t max_processes = 4'096;
  size_t max_drops = 1'024;
  size_t max_listeners = 8'192;
  size_t max_events = 4'096;
};

// One home thread, or a lock of the caller's.
class ConnectionTable {
 public:
  // Says who an owner is; called once per life of a process, and again when it had no name.
  using Resolver = std::function<NetworkProcess(const fw_net_owner& owner)>;

  ConnectionTable(ConnectionTableOptions options, Resolver resolver);

  // One report of the living: Begin, every record, End.
  void BeginReport();
  // Returns the process of the record.
  size_t AddLiving(const fw_net_record& record);
  void EndReport();

  void AddRecord(const fw_net_record& record);  // of the ring
  void AddEdge(const fw_net_edge& edge, const fw_net_edge_counts& counts);
  // Sums that the kernel could not keep apart, by role, since the probe's start.
  void SetOverflow(const std::array<fw_net_edge_counts, FW_NET_ROLES>& overflow);

  // processes()[0] is "nobody knows", [1] is "others": those that did not fit.
  const std::vector<NetworkProcess>& processes() const { return processes_; }
  size_t ProcessOf(const fw_net_owner& owner);
  // edges()[0] is "other".
  const std::vector<NetworkEdge>& edges() const { return edges_; }
  const std::vector<NetworkDrop>& drops() const { return drops_; }
  void ForEachListener(absl::FunctionRef<void(const NetworkListener&)> callback) const;
  void ForEachEventSince(uint64_t number,
                         absl::FunctionRef<void(const NetworkEvent&)> callback) const;
  uint64_t last_event() const { return last_event_; }

  const NetworkTotals& outgoing() const { return by_role_[FW_NET_CONNECT]; }
  const NetworkTotals& incoming() const { return by_role_[FW_NET_ACCEPT]; }
  const std::map<uint32_t, uint64_t>& failures_by_errno() const { return failures_; }
  const std::map<uint32_t, uint64_t>& resets_by_reason() const { return reset_reasons_; }
  uint64_t stray_resets() const { return stray_resets_; }
  uint64_t synack_retransmits() const { return synack_retransmits_; }
  uint64_t listen_drops() const { return listen_drops_; }
  // Living connections whose process is only that of the listener, or none: ask the descriptors.
  size_t uncertain_owners() const { return uncertain_; }
  size_t tracked() const { return tracked_.size(); }
  size_t listeners() const { return listeners_.size(); }
  uint64_t not_tracked() const { return not_tracked_; }
  uint64_t rtt_bucket(size_t bucket) const { return rtt_[bucket]; }
  uint64_t rtt_sum_us() const { return rtt_sum_us_; }
  size_t heap_bytes() const;

  // Hands out what each edge has had since the last call: those with something new, with living
  // connections, or without the ones that were living then.
  void TakeRecent(absl::FunctionRef<void(const NetworkEdge&, const NetworkTotals&)> callback);

  // Called with every delta: (edge, what is new). For metrics with a memory of their own.
  void SetObserver(std::function<void(const NetworkEdge&, const NetworkTotals&)> observer) {
    observer_ = std::move(observer);
  }

 private:
  using EdgeKey = std::tuple<size_t, uint8_t, uint16_t, std::string>;
  struct Tracked {
    size_t edge = 0;
    uint32_t report = 0;  // the last one that showed it
    uint8_t flags = 0;    // resets that are counted
    bool established = false;
    NetworkTotals reported;
  };

  size_t FindEdge(const fw_net_owner& owner, uint8_t role, uint16_t port, bool ipv6,
                  const fw_net_address& remote);
  void Count(size_t edge, const NetworkTotals& delta);
  void CountTracked(const fw_net_record& record, Tracked& tracked, bool ended);
  void AddListener(const fw_net_record& record);
  void RememberEvent(const fw_net_record& record);
  void AddDrop(const fw_net_edge& edge, uint64_t packets);
  void CountRtt(uint32_t rtt_us);
  size_t AddProcess(NetworkProcess process);

  const ConnectionTableOptions options_;
  const Resolver resolver_;
  std::function<void(const NetworkEdge&, const NetworkTotals&)> observer_;
  std::vector<NetworkProcess> processes_;
  absl::flat_hash_map<std::string, size_t> process_ids_;
  absl::flat_hash_map<std::string, size_t> owner_ids_;
  std::vector<NetworkEdge> edges_;
  absl::flat_hash_map<EdgeKey, size_t> edge_ids_;
  // By socket and the time it was opened: the kernel gives an address again at once, and the end of
  // one may be read after its successor was seen living.
  absl::flat_hash_map<std::pair<uint64_t, uint64_t>, Tracked> tracked_;
  absl::flat_hash_map<uint64_t, NetworkListener> listeners_;
  std::vector<NetworkDrop> drops_;  // [0]: others
  std::map<std::tuple<uint32_t, uint64_t, uint8_t, size_t>, size_t> drop_ids_;
  std::deque<NetworkEvent> events_;
  std::array<NetworkTotals, FW_NET_ROLES> by_role_{};
  std::array<fw_net_edge_counts, FW_NET_ROLES> overflow_{};
  std::map<uint32_t, uint64_t> failures_;
  std::map<uint32_t, uint64_t> reset_reasons_;
  std::array<uint64_t, FW_NET_RTT_BUCKETS> rtt_{};
  uint64_t rtt_sum_us_ = 0;
  uint64_t stray_resets_ = 0;
  uint64_t synack_retransmits_ = 0;
  uint64_t listen_drops_ = 0;
  uint64_t not_tracked_ = 0;
  uint64_t last_event_ = 0;
  uint32_t report_ = 0;
  size_t uncertain_ = 0;
};

// "10.0.0.1" or "2001:db8::1"; mapped addresses as IPv4. Any address is all zero in both families:
// `ipv6` tells which.
std::string AddressText(const fw_net_address& address, bool ipv6 = true);
// "10.0.0.1:80", "[2001:db8::1]:80".
std::string EndpointText(const fw_net_address& address, uint16_t port, bool ipv6 = true);
// "ESTABLISHED"; linux/tcp_states.h.
std::string_view TcpStateName(uint8_t state);

}  // namespace firewatch::agent
