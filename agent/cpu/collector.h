// SPDX-License-Identifier: Apache-2.0
// The profiler between its source (live rings or a replay file) and its sink (uploader or a file):
// events change the process table, samples go into the open window, closed windows become profiles.
// Knows neither file descriptors nor clocks, so that a replay runs the very same code.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "agent/core/process_table.h"
#include "agent/cpu/deferred_unwinder.h"
#include "agent/cpu/known_files.h"
#include "agent/cpu/stack_ends.h"
#include "agent/cpu/window.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "bpf/include/losses.h"

namespace firewatch::agent {

// One home thread. Everything passed by reference must outlive it.
class Collector {
 public:
  using Sink = std::function<void(ClosedWindow)>;

  Collector(WindowOptions options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
            base::MetricsRegistry& metrics, Sink sink, DeferredLimits deferred = {});

  // In time order with OnSample.
  void OnEvent(const ProcessEvent& event);
  // Returns the process that it was counted for; valid until the next event or sample.
  const Process& OnSample(const SampleRecord& sample);

  // Who answers notes; nullptr (as it begins): nobody, they are passed over.
  void SetKnownFiles(KnownFiles* known_files) { known_files_ = known_files; }

  // Ends the open window and begins the next. The ended one waits for outstanding names and unwind
  // tables: call FinishClosed until it returns true. CHECKs that the one before is finished.
  void CloseWindow(base::WallTime start, base::WallTime end);
  // The rate of the samples from now on; call it right after CloseWindow.
  void SetHz(uint32_t hz);
  bool has_closed() const { return closing_active_; }
  // Hands the ended window to the sink when every file has been read, or now when `force`.
  // Waits up to `wait_ms` for files. True when nothing is left to finish.
  bool FinishClosed(bool force, int wait_ms = 0);

  // Takes the names that are ready and lets the helper go on with the next files: once per drain,
  // so that most files of a window have been read before it closes. Never waits.
  void CollectNames();
  // Waits for names, then for lines of the files that were met, each at most that long.
  void WaitForLines(int names_ms, int lines_ms);
  // Stacks wait for unwind tables: call CollectNames again soon.
  bool waits_for_tables() const { return deferred_.waiting(); }

  // What stacks that wait may still put onto the heap.
  uint64_t deferred_free_bytes() const { return deferred_.free_bytes(); }

  // Lives as long as somebody holds it; safe on any thread.
  std::shared_ptr<const StackEndsByProgram> program_ends() const { return program_ends_; }

  uint64_t samples_total() const { return samples_->value(); }
  uint64_t open_samples() const { return windows_[open_].samples() + deferred_.waiting(open_); }

 private:
  void AddToWindow(const SampleRecord& sample, const Process& process, size_t window);
  std::vector<std::pair<std::string, uint64_t>> TakeNewLosses();

  ProcessTable& table_;
  symbolizer::Symbolizer& symbolizer_;
  const Sink sink_;
  std::array<Window, 2> windows_;  // the open one, and the one that is being closed
  DeferredUnwinder deferred_;      // samples that will come into them
  size_t open_ = 0;
  uint32_t hz_ = 0;  // 0: as the windows were made
  bool closing_active_ = false;
  base::WallTime closing_start_;
  base::WallTime closing_end_;
  uint64_t last_sample_ns_ = 0;
  std::array<base::Counter*, FW_LOSS_COUNT> losses_{};
  std::array<uint64_t, FW_LOSS_COUNT> losses_reported_{};
  base::Counter* samples_;
  base::Counter* windows_closed_;
  base::Gauge* complete_;
  std::array<base::Counter*, FW_STACK_END_COUNT> stack_ends_{};
  std::shared_ptr<StackEndsByProgram> program_ends_;  // shared with the page of metrics
  KnownFiles* known_files_ = nullptr;
};

}  // namespace firewatch::agent
