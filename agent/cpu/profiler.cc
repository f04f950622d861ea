// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/profiler.h"

#include <malloc.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

// How often a closed window asks whether its files have been read; only while some are outstanding.
constexpr uint64_t kNamesIntervalMs = 25;
// How often the helper is asked for unwind tables; only while some are being built.
constexpr uint64_t kTablesIntervalMs = 10;
constexpr uint64_t kSecondNs = 1'000'000'000;
// How often files that nobody maps any more are forgotten: longer than a sample is on its way.
constexpr uint64_t kForgetIntervalNs = 60 * kSecondNs;
// How often the heap is looked at, while samples come.
constexpr uint64_t kMemoryIntervalNs = 100'000'000;
// Of the memory limit: what stacks that wait for tables, and frames of each of the two windows, may
// take. At 64 MiB these are 4 MiB each.
constexpr uint64_t kDeferredShare = 16;
constexpr uint64_t kFramesShare = 16;
// At the end of a run there is no next window to wait in: names may take this long.
constexpr int kFinalNamesMs = 5'000;

absl::StatusOr<base::UniqueFd> MakeTimer() {
  base::UniqueFd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!fd.valid()) return base::ErrnoStatus(errno, "timerfd_create");
  return fd;
}

// 0 disarms.
void ArmTimer(int fd, uint64_t interval_ms) {
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(interval_ms / 1000);
  spec.it_value.tv_nsec = static_cast<long>(interval_ms % 1000) * 1'000'000;
  spec.it_interval = spec.it_value;
  ::timerfd_settime(fd, 0, &spec, nullptr);
}

WindowOptions LimitedWindow(const ProfilerOptions& options) {
  WindowOptions window = options.window;
  window.max_frames = std::min<size_t>(window.max_frames,
                                       options.memory_limit_bytes / kFramesShare / sizeof(fw_u64));
  return window;
}

uint64_t ThreadNs() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * kSecondNs + static_cast<uint64_t>(time.tv_nsec);
}

void ClearEvent(int fd) {
  uint64_t value = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd, &value, sizeof(value));
}

}  // namespace

Profiler::Profiler(ProfilerOptions options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
                   const base::Clock& clock, base::MetricsRegistry& metrics, Collector::Sink sink)
    : options_(std::move(options)),
      table_(table),
      symbolizer_(symbolizer),
      clock_(clock),
      collector_(LimitedWindow(options_), table, symbolizer, metrics,
                 [this, to = std::move(sink)](ClosedWindow window) {
                   NoteSource(&window);
                   budget_.Look();  // its profiles stand beside the frames that they were made of
                   to(std::move(window));
                   budget_.Look();
                 },
                 {.bytes = std::min<size_t>(DeferredLimits().bytes,
                                            options_.memory_limit_bytes / kDeferredShare)}),
      budget_(options_.memory_limit_bytes, options_.rss_anon_bytes) {}

void Profiler::NoteSource(ClosedWindow* window) const {
  window->sampler = SourceKindName(opened_.source->kind());
  const std::string text = FallbackText();
  if (text.empty()) return;
  // The profile says it by itself (go tool pprof -comments); what the pauses cost changes with
  // every window, and stays out of it.
  for (WindowGroup& group : window->groups) group.profile.comments.push_back(text);
  const std::string pauses = DescribePauses(opened_.source->Pauses());
  window->sampler_note = pauses.empty() ? text : fmt::format("{}; paused: {}", text, pauses);
}

absl::StatusOr<std::unique_ptr<Profiler>> Profiler::Open(
    ProfilerOptions options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
    const base::Clock& clock, base::MetricsRegistry& metrics, Collector::Sink sink) {
  ASSIGN_OR_RETURN(OpenedSource opened, OpenSource({.choice = options.source,
                                                    .sampler = options.sampler,
                                                    .stack_bytes = options.stack_bytes,
                                                    .ptrace_max_hz = options.ptrace_max_hz},
                                                   table, symbolizer, metrics));
  options.window.hz = opened.source->hz();
  metrics
      .AddGauge("firewatch_sampler_source", "1: where samples come from; perf, ptrace: fallbacks",
                {{"kind", std::string(SourceKindName(opened.source->kind()))}})
      .Set(1);
  std::unique_ptr<Profiler> profiler(
      new Profiler(std::move(options), table, symbolizer, clock, metrics, std::move(sink)));
  profiler->opened_ = std::move(opened);
  RETURN_IF_ERROR(profiler->Prepare(table, symbolizer, metrics));
  return profiler;
}

