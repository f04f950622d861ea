// SPDX-License-Identifier: Apache-2.0
// The agent's own HTTP page: /metrics, /healthz, /status and /tables.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "agent/core/module_host.h"
#include "agent/cpu/profiler.h"
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
  void WindowClosed(const ClosedWindow& window) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetProgramEnds(std::shared_ptr<const StackEndsByProgram> ends) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetTables(TableReport report) ABSL_LOCKS_EXCLUDED(mutex_);
  // What /healthz and /status say about where samples come from; `note` is "" for the best.
  void SetSampler(std::string kind, std::string note) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whose modules /healthz and /status tell of; nullptr before it ends, and in a replay.
  void SetHost(const ModuleHost* host) ABSL_LOCKS_EXCLUDED(mutex_);
  // nullptr before the uploader ends.
  void SetUploader(const Uploader* uploader) ABSL_LOCKS_EXCLUDED(mutex_);

  // "" when sampling runs and windows close in time, else what is wrong. A server that is away is
  // no ill health: the spool takes the windows. Nor is a module other than the profiler that is
  // off, or one that the budget has switched off.
  std::string Problem() const ABSL_LOCKS_EXCLUDED(mutex_);
  // "ok", a line that says so when the sampler is a fallback, and one for each other module that is
  // enabled and not active.
  std::string HealthText() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What a module answers, if the path is one's.
  // What a request that changes something must bear (agent/core/write_token.h); until it is set,
  // and with "", nobody may. `path`: where it can be read.
  void SetWriteToken(std::string token, std::string path) ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<transport::HttpResponse> AskModules(const transport::HttpRequest& request) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // {"sampler":…,"modules":[{"name":"cpu","state":"active","why":"",…}],"budget":{…},"windows":…,"samples":…,"complete_stacks":0.998,"programs":[…],"upload":{…}};
  // complete: of the stacks with a user part, those that end at a proven root, since the start.
  std::string StatusJson() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The latest report; "" before the first one (no unwinding by tables here).
  std::string TablesJson() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const base::Clock& clock_;
  mutable base::Mutex mutex_;
  const ModuleHost* host_ ABSL_GUARDED_BY(mutex_) = nullptr;
  const Uploader* uploader_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::string sampler_ ABSL_GUARDED_BY(mutex_);
  std::string sampler_note_ ABSL_GUARDED_BY(mutex_);
  uint64_t window_ms_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_window_ns_ ABSL_GUARDED_BY(mutex_) = 0;  // monotonic
  uint64_t windows_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t samples_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<const StackEndsByProgram> program_ends_ ABSL_GUARDED_BY(mutex_);
  std::optional<TableReport> tables_ ABSL_GUARDED_BY(mutex_);
  std::string write_token_ ABSL_GUARDED_BY(mutex_);
  std::string write_token_path_ ABSL_GUARDED_BY(mutex_);
};

transport::HttpResponse HandleAgentRequest(const transport::HttpRequest& request,
                                           const base::MetricsRegistry& metrics,
                                           const Health& health);

}  // namespace firewatch::agent
