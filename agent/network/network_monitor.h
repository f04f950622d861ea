// SPDX-License-Identifier: Apache-2.0
// The probe at work: one thread that reads what the kernel has gathered, the table of what it
// means, the metrics, and the answers of /api/v1/connections. Everything below one lock, held for
// the milliseconds of a report.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/network/connection_table.h"
#include "agent/network/network_metrics.h"
#include "agent/network/probe.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "transport/http_server.h"

namespace firewatch::agent {

struct NetworkMonitorOptions {
  ProbeOptions probe;
  ConnectionTableOptions table;
  uint64_t report_interval_ms = 5'000;  // 100 .. 600,000
  uint64_t window_ms = 10'000;          // a window ends with the first report after it
  bool drops = true;
};

class NetworkMonitor {
 public:
  // Names a process from what the kernel has captured of it; called under the monitor's lock.
  using Describe = std::function<NetworkProcess(const fw_net_process&)>;
  // Runs on the monitor's thread around its work: meters its CPU time.
  using Around = std::function<void(const std::function<void()>&)>;

  // Runs on the monitor's thread, without its lock, after a report once a window is over, and a
  // last time after a last report when the monitor is destroyed: time to TakeRecent.
  using OnWindow = std::function<void(NetworkMonitor&)>;

  // Older sockets are known and the thread runs when this returns. `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<NetworkMonitor>> Start(
      NetworkMonitorOptions options, const base::Clock& clock,
      std::shared_ptr<NetworkMetrics> metrics, Describe describe, Around around,
      OnWindow on_window = {});
  ~NetworkMonitor();
  NetworkMonitor(const NetworkMonitor&) = delete;
  NetworkMonitor& operator=(const NetworkMonitor&) = delete;

  // Any thread from here on.

  // GET /api/v1/connections?pid=&limit=&sort=&events_since=. Docs: docs/network.md.
  transport::HttpResponse Connections(const transport::HttpRequest& request)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // What each (program, peer, port) has had from the last call to the last report.
  using TakeEdge =
      std::function<void(const NetworkEdge&, const NetworkProcess&, const NetworkTotals&)>;
  void TakeRecent(const TakeEdge& take) ABSL_LOCKS_EXCLUDED(mutex_);
  void Report() ABSL_LOCKS_EXCLUDED(mutex_);  // now

  // 0: everything; 1: no single events, a quarter of the new connections followed; 2: a sixteenth,
  // reports six times rarer, no search for owners; 3: a hundredth, no drops.
  static constexpr int kDetailLevels = 4;
  static std::string DetailText(int level);
  void SetDetail(int level);

  std::vector<std::string> missing() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Nothing, or what is not watched in the storm of connections that blows: "more than …".
  std::string storm() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t map_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t heap_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t bpf_run_ns() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Beginnings and ends of connections, and retransmits, as they happened.
  uint64_t kernel_events() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<BpfProgramStats> ProgramStats() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The last report's error; OK when it worked.
  absl::Status health() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  NetworkMonitor(NetworkMonitorOptions options, const base::Clock& clock,
                 std::shared_ptr<NetworkMetrics> metrics, Describe describe, OnWindow on_window);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Loop() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits, then does what there is to do; true after a report.
  bool Step(int ring, uint64_t* next_ns) ABSL_LOCKS_EXCLUDED(mutex_);
  using OnLiving = absl::FunctionRef<void(const fw_net_record&, size_t process)>;
  void ReportLocked(OnLiving on_living) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status FindUnfollowed(uint64_t now_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LookForStorm(uint64_t now_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ReportOnce(OnLiving on_living) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ApplyDetail() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const NetworkMonitorOptions options_;
  const base::Clock& clock_;
  const std::shared_ptr<NetworkMetrics> metrics_;
  const Describe describe_;
  const OnWindow on_window_;
  const uint64_t storm_per_second_;  // beginnings of connections, not followed
  std::atomic<int> detail_{0};
  std::atomic<bool> stopping_{false};
  base::UniqueFd wake_;  // eventfd: stop, or a new level of detail

  mutable base::Mutex mutex_;
  std::unique_ptr<Probe> probe_ ABSL_GUARDED_BY(mutex_);
  ConnectionTable table_ ABSL_GUARDED_BY(mutex_);
  int applied_detail_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t owners_searched_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t unfollowed_searched_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t not_followed_ ABSL_GUARDED_BY(mutex_) = 0;  // when they were last searched for
  uint64_t storm_looked_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t storm_count_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace firewatch::agent
