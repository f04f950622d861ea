// SPDX-License-Identifier: Apache-2.0
#include "agent/network/connection_table.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace firewatch::agent {
namespace {

constexpr size_t kUnknownProcess = 0;
constexpr size_t kOtherProcesses = 1;
constexpr size_t kOtherEdge = 0;
constexpr uint32_t kMissedReports = 2;  // its end was lost with the ring
constexpr std::string_view kAnyAddress("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
constexpr std::string_view kMapped("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);

std::string_view Bytes(const fw_net_address& address) {
  return {reinterpret_cast<const char*>(address.bytes), sizeof(address.bytes)};
}

template <typename T>
std::string_view ObjectBytes(const T& object) {
  static_assert(std::has_unique_object_representations_v<T>);
  return {reinterpret_cast<const char*>(&object), sizeof(object)};
}

// Direction of a socket from before the probe that nobody listens for: it must have connected.
uint8_t EdgeRole(uint8_t role) { return role == FW_NET_ACCEPT ? FW_NET_ACCEPT : FW_NET_CONNECT; }

uint16_t ServicePort(const fw_net_socket& socket) {
  return EdgeRole(socket.role) == FW_NET_CONNECT ? socket.remote_port : socket.local_port;
}

// What the counts say since the socket was made; resets and ends apart.
NetworkTotals TotalsOf(const fw_net_socket& socket) {
  const fw_net_counts& counts = socket.counts;
  NetworkTotals totals;
  totals.retransmits =
      counts.retransmits - std::min(counts.retransmits, counts.handshake_retransmits);
  if (EdgeRole(socket.role) == FW_NET_CONNECT)
    totals.syn_retransmits = counts.handshake_retransmits;
  totals.bytes_sent = counts.bytes_sent;
  totals.bytes_received = counts.bytes_received;
  totals.segments_sent = counts.segments_sent;
  totals.segments_received = counts.segments_received;
  return totals;
}

uint64_t Grown(uint64_t now, uint64_t before) { return now > before ? now - before : 0; }

NetworkTotals Since(const NetworkTotals& now, const NetworkTotals& before) {
  NetworkTotals delta;
  delta.retransmits = Grown(now.retransmits, before.retransmits);
  delta.syn_retransmits = Grown(now.syn_retransmits, before.syn_retransmits);
  delta.bytes_sent = Grown(now.bytes_sent, before.bytes_sent);
  delta.bytes_received = Grown(now.bytes_received, before.bytes_received);
  delta.segments_sent = Grown(now.segments_sent, before.segments_sent);
  delta.segments_received = Grown(now.segments_received, before.segments_received);
  return delta;
}

NetworkTotals TotalsOf(const fw_net_edge_counts& counts) {
  NetworkTotals totals;
  totals.opened = counts.connections - counts.failed;
  totals.closed = counts.connections - counts.failed;
  totals.failed = counts.failed;
  totals.resets_sent = counts.resets_sent;
  totals.resets_received = counts.resets_received;
  totals.retransmits = counts.retransmits;
  totals.syn_retransmits = counts.handshake_retransmits;
  totals.bytes_sent = counts.bytes_sent;
  totals.bytes_received = counts.bytes_received;
  totals.segments_sent = counts.segments_sent;
  totals.segments_received = counts.segments_received;
  totals.duration_us = counts.duration_us;
  totals.rtt_us = counts.rtt_us;
  totals.rtt_count = counts.rtt_count;
  return totals;
}

}  // namespace

void NetworkTotals::Add(const NetworkTotals& other) {
  opened += other.opened;
  closed += other.closed;
  failed += other.failed;
  resets_sent += other.resets_sent;
  resets_received += other.resets_received;
  retransmits += other.retransmits;
  syn_retransmits += other.syn_retransmits;
  bytes_sent += other.bytes_sent;
  bytes_received += other.bytes_received;
  segments_sent += other.segments_sent;
  segments_received += other.segments_received;
  duration_us += other.duration_us;
  rtt_us += other.rtt_us;
  rtt_count += other.rtt_count;
}

ConnectionTable::ConnectionTable(ConnectionTableOptions options, Resolver resolver)
    : options_(options), resolver_(std::move(resolver)) {
  processes_.resize(2);
  processes_[kOtherProcesses].comm = "other";
  edges_.resize(1);
  edges_[kOtherEdge].process = kOtherProcesses;
  edges_[kOtherEdge].role = FW_NET_CONNECT;
  drops_.resize(1);
}

size_t ConnectionTable::AddProcess(NetworkProcess process) {
  const std::string key =
      fmt::format("{}\n{}\n{}\n{}\n{}", process.exe, process.comm, process.service,
                  process.container_id, process.labels ? process.labels->Encode() : "");
  if (const auto found = process_ids_.find(key); found != process_ids_.end()) {
    processes_[found->second].pid = process.pid;
    return found->second;
  }
  if (processes_.size() >= options_.max_processes) return kOtherProcesses;
  process_ids_.emplace(key, processes_.size());
  processes_.push_back(std::move(process));
  return processes_.size() - 1;
}

size_t ConnectionTable::ProcessOf(const fw_net_owner& owner) {
  if (owner.tgid == 0) return kUnknownProcess;
  const std::string key(ObjectBytes(owner));
  if (const auto found = owner_ids_.find(key); found != owner_ids_.end()) return found->second;
  NetworkProcess process = resolver_(owner);
  if (process.name().empty()) return kUnknownProcess;
  // Lives come and go; the cache begins anew rather than to know which is old.
  if (owner_ids_.size() >= options_.max_processes) owner_ids_.clear();
  const size_t id = AddProcess(std::move(process));
  owner_ids_.emplace(key, id);
  return id;
}

size_t ConnectionTable::FindEdge(const fw_net_owner& owner, uint8_t role, uint16_t port, bool ipv6,
                                 const fw_net_address& remote) {
  const size_t process = ProcessOf(owner);
  EdgeKey key(process, role, port, Bytes(remote));
  if (const auto found = edge_ids_.find(key); found != edge_ids_.end()) return found->second;
  if (edges_.size() >= options_.max_edges) return kOtherEdge;
  const size_t id = edges_.size();
  edges_.push_back(
      {.process = process, .role = role, .ipv6 = ipv6, .remote = remote, .port = port});
  edge_ids_.emplace(std::move(key), id);
  return id;
}

void ConnectionTable::Count(size_t edge, const NetworkTotals& delta) {
  NetworkEdge& to = edges_[edge];
  to.totals.Add(delta);
  to.recent.Add(delta);
  if (observer_) observer_(to, delta);
}

void ConnectionTable::CountRtt(uint32_t rtt_us) {
  if (rtt_us == 0) return;
  const auto width = static_cast<size_t>(std::bit_width(rtt_us >> FW_NET_RTT_SHIFT));
  ++rtt_[std::min(width, rtt_.size() - 1)];
  rtt_sum_us_ += rtt_us;
}

void ConnectionTable::BeginReport() {
  ++report_;
  uncertain_ = 0;
  for (NetworkEdge& edge : edges_) edge.living = 0;
}

void ConnectionTable::CountTracked(const fw_net_record& record, Tracked& tracked, bool ended) {
  const fw_net_socket& socket = record.socket;
  const NetworkTotals now = TotalsOf(socket);
  NetworkTotals delta = Since(now, tracked.reported);
  // A report may take the SYNs of a connection that is being established for data, and the next one
  // knows better: what was sent again is counted once, as what it looked like first.
  const uint64_t sent_again =
      Grown(now.retransmits + now.syn_retransmits,
            tracked.reported.retransmits + tracked.reported.syn_retransmits);
  delta.syn_retransmits = std::min(delta.syn_retransmits, sent_again);
  delta.retransmits = sent_again - delta.syn_retransmits;
  // Of a socket that goes on while it is read a count may be behind the one before; what was
  // counted stays counted.
  tracked.reported.Add(delta);
  const bool connected = socket.established_ns != 0 || socket.role != FW_NET_CONNECT;
  if (connected && !tracked.established) {
    tracked.established = true;
    delta.opened = 1;
  }
  const auto newly = [&](uint8_t flag) { return (socket.flags & ~tracked.flags & flag) != 0; };
  if (newly(FW_NET_RESET_SENT)) {
    delta.resets_sent = 1;
    ++reset_reasons_[socket.reset_reason];
  }
  if (newly(FW_NET_RESET_RECEIVED)) delta.resets_received = 1;
  tracked.flags |= socket.flags;
  if (ended) {
    delta.closed = connected ? 1 : 0;
    delta.failed = connected ? 0 : 1;
    if (!connected) ++failures_[socket.error];
    delta.duration_us = Grown(socket.closed_ns, socket.opened_ns) / 1000;
    if (socket.counts.srtt_us != 0) {
      delta.rtt_us = socket.counts.srtt_us;
      delta.rtt_count = 1;
      CountRtt(socket.counts.srtt_us);
    }
  }
  if (!delta.empty() || delta.segments_sent + delta.segments_received != 0) {
    by_role_[EdgeRole(socket.role)].Add(delta);
    Count(tracked.edge, delta);
  }
}

void ConnectionTable::AddListener(const fw_net_record& record) {
  const fw_net_socket& socket = record.socket;
  auto found = listeners_.find(record.id);
  if (found != listeners_.end() && found->second.record.socket.opened_ns != socket.opened_ns) {
    listeners_.erase(found);
    found = listeners_.end();
  }
  if (found == listeners_.end()) {
    if (listeners_.size() >= options_.max_listeners) return;
    found = listeners_.emplace(record.id, NetworkListener{}).first;
    // What was dropped before the probe came is not news.
    if (socket.flags & FW_NET_FROM_BEFORE) found->second.drops = socket.listen_drops;
  }
  NetworkListener& listener = found->second;
  listen_drops_ += Grown(socket.listen_drops, listener.drops);
  synack_retransmits_ += Grown(socket.synack_retransmits, listener.synack_retransmits);
  listener.drops = socket.listen_drops;
  listener.synack_retransmits = socket.synack_retransmits;
  listener.record = record;
  listener.process = ProcessOf(socket.owner);
}

size_t ConnectionTable::AddLiving(const fw_net_record& record) {
  const fw_net_socket& socket = record.socket;
  const size_t process = ProcessOf(socket.owner);
  if (socket.role == FW_NET_LISTEN) {
    AddListener(record);
    return process;
  }
  if (socket.owner_source < FW_NET_OWNER_FILE) ++uncertain_;
  const size_t edge = FindEdge(socket.owner, EdgeRole(socket.role), ServicePort(socket),
                               (socket.flags & FW_NET_IPV6) != 0, socket.remote);
  auto found = tracked_.find({record.id, socket.opened_ns});
  if (found == tracked_.end()) {
    if (tracked_.size() >= options_.max_tracked) {
      ++not_tracked_;
      return process;
    }
    found = tracked_.try_emplace({record.id, socket.opened_ns}).first;
    // Of a connection from before, only what happens from now on is counted.
    if (socket.flags & FW_NET_FROM_BEFORE) {
      found->second.reported = TotalsOf(socket);
      found->second.established = true;
    }
  }
  Tracked& tracked = found->second;
  tracked.edge = edge;  // the process may be known better by now
  tracked.report = report_;
  CountTracked(record, tracked, /*ended=*/false);
  ++edges_[edge].living;
  return process;
}

void ConnectionTable::EndReport() {
  absl::erase_if(tracked_, [this](const auto& entry) {
    return report_ - entry.second.report >= kMissedReports;
  });
}

void ConnectionTable::RememberEvent(const fw_net_record& record) {
  events_.push_back(
      {.number = ++last_event_, .record = record, .process = ProcessOf(record.socket.owner)});
  if (events_.size() > options_.max_events) events_.pop_front();
}

void ConnectionTable::AddRecord(const fw_net_record& record) {
  if (record.kind == FW_NET_RECORD_WAKE) return;
  const fw_net_socket& socket = record.socket;
  if (socket.role == FW_NET_LISTEN) {
    if (record.kind != FW_NET_RECORD_CLOSED) return;
    AddListener(record);
    listeners_.erase(record.id);
    return;
  }
  RememberEvent(record);
  if (record.kind != FW_NET_RECORD_CLOSED || record.in_edges != 0) return;
  const auto found = tracked_.find({record.id, socket.opened_ns});
  Tracked fresh;
  const bool known = found != tracked_.end();
  Tracked& tracked = known ? found->second : fresh;
  tracked.edge = FindEdge(socket.owner, EdgeRole(socket.role), ServicePort(socket),
                          (socket.flags & FW_NET_IPV6) != 0, socket.remote);
  CountTracked(record, tracked, /*ended=*/true);
  if (known) tracked_.erase(found);
}

void ConnectionTable::AddDrop(const fw_net_edge& edge, uint64_t packets) {
  uint64_t location = 0;
  std::memcpy(&location, edge.remote.bytes, sizeof(location));
  const size_t process = ProcessOf(edge.owner);
  const auto [found, added] =
      drop_ids_.try_emplace({edge.code, location, edge.protocol, process}, drops_.size());
  if (added) {
    if (drops_.size() >= options_.max_drops) {
      drop_ids_.erase(found);
      drops_[0].packets += packets;
      return;
    }
    drops_.push_back(
        {.reason = edge.code, .location = location, .protocol = edge.protocol, .process = process});
  }
  drops_[found->second].packets += packets;
}

void ConnectionTable::AddEdge(const fw_net_edge& edge, const fw_net_edge_counts& counts) {
  if (edge.role == FW_NET_DROP) {
    AddDrop(edge, counts.connections);
    return;
  }
  if (edge.role == FW_NET_STRAY_RESET) {
    stray_resets_ += counts.connections;
    reset_reasons_[edge.code] += counts.connections;
    return;
  }
  NetworkTotals totals = TotalsOf(counts);
  const uint8_t role = EdgeRole(edge.role);
  // The SYN-ACKs of accepted connections are those of the listener, counted there.
  if (role == FW_NET_ACCEPT) totals.syn_retransmits = 0;
  if (counts.failed != 0) failures_[edge.code] += counts.failed;
  by_role_[role].Add(totals);
  Count(FindEdge(edge.owner, role, edge.port, (edge.flags & FW_NET_IPV6) != 0, edge.remote),
        totals);
}

void ConnectionTable::SetOverflow(const std::array<fw_net_edge_counts, FW_NET_ROLES>& overflow) {
  for (size_t role = 0; role < overflow.size(); ++role) {
    const fw_net_edge_counts before = std::exchange(overflow_[role], overflow[role]);
    const uint64_t count = overflow[role].connections - before.connections;
    if (role == FW_NET_DROP) drops_[0].packets += count;
    if (role == FW_NET_STRAY_RESET) stray_resets_ += count;
    if (role == FW_NET_DROP || role == FW_NET_STRAY_RESET) continue;
    NetworkTotals delta = TotalsOf(overflow[role]);
    const NetworkTotals old = TotalsOf(before);
    NetworkTotals grown = Since(delta, old);
    grown.opened = delta.opened - old.opened;
    grown.closed = delta.closed - old.closed;
    grown.failed = delta.failed - old.failed;
    grown.resets_sent = delta.resets_sent - old.resets_sent;
    grown.resets_received = delta.resets_received - old.resets_received;
    grown.duration_us = delta.duration_us - old.duration_us;
    grown.rtt_us = delta.rtt_us - old.rtt_us;
    grown.rtt_count = delta.rtt_count - old.rtt_count;
    if (grown.empty()) continue;
    if (EdgeRole(static_cast<uint8_t>(role)) == FW_NET_ACCEPT) grown.syn_retransmits = 0;
    if (grown.failed != 0) failures_[0] += grown.failed;
    by_role_[EdgeRole(static_cast<uint8_t>(role))].Add(grown);
    Count(kOtherEdge, grown);
  }
}

void ConnectionTable::ForEachListener(
    absl::FunctionRef<void(const NetworkListener&)> callback) const {
  for (const auto& [id, listener] : listeners_) callback(listener);
}

void ConnectionTable::ForEachEventSince(
    uint64_t number, absl::FunctionRef<void(const NetworkEvent&)> callback) const {
  for (const NetworkEvent& event : events_) {
    if (event.number > number) callback(event);
  }
}

void ConnectionTable::TakeRecent(
    absl::FunctionRef<void(const NetworkEdge&, const NetworkTotals&)> callback) {
  for (NetworkEdge& edge : edges_) {
    const NetworkTotals recent = std::exchange(edge.recent, {});
    const uint64_t lived = std::exchange(edge.living_taken, edge.living);
    if (!recent.empty() || edge.living != 0 || lived != 0) callback(edge, recent);
  }
}

size_t ConnectionTable::heap_bytes() const {
  size_t bytes = tracked_.capacity() * (sizeof(Tracked) + 2 * sizeof(uint64_t) + 1) +
                 edges_.capacity() * sizeof(NetworkEdge) +
                 edge_ids_.capacity() * (sizeof(EdgeKey) + sizeof(size_t) + 1) +
                 listeners_.capacity() * (sizeof(NetworkListener) + 9) +
                 events_.size() * sizeof(NetworkEvent) + drops_.capacity() * sizeof(NetworkDrop) +
                 owner_ids_.capacity() * (sizeof(std::string) + sizeof(size_t) + 1) +
                 process_ids_.capacity() * (sizeof(std::string) + sizeof(size_t) + 1);
  for (const NetworkProcess& process : processes_) {
    bytes += sizeof(process) + process.comm.capacity() + process.exe.capacity() +
             process.service.capacity() + process.container_id.capacity();
    // In the key of process_ids_, too; the set itself is shared with the directory.
    if (process.labels) bytes += 64 * process.labels->pairs().size();
  }
  return bytes;
}

std::string AddressText(const fw_net_address& address, bool ipv6) {
  char text[INET6_ADDRSTRLEN] = "";
  const std::string_view bytes = Bytes(address);
  if (bytes.starts_with(kMapped) || (!ipv6 && bytes == kAnyAddress)) {
    ::inet_ntop(AF_INET, address.bytes + kMapped.size(), text, sizeof(text));
  } else {
    ::inet_ntop(AF_INET6, address.bytes, text, sizeof(text));
  }
  return text;
}

std::string EndpointText(const fw_net_address& address, uint16_t port, bool ipv6) {
  const std::string text = AddressText(address, ipv6);
  return text.find(':') == std::string::npos ? fmt::format("{}:{}", text, port)
                                             : fmt::format("[{}]:{}", text, port);
}

std::string_view TcpStateName(uint8_t state) {
  constexpr std::array<std::string_view, 13> kNames = {
      "?",     "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2",   "TIME_WAIT",
      "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "CLOSING",   "NEW_SYN_RECV"};
  return state < kNames.size() ? kNames[state] : kNames[0];
}

}  // namespace firewatch::agent
