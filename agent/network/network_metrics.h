// SPDX-License-Identifier: Apache-2.0
// The probe's numbers as Prometheus sees them. Cardinality is bounded: programs and peers get
// series of their own up to a limit, the rest is one "other". What is counted under "other" stays
// there, so every series only grows; a series that goes (a newcomer took its place) begins at zero
// if it comes back, which Prometheus takes for a restart.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "agent/network/connection_table.h"
#include "agent/network/probe.h"
#include "base/metrics.h"
#include "base/mutex.h"

namespace firewatch::agent {

// Slots for the largest of many: who comes while there is room keeps its slot; later the one that
// was idle longest gives way to a newcomer, but not before `keep_idle_updates` updates.
class TopSeries {
 public:
  TopSeries(size_t limit, uint32_t keep_idle_updates)
      : limit_(limit), keep_idle_updates_(keep_idle_updates) {}

  void Add(const std::string& key, const base::MetricLabels& labels, const NetworkTotals& delta);
  void EndUpdate() { ++update_; }

  struct Slot {
    base::MetricLabels labels;
    NetworkTotals totals;
    uint32_t used = 0;  // update
  };
  const std::map<std::string, Slot>& slots() const { return slots_; }
  const NetworkTotals& other() const { return other_; }

 private:
  const size_t limit_;
  const uint32_t keep_idle_updates_;
  std::map<std::string, Slot> slots_;
  NetworkTotals other_;
  uint32_t update_ = 0;
};

struct NetworkMetricsOptions {
  size_t top_programs = 50;
  size_t top_peers = 100;
  size_t top_drops = 64;
  uint32_t keep_idle_updates = 120;  // ten minutes of five seconds
};

// Registered once per registry, shared with what the registry calls: it outlives the probe.
class NetworkMetrics : public std::enable_shared_from_this<NetworkMetrics> {
 public:
  static std::shared_ptr<NetworkMetrics> Register(const NetworkMetricsOptions& options,
                                                  base::MetricsRegistry& registry);

  // Of ConnectionTable's observer.
  void Count(const NetworkEdge& edge, const NetworkProcess& process, const NetworkTotals& delta)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // After each report: everything that is not counted by deltas.
  void Update(const ConnectionTable& table, const Probe& probe) ABSL_LOCKS_EXCLUDED(mutex_);
  void CountReport(uint64_t took_ns) ABSL_LOCKS_EXCLUDED(mutex_);

  // What a location of a drop without reason is called; kept, because looking it up is slow.
  std::string Function(uint64_t address) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Series = base::MetricsRegistry::Series;
  explicit NetworkMetrics(const NetworkMetricsOptions& options)
      : options_(options),
        programs_(options.top_programs, options.keep_idle_updates),
        peers_(options.top_peers, options.keep_idle_updates) {}

  void RegisterAll(base::MetricsRegistry& registry);
  std::string FunctionLocked(uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One value of every slot and of "other".
  Series Each(const TopSeries& series, const base::MetricLabels& other,
              uint64_t NetworkTotals::* value) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const NetworkMetricsOptions options_;
  mutable base::Mutex mutex_;
  TopSeries programs_ ABSL_GUARDED_BY(mutex_);
  TopSeries peers_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Series> fixed_ ABSL_GUARDED_BY(mutex_);
  base::MetricsRegistry::Histogram rtt_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::string> functions_ ABSL_GUARDED_BY(mutex_);
  uint64_t reports_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t report_ns_ ABSL_GUARDED_BY(mutex_) = 0;
};

// "ECONNREFUSED"; the number where it has no name; "unknown" for 0.
std::string ErrnoName(uint32_t number);
// "tcp", "udp", "icmp", "icmpv6", else the number.
std::string ProtocolName(uint8_t protocol);

}  // namespace firewatch::agent
