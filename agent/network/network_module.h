// SPDX-License-Identifier: Apache-2.0
// The TCP probe as a module of the agent: its section `network` of the configuration, names from
// the agent's directory of processes, /api/v1/connections on the agent's page.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/core/module.h"
#include "agent/network/network_metrics.h"
#include "agent/network/network_monitor.h"
#include "base/mutex.h"

namespace firewatch::agent {

struct NetworkConfig {
  NetworkMonitorOptions monitor;
  NetworkMetricsOptions metrics;
  bool connections_need_token = false;
};

// The section:
//   interval: 5s                     how often living connections are read (100ms .. 10m)
//   window: 10s                      how much time one upload covers, a multiple of interval
//                                    (1s .. 30m)
//   max-connections: 131072          followed at once
//   events-per-second: 1000          single events per CPU; more are only summed
//   follow-per-second: 1000          new connections per CPU that are followed; of more, only ends
//   retransmits-by: tracepoint       or kprobe: as they happen; sums are the kernel's own
//   drops: on                        dropped packets with the kernel's reason
//   network-namespaces: [4026531840] inode numbers; absent: all
//   connections-need-token: off      single connections only for those who may read the token
//   top-programs: 50                 series of their own in /metrics
//   top-peers: 100
absl::StatusOr<NetworkConfig> ParseNetworkConfig(const ConfigSection& section);

class NetworkModule final : public Module {
 public:
  std::string_view name() const override { return "network"; }
  ModuleNeeds Needs() const override;
  absl::Status CheckConfig(const ConfigSection& section) const override;
  absl::Status Start(const ConfigSection& section, ModuleContext& context) override;
  absl::Status Reconfigure(const ConfigSection& section) override;
  void Stop() override;
  absl::Status CheckHealth() override;
  ModuleUsage Usage() const override;
  int DetailLevels() const override { return NetworkMonitor::kDetailLevels; }
  std::string DetailText(int level) const override { return NetworkMonitor::DetailText(level); }
  void SetDetail(int level) override;
  ModuleReport Report() const override;
  bool NeedsToken(const transport::HttpRequest& request) const override;
  std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request) override;

 private:
  // The host lets nobody in between Stop and Start, so that this needs no lock of its own.
  std::unique_ptr<NetworkMonitor> monitor_;
  std::shared_ptr<NetworkMetrics> metrics_;
  bool connections_need_token_ = false;
  uint64_t bpf_run_ns_before_ = 0;  // of monitors that were stopped
};

}  // namespace firewatch::agent
