// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/collector.h"

#include <utility>

#include "agent/core/losses.h"
#include "base/check.h"

namespace firewatch::agent {
namespace {

// Exited processes are kept this long for samples that are still in a ring: at 19 Hz the ring is
// drained every two seconds (bpf/output.h), and on a busy machine late.
constexpr uint64_t kExitedGraceNs = 6'000'000'000;

// Each round follows the stacks that wait into one more file, at the least.
constexpr int kTableRounds = 32;

std::array<uint64_t, FW_STACK_END_COUNT> Total(std::span<const ProgramStackEnds> programs) {
  std::array<uint64_t, FW_STACK_END_COUNT> total{};
  for (const ProgramStackEnds& program : programs) {
    for (size_t i = 0; i < total.size(); ++i) total[i] += program.counts[i];
  }
  return total;
}

}  // namespace

Collector::Collector(WindowOptions options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
                     base::MetricsRegistry& metrics, Sink sink, DeferredLimits deferred)
    : table_(table),
      symbolizer_(symbolizer),
      sink_(std::move(sink)),
      windows_{Window(options, symbolizer), Window(options, symbolizer)},
      deferred_(symbolizer, metrics, deferred),
      samples_(&metrics.AddCounter("firewatch_samples_total", "Samples taken into a window.")),
      windows_closed_(&metrics.AddCounter("firewatch_windows_total", "Windows closed.")),
      complete_(&metrics.AddGauge("firewatch_complete_stacks_ratio",
                                  "Stacks of the last window that end at a proven root, of those "
                                  "with a user part.")),
      program_ends_(std::make_shared<StackEndsByProgram>()) {
  for (size_t i = 0; i < losses_.size(); ++i) {
    losses_[i] = &LossCounter(metrics, static_cast<fw_loss>(i));
  }
  for (size_t i = 0; i < stack_ends_.size(); ++i) {
    stack_ends_[i] =
        &metrics.AddCounter("firewatch_stack_ends_total", "User stacks by how the walk ended.",
                            {{"reason", StackEndName(static_cast<fw_stack_end>(i))}});
  }
  metrics.AddSeries("firewatch_program_stack_ends_total",
                    "User stacks by program and how the walk ended; the programs with the most "
                    "samples, all others as other.",
                    "counter", [ends = program_ends_] { return ends->Series(); });
}

void Collector::OnEvent(const ProcessEvent& event) { table_.Apply(event); }

const Process& Collector::OnSample(const SampleRecord& sample) {
  const Process& process = table_.ForSample(sample.pid, sample.time_ns, sample.comm,
                                            sample.cgroup_id, sample.kernel_thread);
  samples_->Add();
  const auto add = [this](const SampleRecord& walked, const Process& of, size_t window) {
    AddToWindow(walked, of, window);
  };
  if (sample.stack.empty() || !deferred_.Take(sample, process, open_, add)) {
    AddToWindow(sample, process, open_);
  }
  last_sample_ns_ = sample.time_ns;
  if (known_files_ != nullptr && !sample.file_notes.empty()) {
    known_files_->OnNotes(sample.file_notes, process);
  }
  return process;
}

void Collector::AddToWindow(const SampleRecord& sample, const Process& process, size_t window) {
  Window& to = windows_[window];
  const uint64_t full_before = to.stacks_full();
  to.Add(sample, process);
  if (to.stacks_full() != full_before) losses_[FW_LOSS_WINDOW_STACKS_FULL]->Add();
  stack_ends_[sample.stack_end]->Add();
}

void Collector::CollectNames() {
  // The helper goes first: stacks wait for its tables.
  if (symbolizer_.Poll(0) == 0 && last_sample_ns_ != 0) symbolizer_.RequestKernel();
  deferred_.Advance([this](const SampleRecord& walked, const Process& process, size_t window) {
    AddToWindow(walked, process, window);
  });
}

void Collector::WaitForLines(int names_ms, int lines_ms) {
  symbolizer_.Poll(names_ms);
  symbolizer_.WaitForLines(lines_ms);
}

void Collector::CloseWindow(base::WallTime start, base::WallTime end) {
  CHECK(!closing_active_);
  closing_active_ = true;
  closing_start_ = start;
  closing_end_ = end;
  open_ = 1 - open_;
  if (hz_ != 0) windows_[open_].SetHz(hz_);
  if (last_sample_ns_ > kExitedGraceNs) table_.Expire(last_sample_ns_ - kExitedGraceNs);
}

void Collector::SetHz(uint32_t hz) {
  hz_ = hz;
  windows_[open_].SetHz(hz);
}

std::vector<std::pair<std::string, uint64_t>> Collector::TakeNewLosses() {
  std::vector<std::pair<std::string, uint64_t>> out;
  for (size_t i = 0; i < losses_.size(); ++i) {
    const uint64_t total = losses_[i]->value();
    if (total != losses_reported_[i]) {
      out.emplace_back(LossName(static_cast<fw_loss>(i)), total - losses_reported_[i]);
    }
    losses_reported_[i] = total;
  }
  return out;
}

bool Collector::FinishClosed(bool force, int wait_ms) {
  if (!closing_active_) return true;
  const size_t closing = 1 - open_;
  const auto add = [this](const SampleRecord& walked, const Process& process, size_t window) {
    AddToWindow(walked, process, window);
  };
  size_t outstanding = symbolizer_.Poll(wait_ms);
  // A stack that can be followed asks for the table of its next file, a whole one for its names.
  for (int round = 0; round < kTableRounds && outstanding == 0 && deferred_.waiting(closing) != 0;
       ++round) {
    deferred_.Advance(add);
    outstanding = symbolizer_.Poll(wait_ms);
  }
  symbolizer_.RequestKernel();
  if ((outstanding != 0 || symbolizer_.IsKernelPending()) && !force) return false;
  if (deferred_.waiting(closing) != 0) {
    deferred_.Finish(closing, add);
    outstanding = symbolizer_.Poll(wait_ms);
    if (outstanding != 0 && !force) return false;
  }
  closing_active_ = false;
  ClosedWindow closed = windows_[closing].Close(closing_start_, closing_end_);
  closed.losses = TakeNewLosses();
  program_ends_->Add(closed.program_ends);
  complete_->Set(CompleteShare(Total(closed.program_ends)));
  windows_closed_->Add();
  sink_(std::move(closed));
  return true;
}

void Collector::AddFiles(symbolizer::FileSet* kept) const {
  for (const Window& window : windows_) window.AddFiles(kept);
  deferred_.AddFiles(kept);
}

}  // namespace firewatch::agent
