// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/cpu_module.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "agent/core/bpf_info.h"
#include "agent/cpu/features.h"
#include "base/check.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr std::array<std::string_view, 4> kSamplers = {"auto", "ebpf", "perf", "ptrace"};
constexpr int kLevels = 4;

absl::Status AddPid(const std::string& text, CpuConfig* config) {
  uint32_t pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (error != std::errc() || end != text.data() + text.size() || pid == 0) {
    return base::InvalidArgument("{} is not a process id", text);
  }
  config->pids.push_back(Pid{pid});
  return absl::OkStatus();
}

bool SameBut(const CpuConfig& a, const CpuConfig& b) {
  return a.sampler == b.sampler && a.window_ms == b.window_ms && a.pids == b.pids &&
         a.cgroups == b.cgroups && a.record_events_path == b.record_events_path;
}

}  // namespace

absl::StatusOr<CpuConfig> ParseCpuConfig(const ConfigSection& section) {
  CpuConfig config;
  ConfigReader reader(section, "cpu");
  reader.Integer("hz", 1u, 999u, &config.hz);
  reader.OneOf("sampler", kSamplers, &config.sampler);
  reader.Duration("window", 100, 3'600'000, &config.window_ms);
  reader.Texts("pid", [&config](const std::string& text) { return AddPid(text, &config); });
  reader.Texts("cgroup", [&config](const std::string& text) -> absl::Status {
    if (text.empty()) return base::InvalidArgument("is empty");
    config.cgroups.push_back(text);
    return absl::OkStatus();
  });
  reader.Text("record-events", &config.record_events_path);
  RETURN_IF_ERROR(reader.Finish());
  config.explicit_hz = section.Find("hz") != nullptr;
  return config;
}

std::vector<uint32_t> CpuModule::Rates(uint32_t hz) {
  std::vector<uint32_t> rates;
  for (int level = 0; level < kLevels; ++level) {
    const uint32_t rate = std::max<uint32_t>(hz >> level, 1);
    if (rates.empty() || rate < rates.back()) rates.push_back(rate);
  }
  return rates;
}

CpuModule::~CpuModule() { CHECK(!thread_.joinable()); }

ModuleNeeds CpuModule::Needs() const {
  ModuleNeeds needs{.bpf_object = "bpf/cpu.bpf.c", .needs = {}};
  const std::vector<Feature> features = ProbeFeatures();
  // What the BPF sampler requires is no requirement where another one stands in.
  const bool can_sample = BestSource(features).has_value();
  for (const Feature& feature : features) {
    if (feature.need == FeatureNeed::kInfo) continue;
    needs.needs.push_back({.name = feature.name,
                           .required = feature.need == FeatureNeed::kRequired && !can_sample,
                           .available = feature.available,
                           .detail = feature.detail,
                           .remedy = feature.remedy});
  }
  return needs;
}

absl::Status CpuModule::CheckConfig(const ConfigSection& section) const {
  return ParseCpuConfig(section).status();
}

absl::Status CpuModule::Start(const ConfigSection& section, ModuleContext& context) {
  ASSIGN_OR_RETURN(CpuConfig config, ParseCpuConfig(section));
  {
    base::MutexLock lock(mutex_);
    config_ = config;
    explicit_budget_ = context.explicit_budget;
    level_ = 0;
    opened_ = over_ = false;
    status_ = absl::OkStatus();
    usage_ = {};
  }
  thread_ = std::thread([this, config = std::move(config), &context]() mutable {
    ::prctl(PR_SET_NAME, "profiler");
    RunThread(std::move(config), context);
  });
  bool over = false;
  absl::Status status;
  {
    base::MutexLock lock(mutex_);
    while (!opened_ && !over_) changed_.Wait(mutex_);
    over = over_;
    status = status_;
  }
  if (!over) return absl::OkStatus();
  thread_.join();
  return status.ok() ? base::Unavailable("the profiler has ended at once") : status;
}

void CpuModule::RunThread(CpuConfig config, ModuleContext& context) {
  const ThreadMeter::Scope scope(context.threads);
  absl::Status status = OpenAndRun(config, context);
  base::MutexLock lock(mutex_);
  over_ = true;
  status_ = std::move(status);
  changed_.NotifyAll();
}

