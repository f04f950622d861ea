// SPDX-License-Identifier: Apache-2.0
#include "agent/network/connections_json.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/status.h"
#include "transport/json_writer.h"

namespace firewatch::agent {
namespace {

using transport::JsonWriter;

constexpr size_t kMaxLimit = 100'000;

template <typename T>
absl::StatusOr<T> ParseNumber(std::string_view name, std::string_view text, uint64_t most) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most) {
    return base::InvalidArgument("{}={}: must be a number, at most {}", name, text, most);
  }
  return static_cast<T>(value);
}

bool HeapOrder(const LivingConnections::Entry& a, const LivingConnections::Entry& b) {
  return a.rank > b.rank;  // the smallest on top
}

std::string_view RoleName(uint8_t role) {
  switch (role) {
    case FW_NET_ACCEPT:
      return "in";
    case FW_NET_LISTEN:
      return "listen";
    default:
      return "out";
  }
}

std::string_view SourceName(uint8_t source) {
  switch (source) {
    case FW_NET_OWNER_CALL:
      return "call";
    case FW_NET_OWNER_FILE:
      return "descriptor";
    case FW_NET_OWNER_LISTENER:
      return "listener";
    default:
      return "none";
  }
}

std::string_view EventName(const fw_net_record& record) {
  switch (record.kind) {
    case FW_NET_RECORD_ESTABLISHED:
      return "established";
    case FW_NET_RECORD_RETRANSMIT:
      return "retransmit";
    default:
      return record.socket.established_ns == 0 && record.socket.role == FW_NET_CONNECT ? "failed"
                                                                                       : "closed";
  }
}

void WriteProcess(JsonWriter& json, const NetworkProcess& process, uint32_t pid) {
  json.Key("pid").Value(pid != 0 ? pid : process.pid);
  json.Key("comm").Value(process.comm).Key("exe").Value(process.exe);
  if (!process.service.empty()) json.Key("service").Value(process.service);
  if (!process.container_id.empty()) json.Key("container_id").Value(process.container_id);
}

class Writer {
 public:
  Writer(const ConnectionTable& table, const Probe& probe, const base::Clock& clock)
      : table_(table),
        probe_(probe),
        now_ns_(clock.MonotonicNs()),
        wall_offset_ns_(static_cast<uint64_t>(clock.Now().unix_ns) - now_ns_) {}

  uint64_t UnixMs(uint64_t monotonic_ns) const {
    return (monotonic_ns + wall_offset_ns_) / 1'000'000;
  }
  uint64_t now_ns() const { return now_ns_; }

