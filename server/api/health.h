// SPDX-License-Identifier: Apache-2.0
// /healthz asks the store to write and read. A store on a sick disk may hang for minutes, and
// health checks come every second from several places: none of them may wait for it, and they must
// not pile up.
#pragma once

#include <chrono>
#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "base/mutex.h"

namespace firewatch::server {

struct HealthOptions {
  std::chrono::milliseconds cache{1'000};   // a result is good for this long
  std::chrono::milliseconds deadline{500};  // a check that takes longer is a failed one
};

// Any thread. One thread of its own runs `check`, one at a time; the destructor waits for it.
class HealthMonitor {
 public:
  HealthMonitor(std::function<absl::Status()> check, HealthOptions options);
  ~HealthMonitor();
  HealthMonitor(const HealthMonitor&) = delete;
  HealthMonitor& operator=(const HealthMonitor&) = delete;

  // A fresh or cached result; Unavailable when a check has been running past its deadline. Waits
  // at most until that deadline, however many callers there are.
  absl::Status Check() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Time = std::chrono::steady_clock::time_point;

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status TooSlow(Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<absl::Status()> check_;
  const HealthOptions options_;

  base::Mutex mutex_;
  base::CondVar wanted_changed_;
  base::CondVar done_changed_;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;  // wanted, or at work
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool has_result_ ABSL_GUARDED_BY(mutex_) = false;
  Time started_ ABSL_GUARDED_BY(mutex_);
  Time finished_ ABSL_GUARDED_BY(mutex_);
  absl::Status result_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace firewatch::server