// All that lives from Start to Stop, in the order of the drawing in ARCHITECTURE.md.
absl::Status CpuModule::OpenAndRun(const CpuConfig& config, ModuleContext& context) {
  ASSIGN_OR_RETURN(
      const auto symbolizer,
      symbolizer::Symbolizer::Create({.cache_directory = options_.cache_directory,
                                      .lines = options_.lines,
                                      // The helper's memory counts as the agent's while it lives,
                                      // and what the agent itself needs is 20 MiB.
                                      .lines_max_bytes = options_.memory_limit_bytes / 8 * 5,
                                      .on_use = options_.on_file_use},
                                     context.metrics));
  ProcessTableOptions table_options;
  table_options.node = context.node;
  table_options.service = options_.service;
  table_options.extra_labels = options_.labels;
  table_options.directory = &context.processes;
  ProcessTable table(std::move(table_options), *symbolizer, context.metrics);

  ProfilerOptions options;
  ASSIGN_OR_RETURN(options.source, ParseSourceChoice(config.sampler));
  options.sampler.hz = config.hz;
  options.sampler.pids = config.pids;
  options.sampler.cgroups = config.cgroups;
  options.window_ms = config.window_ms;
  options.record_events_path = config.record_events_path;
  options.memory_limit_bytes = options_.memory_limit_bytes;
  options.other_map_bytes = context.map_bytes_of_others;
  options.on_tables = options_.on_tables;
  ASSIGN_OR_RETURN(const auto profiler,
                   Profiler::Open(std::move(options), table, *symbolizer, context.clock,
                                  context.metrics, [this, &context](ClosedWindow window) {
                                    if (!options_.on_window) return;
                                    options_.on_window(std::move(window), context.upload);
                                  }));
  const std::string note = profiler->FallbackText();
  spdlog::info("sampling {} CPUs at {} Hz ({}), windows of {} ms", profiler->source().cpu_count(),
               profiler->source().hz(),
               profiler->source().hardware_cycles() ? "cycles" : "cpu-clock", config.window_ms);
  if (!note.empty()) spdlog::warn("{}", note);
  if (options_.on_started) options_.on_started(config, *profiler);
  {
    base::MutexLock lock(mutex_);
    profiler_ = profiler.get();
    program_fds_ = profiler->source().ProgramFds();
    note_ = note;
    kind_ = SourceKindName(profiler->source().kind());
    opened_ = true;
    changed_.NotifyAll();
  }
  absl::Status status = profiler->Run();
  base::MutexLock lock(mutex_);
  profiler_ = nullptr;
  const Profiler::Costs costs = profiler->costs();
  usage_ = {.building_cpu_ns = costs.building_ns,
            .building_in_threads_ns = costs.building_in_thread_ns,
            .bpf_run_ns = BpfRunNs(program_fds_)};
  program_fds_.clear();
  return status;
}

bool CpuModule::FixedRate() const {
  // A recording tells one rate in its head.
  return (config_.explicit_hz && !explicit_budget_) || !config_.record_events_path.empty();
}

bool CpuModule::MaySwitchOff() const {
  base::MutexLock lock(mutex_);
  return !FixedRate();
}

int CpuModule::DetailLevels() const {
  base::MutexLock lock(mutex_);
  return FixedRate() ? 1 : static_cast<int>(Rates(config_.hz).size());
}

std::string CpuModule::DetailText(int level) const {
  base::MutexLock lock(mutex_);
  const std::vector<uint32_t> rates = Rates(config_.hz);
  return fmt::format("{} Hz", rates[std::min(static_cast<size_t>(level), rates.size() - 1)]);
}

void CpuModule::SetDetail(int level) {
  base::MutexLock lock(mutex_);
  const std::vector<uint32_t> rates = Rates(config_.hz);
  level_ = level;
  if (profiler_ == nullptr) return;
  profiler_->RequestHz(rates[std::min(static_cast<size_t>(level), rates.size() - 1)]);
}

// The rate alone can change while it runs.
absl::Status CpuModule::Reconfigure(const ConfigSection& section) {
  ASSIGN_OR_RETURN(CpuConfig config, ParseCpuConfig(section));
  base::MutexLock lock(mutex_);
  if (!SameBut(config, config_) || config.explicit_hz != config_.explicit_hz || level_ != 0 ||
      !config.record_events_path.empty() || profiler_ == nullptr) {
    return absl::UnimplementedError("");
  }
  if (config.hz != config_.hz) profiler_->RequestHz(config.hz);
  config_ = std::move(config);
  return absl::OkStatus();
}

void CpuModule::Stop() {
  {
    base::MutexLock lock(mutex_);
    if (profiler_ != nullptr) profiler_->Stop();
  }
  thread_.join();
  base::MutexLock lock(mutex_);
  ended_.building_cpu_ns += usage_.building_cpu_ns;
  ended_.building_in_threads_ns += usage_.building_in_threads_ns;
  ended_.bpf_run_ns += usage_.bpf_run_ns;
  usage_ = {};
}

absl::Status CpuModule::CheckHealth() {
  base::MutexLock lock(mutex_);
  if (!over_) return absl::OkStatus();
  return status_.ok() ? base::Unavailable("the profiler's loop has ended") : status_;
}

ModuleUsage CpuModule::Usage() const {
  base::MutexLock lock(mutex_);
  ModuleUsage usage = usage_;
  if (profiler_ != nullptr) {
    const Profiler::Costs costs = profiler_->costs();
    usage = {.building_cpu_ns = costs.building_ns,
             .building_in_threads_ns = costs.building_in_thread_ns,
             .bpf_run_ns = BpfRunNs(program_fds_),
             .kernel_events = profiler_->collector().samples_total(),
             .map_bytes = costs.map_bytes};
  }
  usage.building_cpu_ns += ended_.building_cpu_ns;
  usage.building_in_threads_ns += ended_.building_in_threads_ns;
  usage.bpf_run_ns += ended_.bpf_run_ns;
  return usage;
}

ModuleReport CpuModule::Report() const {
  base::MutexLock lock(mutex_);
  ModuleReport report;
  report.state = note_.empty() ? ModuleState::kActive : ModuleState::kDegraded;
  report.why = note_;
  report.details_json = fmt::format(R"({{"sampler":"{}","hz":{},"window_ms":{}}})", kind_,
                                    profiler_ == nullptr ? 0 : profiler_->hz(), config_.window_ms);
  return report;
}

}  // namespace firewatch::agent
