// SPDX-License-Identifier: Apache-2.0
#include "agent/network/network_metrics.h"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace firewatch::agent {
namespace {

constexpr size_t kMaxFunctions = 256;

std::string_view Direction(uint8_t role) { return role == FW_NET_ACCEPT ? "in" : "out"; }

struct Fixed {
  const char* name;
  const char* help;
  const char* type;
};
constexpr Fixed kFixed[] = {
    {"firewatch_network_connections_opened_total", "TCP connections that were established.",
     "counter"},
    {"firewatch_network_connections_closed_total", "TCP connections that have ended.", "counter"},
    {"firewatch_network_connections_failed_total",
     "TCP connections that were never established, by error.", "counter"},
    {"firewatch_network_resets_total", "TCP resets, by who sent them.", "counter"},
    {"firewatch_network_reset_reasons_total", "TCP resets that this kernel sent, by its reason.",
     "counter"},
    {"firewatch_network_retransmits_total", "TCP segments sent again.", "counter"},
    {"firewatch_network_bytes_total", "TCP payload, without retransmissions.", "counter"},
    {"firewatch_network_drops_total", "Packets that the kernel dropped, by its reason.", "counter"},
    {"firewatch_network_listen_drops_total",
     "Connections that listeners could not take: a queue was full.", "counter"},
    {"firewatch_network_connections", "TCP connections that are alive.", "gauge"},
    {"firewatch_network_listeners", "Sockets that listen.", "gauge"},
    {"firewatch_network_retransmit_calls_total",
     "Calls of the kernel's function that sends again, seen by a kprobe.", "counter"},
    {"firewatch_network_lost_total", "What the probe could not keep, by name.", "counter"},
    {"firewatch_network_reports_total", "Reports of living connections.", "counter"},
    {"firewatch_network_report_seconds_total", "Time that the reports took.", "counter"},
};

}  // namespace