  void WriteSocket(JsonWriter& json, const fw_net_record& record, size_t process) const {
    const fw_net_socket& socket = record.socket;
    const fw_net_counts& counts = socket.counts;
    json.Key("state").Value(TcpStateName(socket.state));
    json.Key("direction").Value(RoleName(socket.role));
    WriteProcess(json, table_.processes()[process], PidOf(socket.owner));
    json.Key("attributed_by").Value(SourceName(socket.owner_source));
    json.Key("local").Value(
        EndpointText(socket.local, socket.local_port, (socket.flags & FW_NET_IPV6) != 0));
    json.Key("remote").Value(
        EndpointText(socket.remote, socket.remote_port, (socket.flags & FW_NET_IPV6) != 0));
    json.Key("network_namespace").Value(socket.netns);
    json.Key("from_before").Value((socket.flags & FW_NET_FROM_BEFORE) != 0);
    json.Key("opened_unix_ms").Value(UnixMs(socket.opened_ns));
    const uint64_t end_ns = socket.closed_ns != 0 ? socket.closed_ns : now_ns_;
    json.Key("duration_us")
        .Value(end_ns > socket.opened_ns ? (end_ns - socket.opened_ns) / 1'000 : 0);
    json.Key("bytes_sent")
        .Value(counts.bytes_sent)
        .Key("bytes_received")
        .Value(counts.bytes_received);
    json.Key("segments_sent").Value(counts.segments_sent);
    json.Key("segments_received").Value(counts.segments_received);
    json.Key("retransmits").Value(counts.retransmits);
    json.Key("handshake_retransmits").Value(counts.handshake_retransmits);
    json.Key("rtt_us").Value(counts.srtt_us).Key("rtt_variance_us").Value(counts.rttvar_us);
    if (counts.min_rtt_us != ~0u) json.Key("min_rtt_us").Value(counts.min_rtt_us);
    json.Key("congestion_window").Value(counts.congestion_window);
    if (socket.error != 0) json.Key("error").Value(ErrnoName(socket.error));
    if (socket.flags & FW_NET_RESET_SENT) {
      json.Key("reset_by").Value("here");
      json.Key("reset_reason").Value(probe_.names().ResetReason(socket.reset_reason));
    } else if (socket.flags & FW_NET_RESET_RECEIVED) {
      json.Key("reset_by").Value("peer");
    }
  }

 private:
  uint32_t PidOf(const fw_net_owner& owner) const {
    if (owner.tgid == 0) return 0;
    const auto process = probe_.FindProcess(owner);
    return process ? process->pid : owner.tgid;
  }

  const ConnectionTable& table_;
  const Probe& probe_;
  const uint64_t now_ns_;
  const uint64_t wall_offset_ns_;
};

void WriteTotals(JsonWriter& json, const NetworkTotals& totals) {
  json.Key("opened").Value(totals.opened).Key("closed").Value(totals.closed);
  json.Key("failed").Value(totals.failed);
  json.Key("resets_sent").Value(totals.resets_sent);
  json.Key("resets_received").Value(totals.resets_received);
  json.Key("retransmits").Value(totals.retransmits);
  json.Key("syn_retransmits").Value(totals.syn_retransmits);
  json.Key("bytes_sent")
      .Value(totals.bytes_sent)
      .Key("bytes_received")
      .Value(totals.bytes_received);
  json.Key("rtt_us").Value(totals.rtt_count == 0 ? 0 : totals.rtt_us / totals.rtt_count);
}

void WritePeers(JsonWriter& json, const ConnectionsQuery& query, const ConnectionTable& table) {
  std::vector<const NetworkEdge*> edges;
  for (const NetworkEdge& edge : table.edges()) {
    if (edge.totals.empty() && edge.living == 0) continue;
    if (query.pid && table.processes()[edge.process].pid != *query.pid) continue;
    edges.push_back(&edge);
  }
  const auto rank = [&](const NetworkEdge* edge) {
    const NetworkTotals& totals = edge->totals;
    return query.sort == ConnectionsSort::kRetransmits ? totals.retransmits + totals.syn_retransmits
                                                       : totals.bytes_sent + totals.bytes_received;
  };
  std::sort(edges.begin(), edges.end(),
            [&](const NetworkEdge* a, const NetworkEdge* b) { return rank(a) > rank(b); });
  if (edges.size() > query.limit) edges.resize(query.limit);
  json.Key("peers").BeginArray();
  for (const NetworkEdge* edge : edges) {
    json.BeginObject();
    WriteProcess(json, table.processes()[edge->process], 0);
    json.Key("direction").Value(RoleName(edge->role));
    json.Key("peer").Value(AddressText(edge->remote)).Key("port").Value(edge->port);
    json.Key("living").Value(edge->living);
    WriteTotals(json, edge->totals);
    json.EndObject();
  }
  json.EndArray();
}

void WriteDrops(JsonWriter& json, const ConnectionTable& table, const Probe& probe,
                NetworkMetrics& metrics) {
  json.Key("drops").BeginArray();
  for (const NetworkDrop& drop : table.drops()) {
    if (drop.packets == 0) continue;
    json.BeginObject();
    json.Key("reason").Value(&drop == table.drops().data() ? "other"
                                                           : probe.names().DropReason(drop.reason));
    if (drop.location != 0) json.Key("where").Value(metrics.Function(drop.location));
    json.Key("protocol").Value(ProtocolName(drop.protocol));
    if (drop.process > 1) WriteProcess(json, table.processes()[drop.process], 0);
    json.Key("packets").Value(drop.packets).EndObject();
  }
  json.EndArray();
}

void WriteFailures(JsonWriter& json, const ConnectionTable& table) {
  json.Key("failures").BeginObject();
  for (const auto& [number, count] : table.failures_by_errno()) {
    json.Key(ErrnoName(number)).Value(count);
  }
  json.EndObject();
}

void WriteLosses(JsonWriter& json, const Probe& probe) {
  constexpr const char* kNames[] = {
#define FW_NET_LOSS_NAME(constant, name, text) name,
      FW_NET_LOSSES(FW_NET_LOSS_NAME)
#undef FW_NET_LOSS_NAME
  };
  const auto losses = probe.Losses();
  json.Key("lost").BeginObject();
  for (size_t i = 0; i < losses.size(); ++i) json.Key(kNames[i]).Value(losses[i]);
  json.EndObject();
}

}  // namespace

absl::StatusOr<ConnectionsQuery> ParseConnectionsQuery(const transport::HttpRequest& request) {
  ConnectionsQuery query;
  if (const auto pid = request.Query("pid")) {
    ASSIGN_OR_RETURN(query.pid, ParseNumber<uint32_t>("pid", *pid, UINT32_MAX));
  }
  if (const auto limit = request.Query("limit")) {
    ASSIGN_OR_RETURN(query.limit, ParseNumber<size_t>("limit", *limit, kMaxLimit));
  }
  if (const auto since = request.Query("events_since")) {
    ASSIGN_OR_RETURN(query.events_since, ParseNumber<uint64_t>("events_since", *since, UINT64_MAX));
  }
  const std::string_view sort = request.Query("sort").value_or("bytes");
  if (sort == "bytes") {
    query.sort = ConnectionsSort::kBytes;
  } else if (sort == "retransmits") {
    query.sort = ConnectionsSort::kRetransmits;
  } else if (sort == "rtt") {
    query.sort = ConnectionsSort::kRtt;
  } else if (sort == "age") {
    query.sort = ConnectionsSort::kAge;
  } else {
    return base::InvalidArgument("sort={}: must be bytes, retransmits, rtt or age", sort);
  }
  return query;
}