absl::Status Profiler::Prepare(ProcessTable& table, symbolizer::Symbolizer& symbolizer,
                               base::MetricsRegistry& metrics) {
  if (opened_.sideband == nullptr) {
    CHECK(opened_.source->DeliverEventsTo(
        [this](const ProcessEvent& event) { DeliverEvent(event); }));
  }
  hz_ = opened_.source->hz();
  budget_.SetFixedBytes(opened_.source->map_bytes());
  if (TableMemory* memory = opened_.source->table_memory(); memory != nullptr) {
    known_files_ =
        std::make_unique<KnownFiles>(*memory, [this] { return TableRoom(); }, symbolizer, metrics);
    collector_.SetKnownFiles(known_files_.get());
  }
  if (!options_.record_events_path.empty()) {
    const ReplayHeader header = {
        .hz = opened_.source->hz(),
        .unix_minus_monotonic_ns =
            clock_.Now().unix_ns - static_cast<int64_t>(clock_.MonotonicNs())};
    ASSIGN_OR_RETURN(recorder_, ReplayWriter::Create(options_.record_events_path, header));
    table.ForEachAsEvents([this](const ProcessEvent& event) { recorder_->Write(event); });
  }
  epoll_.Reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return base::ErrnoStatus(errno, "epoll_create1");
  stop_event_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_event_.valid()) return base::ErrnoStatus(errno, "eventfd");
  rate_event_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!rate_event_.valid()) return base::ErrnoStatus(errno, "eventfd");
  ASSIGN_OR_RETURN(window_timer_, MakeTimer());
  ASSIGN_OR_RETURN(names_timer_, MakeTimer());
  ASSIGN_OR_RETURN(tick_timer_, MakeTimer());
  ASSIGN_OR_RETURN(tables_timer_, MakeTimer());
  std::vector<int> waits = {opened_.source->WaitFd(), stop_event_.get(), window_timer_.get(),
                            names_timer_.get(),       tick_timer_.get(), tables_timer_.get(),
                            rate_event_.get()};
  if (opened_.sideband != nullptr) waits.push_back(opened_.sideband->WaitFd());
  for (const int fd : waits) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return base::ErrnoStatus(errno, "epoll_ctl");
    }
  }
  return absl::OkStatus();
}

void Profiler::Stop() {
  const uint64_t one = 1;
  // eventfd writes are async-signal-safe; a full counter already means "stop".
  [[maybe_unused]] const ssize_t written = ::write(stop_event_.get(), &one, sizeof(one));
}

void Profiler::RequestHz(uint32_t hz) {
  wanted_hz_ = hz;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(rate_event_.get(), &one, sizeof(one));
}

Profiler::Costs Profiler::costs() const {
  const uint64_t in_thread = building_ns_.load(std::memory_order_relaxed);
  return {.building_ns = in_thread + helper_ns_.load(std::memory_order_relaxed),
          .building_in_thread_ns = in_thread,
          .map_bytes = opened_.source->map_bytes() + slab_bytes_.load(std::memory_order_relaxed)};
}

void Profiler::DeliverEvent(const ProcessEvent& event) {
  if (recorder_ != nullptr) recorder_->Write(event);
  collector_.OnEvent(event);
}

void Profiler::DeliverEvents(uint64_t until_ns) {
  if (opened_.sideband == nullptr) return;
  opened_.sideband->Drain(until_ns, [this](const ProcessEvent& event) { DeliverEvent(event); });
}

void Profiler::DeliverSample(const SampleRecord& sample) {
  DeliverEvents(sample.time_ns);
  const Process& process = collector_.OnSample(sample);
  if (recorder_ != nullptr) recorder_->Write(sample, *process.mappings);
}

void Profiler::Drain() {
  // Taken before the samples: whatever comes later than this may still be followed by an older
  // sample of another CPU, so its events wait in their ring for the next round.
  const uint64_t until_ns = clock_.MonotonicNs();
  opened_.source->Drain([this](const SampleRecord& sample) { DeliverSample(sample); });
  DeliverEvents(until_ns);
  AdvanceTables();
}

