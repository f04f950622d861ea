// SPDX-License-Identifier: Apache-2.0
// The sampler for machines that refuse BPF: perf events whose samples carry the user registers and
// a copy of the stack, unwound here by libunwind (fallback_unwinder.h). Costs a copy of kilobytes
// per sample where the BPF sampler costs a few hundred bytes, and cuts stacks deeper than the copy;
// what comes out is the same records.
//
// Whole machine (root, CAP_PERFMON or perf_event_paranoid 0 and less): one event per CPU. Else, and
// whenever processes are named: events per thread and CPU, which children inherit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent/core/process_table.h"
#include "agent/cpu/sample_source.h"
#include "agent/cpu/sampler.h"
#include "base/metrics.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

struct FallbackOptions {
  SamplerOptions sampler;         // hz, pids, exclude_self, prefer_cpu_clock, ring_bytes (per CPU)
  uint32_t stack_bytes = 16'384;  // copied per sample: 1,024 .. 65,528, a multiple of 8
};

// One home thread, the one that calls Drain. Delivers its own process events: the table that it was
// opened with must be the one they are applied to.
class FallbackSampler : public SampleSource {
 public:
  // Sampling runs when this returns; prime the table from /proc afterwards. PermissionDenied says
  // what refused. InvalidArgument for a filter by cgroup, which this sampler has not. All
  // references must outlive it.
  static absl::StatusOr<std::unique_ptr<FallbackSampler>> Open(const FallbackOptions& options,
                                                               ProcessTable& table,
                                                               symbolizer::Symbolizer& symbolizer,
                                                               base::MetricsRegistry& metrics);
  ~FallbackSampler() override;

  SourceKind kind() const override { return SourceKind::kPerf; }
  std::string limits() const override;
  int WaitFd() const override;
  bool DeliverEventsTo(EventSink sink) override;
  size_t Drain(SampleCallback callback) override;
  size_t Stop(SampleCallback callback) override;
  std::array<uint64_t, FW_LOSS_COUNT> Losses() const override;
  uint32_t hz() const override;
  // Only where the whole machine is sampled: events that children have inherited cannot be reached.
  absl::Status SetHz(uint32_t hz, SampleCallback callback) override;
  bool hardware_cycles() const override;
  size_t cpu_count() const override;

  size_t ring_bytes() const;  // of all rings: memory that the kernel locks for them

 private:
  struct Impl;
  explicit FallbackSampler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
