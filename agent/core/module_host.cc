// SPDX-License-Identifier: Apache-2.0
#include "agent/core/module_host.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

// Running this long without a failure, the next failure is a first one.
constexpr uint64_t kForgivenNs = 300'000'000'000;
// Events per second (ModuleUsage::kernel_events) below which no change is worth counting anew, and
// what is another rate.
constexpr double kManyEvents = 1000;
constexpr double kOtherRate = 2;

// What will be the same at the next try.
bool IsFinal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kNotFound:
      return true;
    default:
      return false;
  }
}

uint64_t ThreadCpuNs() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

absl::StatusOr<std::string> MakeStateDirectory(const std::string& root, std::string_view name) {
  const std::filesystem::path path = std::filesystem::path(root) / "modules" / name;
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) {
    std::filesystem::permissions(path, std::filesystem::perms::owner_all, error);
  }
  if (error) return base::Unavailable("make {}: {}", path.string(), error.message());
  return path.string();
}

}  // namespace

// Written by the host's thread at each tick, read by the page of metrics, which outlives the host.
struct ModuleHostSeries {
  struct Row {
    std::string module;
    ModuleState state = ModuleState::kOff;
    GovernorView view;
    double kernel = 0;  // of one CPU
  };
  base::Mutex mutex;
  std::vector<Row> rows ABSL_GUARDED_BY(mutex);
  double agent ABSL_GUARDED_BY(mutex) = 0;

  template <typename Value>
  base::MetricsRegistry::Series Of(Value value) ABSL_LOCKS_EXCLUDED(mutex) {
    base::MutexLock lock(mutex);
    base::MetricsRegistry::Series out;
    for (const Row& row : rows) out.push_back({{{"module", row.module}}, value(row)});
    return out;
  }
};

struct ModuleHost::Slot {
  Slot(std::unique_ptr<Module> from, base::MetricsRegistry& metrics)
      : module(std::move(from)),
        name(module->name()),
        failures(metrics.AddCounter("firewatch_agent_module_failures_total",
                                    "Starts of a module that failed, and modules that broke.",
                                    {{"module", name}})),
        refused(metrics.AddCounter("firewatch_agent_module_reconfigure_refused_total",
                                   "New settings that a running module refused.",
                                   {{"module", name}})),
        down(metrics.AddCounter("firewatch_agent_module_steps_total",
                                "Changes of a module's detail by the governor.",
                                {{"module", name}, {"direction", "down"}})),
        up(metrics.AddCounter("firewatch_agent_module_steps_total",
                              "Changes of a module's detail by the governor.",
                              {{"module", name}, {"direction", "up"}})) {}

  const std::unique_ptr<Module> module;
  const std::string name;
  ThreadMeter threads;
  std::optional<ModuleContext> context;  // from the first Start on
  ConfigSection section;                 // in force
  bool enabled = false;
  bool governed_off = false;
  bool started = false;
  int detail = 0;
  uint64_t started_ns = 0;
  uint64_t retry_ns = 0;  // 0: not to be tried again
  uint64_t backoff_ns = 0;
  ModuleUsage usage;            // at the last tick
  uint64_t calls_cpu_ns = 0;    // of its Start, Reconfigure and Stop, on the host's thread
  double kernel_rate = 0;       // ns per ns, of one CPU, when it was last counted
  double kernel_ns = 0;         // so far, by that rate
  bool counting = false;        // since a tick in this run
  uint64_t counted_run_ns = 0;  // bpf_run_ns at that tick
  double event_rate = 0;        // kernel_events per second, since the tick before
  double counted_event_rate = 0;

  // The part that other threads see.
  mutable base::Mutex mutex;
  mutable base::CondVar left;
  bool open ABSL_GUARDED_BY(mutex) = false;  // between Start and Stop
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  bool shown_governed_off ABSL_GUARDED_BY(mutex) = false;
  mutable int visitors ABSL_GUARDED_BY(mutex) = 0;
  bool shown_enabled ABSL_GUARDED_BY(mutex) = false;
  std::string why ABSL_GUARDED_BY(mutex) = "not enabled";  // it is off
  std::string detail_why ABSL_GUARDED_BY(mutex);           // the governor has lowered it
  std::string refusal ABSL_GUARDED_BY(mutex);              // the last reload was refused
  std::atomic<uint64_t> map_bytes{0};

  base::Counter& failures;
  base::Counter& refused;
  base::Counter& down;
  base::Counter& up;

