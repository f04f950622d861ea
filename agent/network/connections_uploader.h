// SPDX-License-Identifier: Apache-2.0
// Sends a window of connections to the server, on the same path as profiles. Read on in
// connections_window.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "agent/network/connections_window.h"
#include "agent/network/network_monitor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "profile/labels.h"

namespace firewatch::agent {

struct ConnectionsUploaderOptions {
  std::string node;
  std::function<absl::Status(ingest::UploadWindowRequest)> upload;  // ModuleContext::upload
  std::shared_ptr<const profile::LabelSet> nobody, others;          // ConnectionsWindowOptions'
};

// One thread. `clock` and `metrics` must outlive it.
class ConnectionsUploader {
 public:
  ConnectionsUploader(ConnectionsUploaderOptions options, const base::Clock& clock,
                      base::MetricsRegistry& metrics);

  // Calls `take_recent` (NetworkMonitor::TakeRecent) and sends what it gives, if it gives anything,
  // as a window from the last call until now. What does not reach the spool is counted and said.
  using TakeRecent = std::function<void(const NetworkMonitor::TakeEdge&)>;
  void Send(const TakeRecent& take_recent);

 private:
  const ConnectionsUploaderOptions options_;
  const base::Clock& clock_;
  uint64_t start_ns_;  // of the window, CLOCK_MONOTONIC
  base::Counter &windows_, &lost_, &summed_;
};

}  // namespace firewatch::agent