void TopSeries::Add(const std::string& key, const base::MetricLabels& labels,
                    const NetworkTotals& delta) {
  auto found = slots_.find(key);
  if (found == slots_.end() && slots_.size() >= limit_ && !slots_.empty()) {
    const auto oldest = std::min_element(
        slots_.begin(), slots_.end(),
        [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    if (update_ - oldest->second.used >= keep_idle_updates_) slots_.erase(oldest);
  }
  if (found == slots_.end()) {
    if (slots_.size() >= limit_) {
      other_.Add(delta);
      return;
    }
    found = slots_.emplace(key, Slot{.labels = labels}).first;
  }
  found->second.totals.Add(delta);
  found->second.used = update_;
}

std::shared_ptr<NetworkMetrics> NetworkMetrics::Register(const NetworkMetricsOptions& options,
                                                         base::MetricsRegistry& registry) {
  std::shared_ptr<NetworkMetrics> metrics(new NetworkMetrics(options));
  metrics->RegisterAll(registry);
  return metrics;
}

NetworkMetrics::Series NetworkMetrics::Each(const TopSeries& series,
                                            const base::MetricLabels& other,
                                            uint64_t NetworkTotals::* value) const {
  Series out;
  for (const auto& [key, slot] : series.slots()) {
    out.emplace_back(slot.labels, static_cast<double>(slot.totals.*value));
  }
  out.emplace_back(other, static_cast<double>(series.other().*value));
  return out;
}

void NetworkMetrics::RegisterAll(base::MetricsRegistry& registry) {
  const auto self = shared_from_this();
  for (const Fixed& fixed : kFixed) {
    registry.AddSeries(fixed.name, fixed.help, fixed.type, [self, name = fixed.name] {
      base::MutexLock lock(self->mutex_);
      return self->fixed_[name];
    });
  }
  registry.AddHistogram("firewatch_network_rtt_seconds",
                        "Smoothed round-trip times of TCP connections at their end.", [self] {
                          base::MutexLock lock(self->mutex_);
                          return self->rtt_;
                        });
  struct PerKey {
    const char* name;
    const char* help;
    uint64_t NetworkTotals::* value;
  };
  for (const PerKey& metric :
       {PerKey{"connections", "TCP connections established", &NetworkTotals::opened},
        PerKey{"failures", "TCP connections never established", &NetworkTotals::failed},
        PerKey{"retransmits", "TCP data segments sent again", &NetworkTotals::retransmits},
        PerKey{"resets_received", "TCP resets received", &NetworkTotals::resets_received},
        PerKey{"sent_bytes", "TCP payload sent", &NetworkTotals::bytes_sent},
        PerKey{"received_bytes", "TCP payload received", &NetworkTotals::bytes_received}}) {
    registry.AddSeries(fmt::format("firewatch_network_program_{}_total", metric.name),
                       fmt::format("{}, by program; beyond the limit: other.", metric.help),
                       "counter", [self, value = metric.value] {
                         base::MutexLock lock(self->mutex_);
                         return self->Each(self->programs_, {{"program", "other"}}, value);
                       });
    registry.AddSeries(
        fmt::format("firewatch_network_peer_{}_total", metric.name),
        fmt::format("{}, by program, peer and port; beyond the limit: other.", metric.help),
        "counter", [self, value = metric.value] {
          base::MutexLock lock(self->mutex_);
          return self->Each(
              self->peers_,
              {{"program", "other"}, {"direction", "other"}, {"peer", "other"}, {"port", "other"}},
              value);
        });
  }
}

void NetworkMetrics::Count(const NetworkEdge& edge, const NetworkProcess& process,
                           const NetworkTotals& delta) {
  base::MutexLock lock(mutex_);
  const std::string program = process.name().empty() ? "unknown" : process.name();
  base::MetricLabels labels = {{"program", program}};
  if (!process.service.empty()) labels.emplace_back("service", process.service);
  if (!process.container_id.empty()) labels.emplace_back("container_id", process.container_id);
  const std::string key = fmt::format("{}\n{}\n{}", program, process.service, process.container_id);
  programs_.Add(key, labels, delta);
  const std::string peer = AddressText(edge.remote);
  labels.emplace_back("direction", Direction(edge.role));
  labels.emplace_back("peer", peer);
  labels.emplace_back("port", fmt::format("{}", edge.port));
  peers_.Add(fmt::format("{}\n{}\n{}\n{}", key, edge.role, peer, edge.port), labels, delta);
}

std::string NetworkMetrics::FunctionLocked(uint64_t address) {
  const auto found = functions_.find(address);
  if (found != functions_.end()) return found->second;
  if (functions_.size() >= kMaxFunctions) return "other";
  return functions_.emplace(address, KernelNames::Function(address)).first->second;
}

std::string NetworkMetrics::Function(uint64_t address) {
  base::MutexLock lock(mutex_);
  return FunctionLocked(address);
}

void NetworkMetrics::CountReport(uint64_t took_ns) {
  base::MutexLock lock(mutex_);
  ++reports_;
  report_ns_ += took_ns;
}

void NetworkMetrics::Update(const ConnectionTable& table, const Probe& probe) {
  const auto losses = probe.Losses();
  const RttHistogram kernel_rtt = probe.Rtt();
  base::MutexLock lock(mutex_);
  programs_.EndUpdate();
  peers_.EndUpdate();
  const NetworkTotals& out = table.outgoing();
  const NetworkTotals& in = table.incoming();
  std::map<std::string, Series> fixed;
  const auto two = [&](const char* name, const char* label, const char* a, uint64_t a_value,
                       const char* b, uint64_t b_value) {
    fixed[name] = {{{{label, a}}, static_cast<double>(a_value)},
                   {{{label, b}}, static_cast<double>(b_value)}};
  };
  two("firewatch_network_connections_opened_total", "direction", "out", out.opened, "in",
      in.opened);
  two("firewatch_network_connections_closed_total", "direction", "out", out.closed, "in",
      in.closed);
  two("firewatch_network_resets_total", "from", "here",
      out.resets_sent + in.resets_sent + table.stray_resets(), "peer",
      out.resets_received + in.resets_received);
  two("firewatch_network_bytes_total", "direction", "sent", out.bytes_sent + in.bytes_sent,
      "received", out.bytes_received + in.bytes_received);
  fixed["firewatch_network_retransmits_total"] = {
      {{{"kind", "data"}}, static_cast<double>(out.retransmits + in.retransmits)},
      {{{"kind", "syn"}}, static_cast<double>(out.syn_retransmits)},
      {{{"kind", "syn_ack"}}, static_cast<double>(table.synack_retransmits())}};
  Series& failures = fixed["firewatch_network_connections_failed_total"];
  failures.clear();
  for (const auto& [number, count] : table.failures_by_errno()) {
    failures.push_back({{{"error", ErrnoName(number)}}, static_cast<double>(count)});
  }
  Series& reasons = fixed["firewatch_network_reset_reasons_total"];
  reasons.clear();
  for (const auto& [reason, count] : table.resets_by_reason()) {
    reasons.push_back(
        {{{"reason", probe.names().ResetReason(reason)}}, static_cast<double>(count)});
  }
  // Summed over processes; the list of /api/v1/connections has them apart.
  std::map<std::pair<std::string, std::string>, uint64_t> drops;
  for (const NetworkDrop& drop : table.drops()) {
    if (drop.packets == 0) continue;
    std::string reason = &drop == table.drops().data() ? "other"
                         : drop.location != 0 ? "NOT_SPECIFIED:" + FunctionLocked(drop.location)
                                              : probe.names().DropReason(drop.reason);
    if (drops.size() >= options_.top_drops) reason = "other";
    drops[{std::move(reason), ProtocolName(drop.protocol)}] += drop.packets;
  }
  Series& dropped = fixed["firewatch_network_drops_total"];
  dropped.clear();
  for (const auto& [key, count] : drops) {
    dropped.push_back(
        {{{"reason", key.first}, {"protocol", key.second}}, static_cast<double>(count)});
  }
  const auto one = [&](const char* name, double value) { fixed[name] = {{{}, value}}; };
  one("firewatch_network_listen_drops_total", static_cast<double>(table.listen_drops()));
  one("firewatch_network_connections", static_cast<double>(table.tracked()));
  one("firewatch_network_listeners", static_cast<double>(table.listeners()));
  one("firewatch_network_reports_total", static_cast<double>(reports_));
  one("firewatch_network_report_seconds_total", static_cast<double>(report_ns_) * 1e-9);
  if (const auto calls = probe.RetransmitCalls()) {
    one("firewatch_network_retransmit_calls_total", static_cast<double>(*calls));
  }
  Series& lost = fixed["firewatch_network_lost_total"];
  lost.clear();
  constexpr const char* kLossNames[] = {
#define FW_NET_LOSS_NAME(constant, name, text) name,
      FW_NET_LOSSES(FW_NET_LOSS_NAME)
#undef FW_NET_LOSS_NAME
  };
  for (size_t i = 0; i < losses.size(); ++i) {
    lost.push_back({{{"reason", kLossNames[i]}}, static_cast<double>(losses[i])});
  }
  fixed_ = std::move(fixed);
  rtt_ = {};
  for (size_t i = 0; i < FW_NET_RTT_BUCKETS; ++i) {
    rtt_.count += kernel_rtt.buckets[i] + table.rtt_bucket(i);
    if (i + 1 == FW_NET_RTT_BUCKETS) break;  // the last one is +Inf
    rtt_.bounds.push_back(static_cast<double>(1u << (i + FW_NET_RTT_SHIFT)) * 1e-6);
    rtt_.counts.push_back(rtt_.count);
  }
  rtt_.sum = static_cast<double>(kernel_rtt.sum_us + table.rtt_sum_us()) * 1e-6;
}

std::string ErrnoName(uint32_t number) {
  if (number == 0) return "unknown";
  const char* name = ::strerrorname_np(static_cast<int>(number));
  return name != nullptr ? name : fmt::format("{}", number);
}

std::string ProtocolName(uint8_t protocol) {
  switch (protocol) {
    case IPPROTO_TCP:
      return "tcp";
    case IPPROTO_UDP:
      return "udp";
    case IPPROTO_ICMP:
      return "icmp";
    case IPPROTO_ICMPV6:
      return "icmpv6";
    default:
      return fmt::format("{}", protocol);
  }
}

}  // namespace firewatch::agent
