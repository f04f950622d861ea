// SPDX-License-Identifier: Apache-2.0
// Chooses and opens the source of samples: the best that this machine and these rights allow.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/core/process_table.h"
#include "agent/cpu/sample_source.h"
#include "agent/cpu/sampler.h"
#include "agent/cpu/sideband.h"
#include "base/metrics.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

enum class SourceChoice : uint8_t { kAuto, kEbpf, kPerf, kPtrace };

// "auto", "ebpf", "perf", "ptrace".
absl::StatusOr<SourceChoice> ParseSourceChoice(std::string_view text);

struct SourceOptions {
  SourceChoice choice = SourceChoice::kAuto;
  SamplerOptions sampler;
  uint32_t stack_bytes = 16'384;  // kPerf: copied per sample
  uint32_t ptrace_max_hz = 10;    // kPtrace: threads are stopped at most that often
};

struct OpenedSource {
  std::unique_ptr<SampleSource> source;
  std::unique_ptr<SideBand> sideband;  // null when the source delivers process events itself
  // One line for each better source that was tried: "ebpf: load the BPF sampler: …". Empty when the
  // source is the best there is, or was asked for by name.
  std::vector<std::string> refusals;
};

// Opens what hears of processes, primes the table from /proc, then starts sampling, in this order:
// no process can fall between. kAuto tries ebpf, perf, ptrace, and fails with the reasons of all.
// The references must outlive the source.
absl::StatusOr<OpenedSource> OpenSource(const SourceOptions& options, ProcessTable& table,
                                        symbolizer::Symbolizer& symbolizer,
                                        base::MetricsRegistry& metrics);

// "" for the BPF sampler; else one line for the reader: "fallback sampler perf: stacks deeper than
// … are cut (ebpf: load the BPF sampler: Operation not permitted …)".
std::string DescribeFallback(const OpenedSource& opened);

// "12 stops, 85 us median, 410 us at most, 0.09 % of its CPU time"; "" without a stop.
std::string DescribePauses(const PauseStats& pauses);

}  // namespace firewatch::agent