// Takes what the helper has read, and loads tables. Tables are wanted for the very next sample, so
// a helper that is at work is asked every few milliseconds.
void Profiler::AdvanceTables() {
  const uint64_t begun_ns = ThreadNs();
  collector_.CollectNames();
  if (known_files_ != nullptr) LoadTables();
  building_ns_ += ThreadNs() - begun_ns;
}

void Profiler::LoadTables() {
  const uint64_t now_ns = clock_.MonotonicNs();
  const uint64_t now_s = now_ns / kSecondNs;
  known_files_->Advance(now_s);
  slab_bytes_ = known_files_->store().slab_bytes();
  ObeyMemoryLimit(now_ns);
  const bool wanted = known_files_->building() || collector_.waits_for_tables();
  if (wanted != tables_timer_armed_) {
    tables_timer_armed_ = wanted;
    ArmTimer(tables_timer_.get(), tables_timer_armed_ ? kTablesIntervalMs : 0);
  }
  if (now_s != tables_reported_s_ && known_files_->store().loads() != loads_reported_) {
    tables_reported_s_ = now_s;
    loads_reported_ = known_files_->store().loads();
    ReportTables();
  }
}

MemoryBudget::Room Profiler::TableRoom() {
  if (options_.other_map_bytes) {
    budget_.SetFixedBytes(opened_.source->map_bytes() + options_.other_map_bytes());
  }
  budget_.SetReservedBytes(collector_.deferred_free_bytes());
  return budget_.ForTables();
}

// The heap has grown since the tables were loaded: first goes what is free in it, then the tables
// that are used least.
void Profiler::ObeyMemoryLimit(uint64_t now_ns) {
  if (now_ns - memory_looked_ns_ < kMemoryIntervalNs) return;
  memory_looked_ns_ = now_ns;
  if (!budget_.IsTight(known_files_->store().slab_bytes())) return;
  if (now_ns - memory_trimmed_ns_ >= kSecondNs) {
    memory_trimmed_ns_ = now_ns;
    ::malloc_trim(0);
  }
  if (budget_.IsTight(known_files_->store().slab_bytes())) known_files_->ObeyBudget();
}

void Profiler::ReportTables() {
  if (!options_.on_tables) return;
  options_.on_tables({.listing = known_files_->List(),
                      .maps = opened_.source->MapSizes(),
                      .now_s = clock_.MonotonicNs() / kSecondNs,
                      .rss_anon_bytes = budget_.Look(),
                      .memory_limit_bytes = options_.memory_limit_bytes});
}

void Profiler::ForgetUnusedFiles() {
  if (closed_at_ns_ - files_forgotten_ns_ < kForgetIntervalNs) return;
  files_forgotten_ns_ = closed_at_ns_;
  symbolizer::FileSet kept;
  table_.AddFiles(&kept);
  collector_.AddFiles(&kept);
  opened_.source->AddFiles(&kept);
  if (known_files_ != nullptr) known_files_->ForgetUnused(&kept);
  for (const symbolizer::FileId file : symbolizer_.ForgetUnused(kept)) {
    if (known_files_ != nullptr) known_files_->OnForgotten(file);
  }
}

void Profiler::CloseWindow() {
  Drain();
  helper_ns_ = symbolizer_.HelperCpuNs();
  EndWindow();
}

// The samples of the old rate are all in the window that ends, those of the new one in the next.
void Profiler::ChangeHz() {
  const uint32_t hz = wanted_hz_;
  if (hz == opened_.source->hz()) return;
  Drain();
  const absl::Status status =
      opened_.source->SetHz(hz, [this](const SampleRecord& sample) { DeliverSample(sample); });
  if (!status.ok()) {
    spdlog::warn("the sampling rate stays at {} Hz: {}", opened_.source->hz(),
                 base::Message(status));
    return;
  }
  EndWindow();
  hz_ = opened_.source->hz();
  collector_.SetHz(opened_.source->hz());
  ArmTimer(window_timer_.get(), options_.window_ms);
}

void Profiler::EndWindow() {
  // The one before is handed over with the names it has: windows never pile up.
  if (collector_.has_closed()) collector_.FinishClosed(true);
  const base::WallTime now = clock_.Now();
  collector_.CloseWindow(window_start_, now);
  window_start_ = now;
  closed_at_ns_ = clock_.MonotonicNs();
  budget_.EndWindow();
  if (known_files_ != nullptr) {
    known_files_->EndWindow(closed_at_ns_ / kSecondNs);
    ReportTables();
  }
  if (!collector_.FinishClosed(false)) ArmTimer(names_timer_.get(), kNamesIntervalMs);
  ForgetUnusedFiles();
}