void LivingConnections::Add(const fw_net_record& record, size_t process,
                            const NetworkProcess& name) {
  const fw_net_socket& socket = record.socket;
  if (socket.role == FW_NET_LISTEN) return;
  if (query_.pid && socket.owner.tgid != *query_.pid && name.pid != *query_.pid) return;
  ++matching_;
  Entry entry{.process = process, .record = record};
  switch (query_.sort) {
    case ConnectionsSort::kBytes:
      entry.rank = socket.counts.bytes_sent + socket.counts.bytes_received;
      break;
    case ConnectionsSort::kRetransmits:
      entry.rank = socket.counts.retransmits;
      break;
    case ConnectionsSort::kRtt:
      entry.rank = socket.counts.srtt_us;
      break;
    case ConnectionsSort::kAge:
      entry.rank = ~socket.opened_ns;
      break;
  }
  if (heap_.size() >= query_.limit) {
    if (heap_.empty() || heap_.front().rank >= entry.rank) return;
    std::pop_heap(heap_.begin(), heap_.end(), HeapOrder);
    heap_.pop_back();
  }
  heap_.push_back(entry);
  std::push_heap(heap_.begin(), heap_.end(), HeapOrder);
}

std::vector<LivingConnections::Entry> LivingConnections::Sorted() const {
  std::vector<Entry> sorted = heap_;
  std::sort(sorted.begin(), sorted.end(), HeapOrder);
  return sorted;
}

std::string ConnectionsJson(const ConnectionsQuery& query, const LivingConnections& living,
                            ConnectionTable& table, const Probe& probe, NetworkMetrics& metrics,
                            const base::Clock& clock) {
  const Writer writer(table, probe, clock);
  JsonWriter json;
  json.BeginObject();
  json.Key("time_unix_ms").Value(writer.UnixMs(writer.now_ns()));
  json.Key("matching").Value(living.matching());
  json.Key("connections").BeginArray();
  for (const LivingConnections::Entry& entry : living.Sorted()) {
    json.BeginObject();
    writer.WriteSocket(json, entry.record, entry.process);
    json.EndObject();
  }
  json.EndArray();
  json.Key("listeners").BeginArray();
  size_t listeners = 0;
  table.ForEachListener([&](const NetworkListener& listener) {
    const fw_net_socket& socket = listener.record.socket;
    const NetworkProcess& process = table.processes()[listener.process];
    if (query.pid && socket.owner.tgid != *query.pid && process.pid != *query.pid) return;
    if (++listeners > query.limit) return;
    json.BeginObject();
    WriteProcess(json, process, 0);
    json.Key("local").Value(
        EndpointText(socket.local, socket.local_port, (socket.flags & FW_NET_IPV6) != 0));
    json.Key("network_namespace").Value(socket.netns);
    json.Key("queue").Value(socket.backlog).Key("queue_limit").Value(socket.backlog_limit);
    json.Key("overflows").Value(listener.drops);
    json.Key("syn_ack_retransmits").Value(listener.synack_retransmits);
    json.EndObject();
  });
  json.EndArray();
  WritePeers(json, query, table);
  WriteDrops(json, table, probe, metrics);
  WriteFailures(json, table);
  json.Key("totals").BeginObject();
  json.Key("out").BeginObject();
  WriteTotals(json, table.outgoing());
  json.EndObject().Key("in").BeginObject();
  WriteTotals(json, table.incoming());
  json.EndObject();
  json.Key("syn_ack_retransmits").Value(table.synack_retransmits());
  json.Key("listen_drops").Value(table.listen_drops());
  json.Key("stray_resets").Value(table.stray_resets());
  json.EndObject();
  if (query.events_since) {
    json.Key("events").BeginArray();
    table.ForEachEventSince(*query.events_since, [&](const NetworkEvent& event) {
      json.BeginObject();
      json.Key("number").Value(event.number);
      json.Key("time_unix_ms").Value(writer.UnixMs(event.record.time_ns));
      json.Key("event").Value(EventName(event.record));
      writer.WriteSocket(json, event.record, event.process);
      json.EndObject();
    });
    json.EndArray();
  }
  json.Key("last_event").Value(table.last_event());
  json.StringArray("missing", probe.missing());
  WriteLosses(json, probe);
  return std::move(json.EndObject()).Take();
}

}  // namespace firewatch::agent
