// SPDX-License-Identifier: Apache-2.0
// The agent's own HTTP page: /metrics, /healthz and /status.
#pragma once

#include <cstdint>

#include "agent/upload/uploader.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "transport/http_server.h"

namespace firewatch::agent {

// Any thread. `clock` must outlive it.
class Health {
 public:
  explicit Health(const base::Clock& clock) : clock_(clock) {}

  void Started(uint64_t window_ms) ABSL_LOCKS_EXCLUDED(mutex_);
  void WindowClosed(uint64_t samples) ABSL_LOCKS_EXCLUDED(mutex_);
  // nullptr before the uploader ends.
  void SetUploader(const Uploader* uploader) ABSL_LOCKS_EXCLUDED(mutex_);

  // "" when sampling runs and windows close in time, else what is wrong. A server that is away is
  // no ill health: the spool takes the windows.
  std::string Problem() const ABSL_LOCKS_EXCLUDED(mutex_);
  // {"windows":…,"samples":…,"upload":{…}}
  std::string StatusJson() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const base::Clock& clock_;
  mutable base::Mutex mutex_;
  const Uploader* uploader_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t window_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_window_ns_ ABSL_GUARDED_BY(mutex_) = 0;  // monotonic
  uint64_t windows_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t samples_ ABSL_GUARDED_BY(mutex_) = 0;
};

transport::HttpResponse HandleAgentRequest(const transport::HttpRequest& request,
                                           const base::MetricsRegistry& metrics,
                                           const Health& health);

}  // namespace firewatch::agent