void Profiler::FinishClosed() {
  const bool late = clock_.MonotonicNs() - closed_at_ns_ >= options_.names_deadline_ms * 1'000'000;
  if (collector_.FinishClosed(late)) ArmTimer(names_timer_.get(), 0);
}

void Profiler::RunFinalWindow() {
  if (collector_.has_closed()) collector_.FinishClosed(true, kFinalNamesMs);
  opened_.source->Stop([this](const SampleRecord& sample) { DeliverSample(sample); });
  collector_.CloseWindow(window_start_, clock_.Now());
  symbolizer_.WaitForKernel();
  if (options_.final_lines_ms > 0) collector_.WaitForLines(kFinalNamesMs, options_.final_lines_ms);
  collector_.FinishClosed(true, kFinalNamesMs);
}

absl::Status Profiler::Run() {
  window_start_ = clock_.Now();
  ArmTimer(window_timer_.get(), options_.window_ms);
  if (options_.on_tick) ArmTimer(tick_timer_.get(), options_.tick_ms);
  for (bool stopping = false; !stopping;) {
    std::array<epoll_event, 8> events{};
    const int ready = ::epoll_wait(epoll_.get(), events.data(), events.size(), -1);
    if (ready < 0 && errno != EINTR) return base::ErrnoStatus(errno, "epoll_wait");
    for (int i = 0; i < ready; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd == stop_event_.get()) {
        stopping = true;
      } else if (fd == window_timer_.get()) {
        ClearEvent(fd);
        CloseWindow();
      } else if (fd == rate_event_.get()) {
        ClearEvent(fd);
        ChangeHz();
      } else if (fd == names_timer_.get()) {
        ClearEvent(fd);
        FinishClosed();
      } else if (fd == tables_timer_.get()) {
        ClearEvent(fd);
        AdvanceTables();
      } else if (fd == tick_timer_.get()) {
        ClearEvent(fd);
        Drain();  // a tick shows progress, so it wants today's numbers
        if (!options_.on_tick()) stopping = true;
      } else {
        Drain();
      }
    }
  }
  RunFinalWindow();
  return recorder_ == nullptr ? absl::OkStatus() : recorder_->Close();
}

absl::StatusOr<uint64_t> RunReplay(const std::string& path, uint64_t window_ms,
                                   WindowOptions window, ProcessTable& table,
                                   symbolizer::Symbolizer& symbolizer,
                                   base::MetricsRegistry& metrics, Collector::Sink sink) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReplayReader> reader, ReplayReader::Open(path));
  window.hz = reader->header().hz;
  window.file_frames = false;
  Collector collector(window, table, symbolizer, metrics, std::move(sink));
  const auto wall = [&reader](uint64_t time_ns) {
    return base::WallTime{static_cast<int64_t>(time_ns) + reader->header().unix_minus_monotonic_ns};
  };
  uint64_t start_ns = 0;
  uint64_t last_ns = 0;
  const auto close = [&](uint64_t end_ns) {
    collector.CloseWindow(wall(start_ns), wall(end_ns));
    symbolizer.WaitForKernel();
    collector.FinishClosed(true, kFinalNamesMs);
    start_ns = end_ns;
  };
  for (;;) {
    ASSIGN_OR_RETURN(const ReplayReader::Item item, reader->Next());
    if (std::holds_alternative<std::monostate>(item)) break;
    if (const auto* event = std::get_if<ProcessEvent>(&item)) {
      collector.OnEvent(*event);
      continue;
    }
    const auto& sample = std::get<SampleRecord>(item);
    if (start_ns == 0) start_ns = sample.time_ns;
    // A gap of hours gives one window that begins after it, not thousands of empty ones.
    if (sample.time_ns >= start_ns + window_ms * 1'000'000) {
      close(start_ns + window_ms * 1'000'000);
      if (sample.time_ns >= start_ns + window_ms * 1'000'000) start_ns = sample.time_ns;
    }
    collector.OnSample(sample);
    last_ns = sample.time_ns;
  }
  if (collector.open_samples() != 0) close(last_ns + 1);
  return collector.samples_total();
}

}  // namespace firewatch::agent