  void SetWhy(std::string text) ABSL_LOCKS_EXCLUDED(mutex) {
    base::MutexLock lock(mutex);
    why = std::move(text);
  }
};

// What a module does on the host's thread when it starts (loading BPF programs takes a second) or
// stops is its own, and a lump.
class ModuleHost::Call {
 public:
  explicit Call(Slot& slot) : slot_(slot), start_ns_(ThreadCpuNs()) {}
  ~Call() { slot_.calls_cpu_ns += ThreadCpuNs() - start_ns_; }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  Slot& slot_;
  const uint64_t start_ns_;
};

class ModuleHost::Visit {
 public:
  explicit Visit(const Slot& slot) : slot_(slot) {
    base::MutexLock lock(slot_.mutex);
    inside_ = slot_.open;
    if (inside_) ++slot_.visitors;
  }
  ~Visit() {
    if (!inside_) return;
    base::MutexLock lock(slot_.mutex);
    if (--slot_.visitors == 0) slot_.left.NotifyAll();
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  bool inside() const { return inside_; }

 private:
  const Slot& slot_;
  bool inside_ = false;
};

ModuleHost::ModuleHost(ModuleHostOptions options, std::vector<std::unique_ptr<Module>> modules,
                       ProcessDirectory& processes, const base::Clock& clock,
                       base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      processes_(processes),
      clock_(clock),
      metrics_(metrics),
      governor_(options_.governor),
      series_(std::make_shared<ModuleHostSeries>()) {
  for (std::unique_ptr<Module>& module : modules) {
    CHECK(Find(module->name()) == nullptr);
    slots_.push_back(std::make_unique<Slot>(std::move(module), metrics));
  }
  RegisterMetrics(metrics);
}

ModuleHost::~ModuleHost() { Stop(); }

void ModuleHost::RegisterMetrics(base::MetricsRegistry& metrics) {
  const auto add = [&](std::string_view name, std::string_view help, auto value) {
    metrics.AddSeries(name, help, "gauge", [series = series_, value] { return series->Of(value); });
  };
  using Row = ModuleHostSeries::Row;
  add("firewatch_agent_module_state", "Of each module: 1 active, 0.5 degraded, 0 off.",
      [](const Row& row) {
        return row.state == ModuleState::kActive ? 1 : row.state == ModuleState::kOff ? 0 : 0.5;
      });
  add("firewatch_agent_module_cpu_ratio",
      "CPU time of a module's threads and BPF programs, as a part of the machine.",
      [](const Row& row) { return row.view.cpu; });
  metrics.AddCallback("firewatch_agent_own_cpu_ratio",
                      "CPU time of the agent itself, which no module has used, as a part of the "
                      "machine.",
                      "gauge", {}, [series = series_] {
                        base::MutexLock lock(series->mutex);
                        return series->agent;
                      });
  add("firewatch_agent_module_bpf_ratio",
      "Run time of a module's BPF programs, as a part of one CPU; sampled.",
      [](const Row& row) { return row.kernel; });
  add("firewatch_agent_module_cpu_share_ratio",
      "What a module may use when all use theirs, as a part of the machine.",
      [](const Row& row) { return row.view.share; });
  add("firewatch_agent_module_memory_bytes", "Maps of a module, and its heap as far as known.",
      [](const Row& row) { return static_cast<double>(row.view.memory_bytes); });
  add("firewatch_agent_module_detail_level",
      "How far the governor has lowered a module: 0 is everything.",
      [](const Row& row) { return static_cast<double>(row.view.level); });
}

ModuleHost::Slot* ModuleHost::Find(std::string_view name) {
  for (const auto& slot : slots_) {
    if (slot->name == name) return slot.get();
  }
  return nullptr;
}

absl::Status ModuleHost::CheckConfig(const ModuleSettings& settings) const {
  for (const auto& slot : slots_) {
    const auto section = settings.sections.find(slot->name);
    RETURN_IF_ERROR(slot->module->CheckConfig(
        section == settings.sections.end() ? ConfigSection() : section->second));
  }
  return absl::OkStatus();
}

uint64_t ModuleHost::MemoryShareOf(const Module& module) const {
  double sum = 0;
  for (const auto& slot : slots_) sum += slot->enabled ? slot->module->BudgetWeight() : 0;
  return static_cast<uint64_t>(static_cast<double>(settings_.memory_bytes) * module.BudgetWeight() /
                               sum);
}

uint64_t ModuleHost::MapBytesOfOthers(const Slot& slot) const {
  uint64_t sum = 0;
  for (const auto& other : slots_) {
    if (other.get() != &slot) sum += other->map_bytes.load(std::memory_order_relaxed);
  }
  return sum;
}

// Off from now on; tried again when that may help.
void ModuleHost::Fail(Slot& slot, const absl::Status& status) {
  slot.failures.Add();
  governor_.Remove(slot.name);
  if (IsFinal(status)) {
    slot.retry_ns = 0;
    slot.SetWhy(std::string(base::Message(status)));
    spdlog::error("module {} is off: {}", slot.name, base::Message(status));
    return;
  }
  const uint64_t now_ns = clock_.MonotonicNs();
  if (slot.started_ns != 0 && now_ns - slot.started_ns > kForgivenNs) slot.backoff_ns = 0;
  slot.backoff_ns = std::clamp(2 * slot.backoff_ns, options_.retry_min_ns, options_.retry_max_ns);
  slot.retry_ns = now_ns + slot.backoff_ns;
  slot.SetWhy(fmt::format("{} (tried again every {} s)", base::Message(status),
                          slot.backoff_ns / 1'000'000'000));
  spdlog::error("module {} is off: {}; next try in {} s", slot.name, base::Message(status),
                slot.backoff_ns / 1'000'000'000);
}

void ModuleHost::StartSlot(Slot& slot) {
  CHECK(!slot.started);
  slot.retry_ns = 0;
  const auto directory = MakeStateDirectory(options_.state_root, slot.name);
  if (!directory.ok()) return Fail(slot, directory.status());
  if (!slot.context) {
    slot.context.emplace(ModuleContext{.metrics = metrics_,
                                       .processes = processes_,
                                       .clock = clock_,
                                       .threads = slot.threads,
                                       .node = options_.node});
    slot.context->upload = [this](ingest::UploadWindowRequest request) {
      base::MutexLock lock(upload_mutex_);
      return options_.upload(std::move(request));
    };
    slot.context->map_bytes_of_others = [this, &slot] { return MapBytesOfOthers(slot); };
  }
  slot.context->state_directory = *directory;
  slot.context->memory_limit_bytes = MemoryShareOf(*slot.module);
  slot.context->explicit_budget = settings_.explicit_budget;
  absl::Status status;
  {
    const Call call(slot);
    status = slot.module->Start(slot.section, *slot.context);
  }
  if (!status.ok()) return Fail(slot, status);
  slot.started = true;
  slot.started_ns = clock_.MonotonicNs();
  slot.kernel_rate = 0;
  slot.counting = false;
  slot.usage = slot.module->Usage();
  slot.map_bytes = slot.usage.map_bytes;
  const int level = governor_.LevelOf(slot.name);
  governor_.Add({.name = slot.name,
                 .weight = slot.module->BudgetWeight(),
                 .levels = slot.module->DetailLevels(),
                 .may_switch_off = slot.module->MaySwitchOff(),
                 .pinned = slot.module->DetailLevels() == 1 && !slot.module->MaySwitchOff()});
  slot.detail = level;
  if (slot.detail > 0) slot.module->SetDetail(slot.detail);
  bpf_stats_next_ns_ = 0;  // what its programs cost is to be known soon
  {
    base::MutexLock lock(slot.mutex);
    slot.open = true;
    slot.shown_governed_off = false;
    slot.why.clear();
    slot.refusal.clear();
    if (slot.detail == 0) slot.detail_why.clear();
  }
  spdlog::info("module {} is active", slot.name);
}

void ModuleHost::StopSlot(Slot& slot) {
  if (!slot.started) return;
  {
    base::MutexLock lock(slot.mutex);
    slot.open = false;
    slot.stopping = true;
    while (slot.visitors != 0) slot.left.Wait(slot.mutex);
  }
  {
    const Call call(slot);
    slot.module->Stop();
  }
  slot.started = false;
  slot.map_bytes = 0;
  base::MutexLock lock(slot.mutex);
  slot.stopping = false;
}

absl::Status ModuleHost::Start(const ModuleSettings& settings) {
  RETURN_IF_ERROR(CheckConfig(settings));
  settings_ = settings;
  governor_.SetBudget(settings.budget, settings.memory_bytes);
  last_tick_ns_ = clock_.MonotonicNs();
  for (const auto& slot : slots_) {
    slot->enabled = std::ranges::find(settings.enabled, slot->name) != settings.enabled.end();
    const auto section = settings.sections.find(slot->name);
    if (section != settings.sections.end()) slot->section = section->second;
    base::MutexLock lock(slot->mutex);
    slot->shown_enabled = slot->enabled;
  }
  bool some = false;
  bool retried = false;
  std::string errors;
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  for (const auto& slot : slots_) {
    if (!slot->enabled) continue;
    StartSlot(*slot);
    some |= slot->started;
    retried |= slot->retry_ns != 0;
    if (slot->started || slot->retry_ns != 0) continue;
    base::MutexLock lock(slot->mutex);
    errors += fmt::format("{}module {}: {}", errors.empty() ? "" : "; ", slot->name, slot->why);
    code = absl::StatusCode::kFailedPrecondition;
  }
  Publish();
  if (some || retried || errors.empty()) return absl::OkStatus();
  return base::MakeStatus(code, errors);
}

absl::Status ModuleHost::Reload(const ModuleSettings& settings) {
  RETURN_IF_ERROR(CheckConfig(settings));
  settings_ = settings;
  governor_.SetBudget(settings.budget, settings.memory_bytes);
  std::string refusals;
  for (const auto& entry : slots_) {
    Slot& slot = *entry;
    const bool enable = std::ranges::find(settings.enabled, slot.name) != settings.enabled.end();
    const auto found = settings.sections.find(slot.name);
    const ConfigSection section =
        found == settings.sections.end() ? ConfigSection() : found->second;
    const bool was_enabled = std::exchange(slot.enabled, enable);
    {
      base::MutexLock lock(slot.mutex);
      slot.shown_enabled = enable;
    }
    if (!enable) {
      if (slot.started) spdlog::info("module {} is switched off", slot.name);
      StopSlot(slot);
      governor_.Remove(slot.name);
      slot.governed_off = false;
      slot.retry_ns = 0;
      slot.section = section;
      base::MutexLock lock(slot.mutex);
      slot.shown_governed_off = false;
      slot.why = "not enabled";
      continue;
    }
    const bool changed = !(section == slot.section) || slot.module->NamesFiles(section);
    const bool budget_changed =
        slot.context && slot.context->explicit_budget != settings.explicit_budget;
    if (slot.governed_off && was_enabled) {  // comes back with the new settings
      slot.section = section;
      continue;
    }
    if (!slot.started) {
      slot.section = section;
      slot.backoff_ns = 0;
      StartSlot(slot);
      continue;
    }
    absl::Status status = absl::OkStatus();
    if (changed) {
      const Call call(slot);
      status = slot.module->Reconfigure(section);
    }
    if (absl::IsUnimplemented(status) || (budget_changed && status.ok())) {
      StopSlot(slot);
      slot.section = section;
      StartSlot(slot);
      continue;
    }
    base::MutexLock lock(slot.mutex);
    slot.refusal.clear();
    if (status.ok()) {
      slot.section = section;
      if (changed) spdlog::info("module {} has new settings", slot.name);
      continue;
    }
    slot.refused.Add();
    slot.refusal = fmt::format("the last reload was refused: {}", base::Message(status));
    refusals += fmt::format("{}module {}: {}", refusals.empty() ? "" : "; ", slot.name,
                            base::Message(status));
  }
  Publish();
  return refusals.empty() ? absl::OkStatus() : base::FailedPrecondition("{}", refusals);
}

void ModuleHost::Tick() {
  const uint64_t now_ns = clock_.MonotonicNs();
  for (const auto& slot : slots_) {
    if (!slot->started) continue;
    const absl::Status status = slot->module->CheckHealth();
    if (status.ok()) continue;
    StopSlot(*slot);
    // It did start here once: whatever its code, what has broken it may be over.
    Fail(*slot, IsFinal(status) ? base::Unavailable("{}", base::Message(status)) : status);
  }
  for (const auto& slot : slots_) {
    if (slot->enabled && !slot->started && slot->retry_ns != 0 && slot->retry_ns <= now_ns) {
      StartSlot(*slot);
    }
  }
  ReadUsage(now_ns);
  CountBpfTime(now_ns);
  Measure(now_ns);
  MeasureAgent(now_ns);
  for (const GovernorStep& step : governor_.Decide(now_ns)) Obey(step);
  last_tick_ns_ = now_ns;
  Publish();
}

bool ModuleHost::calm() const {
  const bool must_count =
      bpf_stats_next_ns_ == 0 && options_.enable_bpf_stats && !bpf_stats_refused_;
  if (bpf_stats_.valid() || must_count || governor_.total() > governor_.budget() / 2) return false;
  return std::all_of(slots_.begin(), slots_.end(), [](const auto& slot) {
    return !slot->enabled || (slot->started && slot->detail == 0);
  });
}

void ModuleHost::ReadUsage(uint64_t now_ns) {
  for (const auto& slot : slots_) {
    if (!slot->started) continue;
    const ModuleUsage usage = slot->module->Usage();
    const uint64_t fresh =
        usage.kernel_events - std::min(usage.kernel_events, slot->usage.kernel_events);
    slot->event_rate = now_ns > last_tick_ns_ ? 1e9 * static_cast<double>(fresh) /
                                                    static_cast<double>(now_ns - last_tick_ns_)
                                              : 0;
    slot->usage = usage;
    if (bpf_stats_.valid()) continue;  // it is being counted
    // What was counted is no longer true.
    const double less = std::min(slot->event_rate, slot->counted_event_rate);
    const double more = std::max(slot->event_rate, slot->counted_event_rate);
    if (more > kManyEvents && more > kOtherRate * less) bpf_stats_next_ns_ = 0;
  }
}

// From one tick to the next the kernel counts; in between the last rate is taken to hold.
void ModuleHost::CountBpfTime(uint64_t now_ns) {
  if (!options_.enable_bpf_stats || bpf_stats_refused_) return;
  if (bpf_stats_.valid()) {
    const auto counted = static_cast<double>(now_ns - bpf_stats_since_ns_);
    for (const auto& slot : slots_) {
      if (!slot->started || counted <= 0) continue;
      // A module that has been started meanwhile waits for the next time.
      if (!std::exchange(slot->counting, false)) continue;
      const uint64_t run_ns = slot->usage.bpf_run_ns;
      slot->kernel_rate =
          static_cast<double>(run_ns - std::min(run_ns, slot->counted_run_ns)) / counted;
      slot->counted_event_rate = slot->event_rate;
    }
    bpf_stats_.Reset();
    return;
  }
  if (now_ns < bpf_stats_next_ns_) return;
  for (const auto& slot : slots_) {
    if (!slot->started) continue;
    slot->counted_run_ns = slot->usage.bpf_run_ns;
    slot->counting = true;
  }
  auto stats = options_.enable_bpf_stats();
  if (!stats.ok()) {
    bpf_stats_refused_ = true;
    spdlog::warn("time in BPF programs is not counted: {}", base::Message(stats.status()));
    return;
  }
  bpf_stats_ = *std::move(stats);
  bpf_stats_since_ns_ = now_ns;
  bpf_stats_next_ns_ = now_ns + options_.bpf_stats_every_ns;
}

void ModuleHost::Measure(uint64_t now_ns) {
  if (options_.heap_bytes) governor_.SetCommonMemory(options_.heap_bytes());
  for (const auto& slot : slots_) {
    if (!slot->started) continue;
    slot->map_bytes = slot->usage.map_bytes;
    slot->kernel_ns += slot->kernel_rate * static_cast<double>(now_ns - last_tick_ns_);
    const uint64_t threads_ns = slot->threads.CpuNs();
    governor_.Measure(
        slot->name, now_ns,
        {.cpu_ns = threads_ns - std::min(threads_ns, slot->usage.building_in_threads_ns) +
                   slot->usage.cpu_ns,
         .building_cpu_ns = slot->usage.building_cpu_ns + slot->calls_cpu_ns,
         .kernel_ns = static_cast<uint64_t>(slot->kernel_ns),
         .memory_bytes = slot->usage.map_bytes + slot->usage.heap_bytes});
  }
}

// After Measure: what it has left.
void ModuleHost::MeasureAgent(uint64_t now_ns) {
  if (!options_.process_cpu_ns) return;
  uint64_t modules_ns = 0;
  for (const auto& slot : slots_) {
    modules_ns += slot->threads.CpuNs() + slot->usage.cpu_ns + slot->calls_cpu_ns;
  }
  const uint64_t process_ns = options_.process_cpu_ns();
  governor_.MeasureAgent(now_ns, process_ns - std::min(process_ns, modules_ns));
}

void ModuleHost::Obey(const GovernorStep& step) {
  Slot& slot = *Find(step.module);
  const bool is_down = step.to > step.from;
  (is_down ? slot.down : slot.up).Add();
  const int levels = slot.module->DetailLevels();
  const auto text = [&](int level) {
    return level >= levels ? std::string("off") : slot.module->DetailText(level);
  };
  const std::string change = fmt::format("{} instead of {}", text(step.to), text(0));
  if (is_down) {
    spdlog::warn("budget: module {} steps down from {} to {}: {}", slot.name, text(step.from),
                 text(step.to), step.why);
  } else {
    spdlog::info("budget: module {} steps up from {} to {}: {}", slot.name, text(step.from),
                 text(step.to), step.why);
  }
  {
    base::MutexLock lock(slot.mutex);
    slot.detail_why = step.to == 0 ? "" : fmt::format("over its budget: {} ({})", change, step.why);
  }
  slot.detail = step.to;
  bpf_stats_next_ns_ = 0;  // the rate of before is no longer true
  if (step.to >= levels) {
    StopSlot(slot);
    slot.governed_off = true;
    {
      base::MutexLock lock(slot.mutex);
      slot.shown_governed_off = true;
    }
    slot.SetWhy(fmt::format("over its budget even at its least ({})", step.why));
  } else if (slot.governed_off) {
    slot.governed_off = false;
    StartSlot(slot);  // at the level that the governor has
  } else if (slot.started) {
    slot.module->SetDetail(step.to);
  }
}

void ModuleHost::Stop() {
  bpf_stats_.Reset();
  for (auto slot = slots_.rbegin(); slot != slots_.rend(); ++slot) {
    if (!(*slot)->started) continue;
    StopSlot(**slot);
    (*slot)->SetWhy("the agent is stopping");
  }
  Publish();
}

void ModuleHost::Publish() {
  {
    base::MutexLock lock(views_mutex_);
    governor_views_ = governor_.View();
    used_ = governor_.total();
    used_by_agent_ = governor_.agent();
    budget_ = governor_.budget();
  }
  std::vector<ModuleHostSeries::Row> rows;
  for (ModuleView& view : Views()) {
    if (!view.enabled) continue;
    rows.push_back({view.name, view.state, view.governor, Find(view.name)->kernel_rate});
  }
  base::MutexLock lock(series_->mutex);
  series_->rows = std::move(rows);
  series_->agent = governor_.agent();
}

std::vector<ModuleView> ModuleHost::Views() const {
  std::vector<GovernorView> governed;
  {
    base::MutexLock lock(views_mutex_);
    governed = governor_views_;
  }
  std::vector<ModuleView> views;
  for (const auto& slot : slots_) {
    ModuleView view;
    view.name = slot->name;
    for (const GovernorView& each : governed) {
      if (each.module == slot->name) view.governor = each;
    }
    const Visit visit(*slot);
    ModuleReport report{.state = ModuleState::kOff};
    if (visit.inside()) {
      report = slot->module->Report();
      view.detail_text = slot->module->DetailText(view.governor.level);
    }
    base::MutexLock lock(slot->mutex);
    view.enabled = slot->shown_enabled;
    view.stopping = slot->stopping;
    view.governed_off = slot->shown_governed_off;
    view.state = report.state;
    view.why = visit.inside() ? report.why : slot->why;
    view.details_json = std::move(report.details_json);
    if (visit.inside()) {
      for (const std::string* more : {&slot->detail_why, &slot->refusal}) {
        if (more->empty()) continue;
        if (view.state == ModuleState::kActive) view.state = ModuleState::kDegraded;
        view.why += (view.why.empty() ? "" : "; ") + *more;
      }
    }
    views.push_back(std::move(view));
  }
  return views;
}

uint64_t ModuleHost::MapBytes() const {
  uint64_t sum = 0;
  for (const auto& slot : slots_) sum += slot->map_bytes.load(std::memory_order_relaxed);
  return sum;
}

double ModuleHost::used() const {
  base::MutexLock lock(views_mutex_);
  return used_;
}

double ModuleHost::used_by_agent() const {
  base::MutexLock lock(views_mutex_);
  return used_by_agent_;
}

double ModuleHost::budget() const {
  base::MutexLock lock(views_mutex_);
  return budget_;
}

bool ModuleHost::NeedsToken(const transport::HttpRequest& request) const {
  return std::ranges::any_of(slots_, [&request](const auto& slot) {
    const Visit visit(*slot);
    return visit.inside() && slot->module->NeedsToken(request);
  });
}

std::optional<transport::HttpResponse> ModuleHost::Handle(
    const transport::HttpRequest& request) const {
  for (const auto& slot : slots_) {
    const Visit visit(*slot);
    if (!visit.inside()) continue;
    if (auto response = slot->module->Handle(request)) return response;
  }
  return std::nullopt;
}

}  // namespace firewatch::agent
