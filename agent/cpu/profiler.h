// SPDX-License-Identifier: Apache-2.0
// The live profiler: one loop that waits on the sampler, the side-band rings and two timers, merges
// samples and process events by time into the Collector, and closes windows. Nothing polls: with no
// sample on the machine the loop wakes once per window.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/core/memory.h"
#include "agent/cpu/collector.h"
#include "agent/cpu/known_files.h"
#include "agent/cpu/open_source.h"
#include "agent/cpu/replay.h"
#include "base/clock.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// Unwind tables and memory, for `firewatch doctor --tables`.
struct TableReport {
  TableListing listing;
  std::vector<std::pair<std::string, uint64_t>> maps;  // charged, without slabs
  uint64_t now_s = 0;                                  // CLOCK_MONOTONIC
  uint64_t rss_anon_bytes = 0;
  uint64_t memory_limit_bytes = 0;
};

struct ProfilerOptions {
  SamplerOptions sampler;
  SourceChoice source = SourceChoice::kAuto;
  uint32_t stack_bytes = 16'384;  // copied per sample where BPF may not be used
  uint32_t ptrace_max_hz = 10;    // where perf events may not be used either
  WindowOptions window;           // its hz is set from the source's
  uint64_t window_ms = 10'000;    // 100 ms and more
  // A window whose files are still being read is delivered after this time, with what is known.
  uint64_t names_deadline_ms = 1'000;
  // At the end of a run, when no later window will tell: how long lines are waited for.
  int final_lines_ms = 0;
  // Called about every tick_ms on the loop's thread when set; false stops the loop.
  std::function<bool()> on_tick;
  uint64_t tick_ms = 200;
  // Charged BPF maps of others in this process, which count against the limit, too.
  std::function<uint64_t()> other_map_bytes;
  // Bound of RssAnon and charged BPF maps together (agent/core/memory.h): unwind tables get what is
  // left, and stacks that wait or stand in a window have their share at most.
  uint64_t memory_limit_bytes = uint64_t{64} << 20;
  std::function<uint64_t()> rss_anon_bytes;  // of this process unless set
  // Called on the loop's thread when unwind tables have changed (at most once a second) and after
  // each window.
  std::function<void(TableReport)> on_tables;
  std::string record_events_path;  // also write the event stream there (replay.h)
};

// Run() is the home thread of everything inside; Stop() may be called from any thread or a signal
// handler.
class Profiler {
 public:
  // Samples from now on (open_source.h). The references must outlive the profiler.
  static absl::StatusOr<std::unique_ptr<Profiler>> Open(
      ProfilerOptions options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
      const base::Clock& clock, base::MetricsRegistry& metrics, Collector::Sink sink);

  // Until Stop(). The last, partial window is delivered before it returns: a stop loses nothing.
  absl::Status Run();
  void Stop();
  // Another sampling rate, from any thread: the window ends early and the next one has the new
  // rate, so that every sample has the weight of its own. One that the source refuses is logged.
  void RequestHz(uint32_t hz);

  // What it costs beside the time of Run's thread; any thread.
  struct Costs {
    uint64_t building_ns = 0;            // helpers, and this thread's part of making tables
    uint64_t building_in_thread_ns = 0;  // the latter alone
    uint64_t map_bytes = 0;              // all maps, slabs included
  };
  Costs costs() const;
  // Any thread.
  uint32_t hz() const { return hz_.load(std::memory_order_relaxed); }

  const SampleSource& source() const { return *opened_.source; }
  // Why it is not a better one, one line per refusal; empty when it is the best.
  const std::vector<std::string>& refusals() const { return opened_.refusals; }
  // "" for the BPF sampler, else what stands in for it, what that lacks, and why.
  std::string FallbackText() const { return DescribeFallback(opened_); }
  Collector& collector() { return collector_; }

 private:
  Profiler(ProfilerOptions options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
           const base::Clock& clock, base::MetricsRegistry& metrics, Collector::Sink sink);
  absl::Status Prepare(ProcessTable& table, symbolizer::Symbolizer& symbolizer,
                       base::MetricsRegistry& metrics);
  void NoteSource(ClosedWindow* window) const;
  void DeliverEvent(const ProcessEvent& event);
  void DeliverEvents(uint64_t until_ns);
  void DeliverSample(const SampleRecord& sample);
  void Drain();
  void AdvanceTables();
  void LoadTables();
  void ChangeHz();
  void EndWindow();
  MemoryBudget::Room TableRoom();
  void ObeyMemoryLimit(uint64_t now_ns);
  void ReportTables();
  void CloseWindow();
  void FinishClosed();
  void RunFinalWindow();

  ProfilerOptions options_;
  const base::Clock& clock_;
  Collector collector_;
  OpenedSource opened_;
  std::unique_ptr<KnownFiles> known_files_;  // null when the source does not unwind by tables
  MemoryBudget budget_;
  uint64_t memory_looked_ns_ = 0;
  uint64_t memory_trimmed_ns_ = 0;
  uint64_t tables_reported_s_ = 0;
  uint64_t loads_reported_ = 0;
  bool tables_timer_armed_ = false;
  std::unique_ptr<ReplayWriter> recorder_;
  std::atomic<uint32_t> wanted_hz_{0};
  std::atomic<uint32_t> hz_{0};
  std::atomic<uint64_t> helper_ns_{0}, building_ns_{0}, slab_bytes_{0};
  symbolizer::Symbolizer& symbolizer_;
  base::UniqueFd rate_event_;
  base::UniqueFd epoll_, stop_event_, window_timer_, names_timer_, tick_timer_, tables_timer_;
  base::WallTime window_start_;
  uint64_t closed_at_ns_ = 0;  // monotonic
};

// Runs a recorded event stream through the same collector, windows by the times in the file.
// Deterministic; needs no privilege. Returns the number of samples.
absl::StatusOr<uint64_t> RunReplay(const std::string& path, uint64_t window_ms,
                                   WindowOptions window, ProcessTable& table,
                                   symbolizer::Symbolizer& symbolizer,
                                   base::MetricsRegistry& metrics, Collector::Sink sink);

}  // namespace firewatch::agent
