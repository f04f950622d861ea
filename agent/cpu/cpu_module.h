// SPDX-License-Identifier: Apache-2.0
// The profiler as a module: one thread that opens the source of samples, runs the loop (profiler.h)
// and owns everything inside, from Start to Stop. It feeds the agent's directory of processes.
//
// Detail is the sampling rate: each level halves it. A rate that the user has asked for is not
// lowered unless he has also given a budget.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/core/module.h"
#include "agent/cpu/profiler.h"
#include "base/mutex.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

// The section `cpu`.
struct CpuConfig {
  uint32_t hz = 19;          // 1..999
  bool explicit_hz = false;  // somebody has asked for it
  std::string sampler = "auto";
  uint64_t window_ms = 10'000;  // 100 ms .. 1 h
  std::vector<Pid> pids;
  std::vector<std::string> cgroups;
  std::string record_events_path;
};
absl::StatusOr<CpuConfig> ParseCpuConfig(const ConfigSection& section);

// What the wiring knows: settings that need a new start of the agent, and where things go. The
// functions are called on the module's thread and may be empty.
struct CpuModuleOptions {
  std::string service;
  profile::LabelSet labels;
  std::string cache_directory;
  bool lines = true;
  uint64_t memory_limit_bytes = uint64_t{64} << 20;  // of the whole agent
  using Upload = std::function<absl::Status(ingest::UploadWindowRequest)>;
  std::function<void(ClosedWindow, const Upload&)> on_window;
  std::function<void(const symbolizer::FileUse&)> on_file_use;
  std::function<void(TableReport)> on_tables;
  // Sampling has begun.
  std::function<void(const CpuConfig&, Profiler&)> on_started;
};

class CpuModule final : public Module {
 public:
  explicit CpuModule(CpuModuleOptions options) : options_(std::move(options)) {}
  ~CpuModule() override;

  std::string_view name() const override { return "cpu"; }
  ModuleNeeds Needs() const override;
  // The profiler is what the agent is for: three quarters beside one other module.
  double BudgetWeight() const override { return 3; }
  bool MaySwitchOff() const override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckConfig(const ConfigSection& section) const override;
  absl::Status Start(const ConfigSection& section, ModuleContext& context) override;
  absl::Status Reconfigure(const ConfigSection& section) override;
  void Stop() override;
  absl::Status CheckHealth() override ABSL_LOCKS_EXCLUDED(mutex_);
  ModuleUsage Usage() const override;
  int DetailLevels() const override ABSL_LOCKS_EXCLUDED(mutex_);
  std::string DetailText(int level) const override ABSL_LOCKS_EXCLUDED(mutex_);
  void SetDetail(int level) override ABSL_LOCKS_EXCLUDED(mutex_);
  ModuleReport Report() const override ABSL_LOCKS_EXCLUDED(mutex_);

  // Rates of the levels: hz, a half, a quarter, an eighth, none below 1.
  static std::vector<uint32_t> Rates(uint32_t hz);

 private:
  void RunThread(CpuConfig config, ModuleContext& context) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status OpenAndRun(const CpuConfig& config, ModuleContext& context)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool FixedRate() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CpuModuleOptions options_;
  std::thread thread_;
  ModuleUsage ended_;  // totals of runs that have been stopped

  mutable base::Mutex mutex_;
  base::CondVar changed_;
  CpuConfig config_ ABSL_GUARDED_BY(mutex_);
  bool explicit_budget_ ABSL_GUARDED_BY(mutex_) = false;
  int level_ ABSL_GUARDED_BY(mutex_) = 0;
  Profiler* profiler_ ABSL_GUARDED_BY(mutex_) = nullptr;  // between opened and ended
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::string note_ ABSL_GUARDED_BY(mutex_);  // why the source is a fallback
  std::string kind_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> program_fds_ ABSL_GUARDED_BY(mutex_);  // valid while profiler_ is
  // Of the run that has just ended.
  ModuleUsage usage_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::agent
