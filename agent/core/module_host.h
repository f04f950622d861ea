// SPDX-License-Identifier: Apache-2.0
// Loads, starts, stops and reconfigures modules, each without touching the others; watches that
// they live; measures what they use and obeys the governor. A module that fails is off with the
// reason, is tried again with backoff where that makes sense, and the others go on.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/core/governor.h"
#include "agent/core/module.h"
#include "base/mutex.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

struct ModuleHostOptions {
  GovernorOptions governor;
  std::string node;
  std::string state_root;  // each module's directory lies below: STATE_ROOT/modules/NAME
  std::function<absl::Status(ingest::UploadWindowRequest)>
      upload;  // called by one thread at a time
  // While the descriptor is open the kernel counts the run time of BPF programs. May be empty:
  // in-kernel time is then unknown, and said to be.
  std::function<absl::StatusOr<base::UniqueFd>()> enable_bpf_stats;
  // CPU time of the whole process so far. What modules have not used of it is the agent's own, and
  // part of the budget. Empty: taken for nothing.
  std::function<uint64_t()> process_cpu_ns;
  // RssAnon of the agent. Empty: memory that belongs to nobody is taken for 0.
  std::function<uint64_t()> heap_bytes;
  uint64_t retry_min_ns = 2'000'000'000;
  uint64_t retry_max_ns = 300'000'000'000;
  // Counting costs 20 to 50 ns per run of every BPF program of the machine, so it is done from one
  // Tick to the next, this often.
  uint64_t bpf_stats_every_ns = 30'000'000'000;
};

// What the host is to make true; from flags and the file.
struct ModuleSettings {
  std::vector<std::string> enabled;
  std::map<std::string, ConfigSection> sections;
  double budget = 0.01;
  bool explicit_budget = false;
  uint64_t memory_bytes = uint64_t{64} << 20;
};

// For /healthz, /status, /metrics, uploads and the page.
struct ModuleView {
  std::string name;
  bool enabled = false;
  bool stopping = false;      // by the host, for whatever reason, at this moment
  bool governed_off = false;  // the budget does not allow it
  ModuleState state = ModuleState::kOff;
  std::string why;
  std::string details_json;
  std::string detail_text;  // of its level: "10 Hz"; "" when it is off
  GovernorView governor;
};

// Home thread: the one that made it calls Start, Reload, Tick and Stop; the others are for any.
// What the options and references name must outlive it.
class ModuleHost {
 public:
  ModuleHost(ModuleHostOptions options, std::vector<std::unique_ptr<Module>> modules,
             ProcessDirectory& processes, const base::Clock& clock, base::MetricsRegistry& metrics);
  ~ModuleHost();  // stops what runs
  ModuleHost(const ModuleHost&) = delete;
  ModuleHost& operator=(const ModuleHost&) = delete;

  // Whether every section would be taken, those of disabled modules too. Changes nothing.
  absl::Status CheckConfig(const ModuleSettings& settings) const;

  // Starts what is enabled, in the order of the list. The first error that is no reason to try
  // again, when no module runs afterwards; else OK: a module that failed is told by Views.
  absl::Status Start(const ModuleSettings& settings);

  // Makes new settings true: stops, starts and reconfigures those whose settings differ. An error
  // of CheckConfig comes before anything has changed. What a module refuses afterwards is returned,
  // too: it goes on with its old settings, all others have the new ones.
  absl::Status Reload(const ModuleSettings& settings);

  // Every two seconds or so, when all is calm every five: health, second tries, measuring, steps of
  // the governor.
  void Tick();
  // Everything that is enabled runs in full, below half of the budget, and the kernel is not
  // counting run time. Home thread.
  bool calm() const;
  void Stop();

  // --- any thread ---

  std::vector<ModuleView> Views() const;
  uint64_t MapBytes() const;  // of all modules, as of the last tick
  // Part of the machine, as measured by the governor; and what it may be.
  double used() const ABSL_LOCKS_EXCLUDED(views_mutex_);
  double used_by_agent() const ABSL_LOCKS_EXCLUDED(views_mutex_);  // of it: no module's
  double budget() const ABSL_LOCKS_EXCLUDED(views_mutex_);
  bool NeedsToken(const transport::HttpRequest& request) const;
  // The answer of the module whose path it is.
  std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request) const;

 private:
  struct Slot;
  class Call;
  // Keeps a module from being stopped while another thread is inside.
  class Visit;

  Slot* Find(std::string_view name);
  void StartSlot(Slot& slot);
  void StopSlot(Slot& slot);
  void Fail(Slot& slot, const absl::Status& status);
  void ReadUsage(uint64_t now_ns);
  void CountBpfTime(uint64_t now_ns);
  void Measure(uint64_t now_ns);
  void MeasureAgent(uint64_t now_ns);
  void Obey(const GovernorStep& step);
  void Publish();
  uint64_t MemoryShareOf(const Module& module) const;
  uint64_t MapBytesOfOthers(const Slot& slot) const;
  void RegisterMetrics(base::MetricsRegistry& metrics);

  const ModuleHostOptions options_;
  ProcessDirectory& processes_;
  const base::Clock& clock_;
  base::MetricsRegistry& metrics_;
  ModuleSettings settings_;
  std::vector<std::unique_ptr<Slot>> slots_;
  Governor governor_;
  base::UniqueFd bpf_stats_;  // valid while the kernel counts
  uint64_t bpf_stats_since_ns_ = 0;
  uint64_t bpf_stats_next_ns_ = 0;
  uint64_t last_tick_ns_ = 0;
  bool bpf_stats_refused_ = false;

  base::Mutex upload_mutex_;  // the uploader takes windows from one thread at a time
  mutable base::Mutex views_mutex_;
  std::vector<GovernorView> governor_views_ ABSL_GUARDED_BY(views_mutex_);
  double used_ ABSL_GUARDED_BY(views_mutex_) = 0;
  double used_by_agent_ ABSL_GUARDED_BY(views_mutex_) = 0;
  double budget_ ABSL_GUARDED_BY(views_mutex_) = 0;
  std::shared_ptr<struct ModuleHostSeries> series_;  // shared with the page of metrics
};

}  // namespace firewatch::agent
