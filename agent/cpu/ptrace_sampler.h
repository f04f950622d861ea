// SPDX-License-Identifier: Apache-2.0
// The sampler for places where not even perf events are allowed (a container under the default
// seccomp profile, say): the threads of named processes are stopped by ptrace, one after the other,
// at a low rate, just long enough to copy registers and stack; they run again while libunwind looks
// at the copy. Nobody stays stopped: the kernel detaches whatever a tracer that dies had traced.
//
// A CPU profile nevertheless: each thread earns one sample per period of CPU time (schedstat), and
// is looked at only while it is ready to run. What its stops cost is measured and shown. Known
// bias: on a busy machine a thread stops where the scheduler took its CPU away; for a program that
// asks for its own CPU time all the time (a system call that charges the time slice) that is this
// call, too often.
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

struct PtraceOptions {
  SamplerOptions sampler;  // hz and pids
  uint32_t max_hz = 10;    // the lower of this and sampler.hz is used
};

// One home thread, the one that calls Drain. Delivers its own process events.
class PtraceSampler : public SampleSource {
 public:
  // The pids and their children, those to come too. FailedPrecondition when none is named: nobody
  // is stopped unasked. PermissionDenied when the first may not be traced. All references must
  // outlive it.
  static absl::StatusOr<std::unique_ptr<PtraceSampler>> Open(const PtraceOptions& options,
                                                             ProcessTable& table,
                                                             symbolizer::Symbolizer& symbolizer,
                                                             base::MetricsRegistry& metrics);
  ~PtraceSampler() override;

  SourceKind kind() const override { return SourceKind::kPtrace; }
  std::string limits() const override;
  int WaitFd() const override;
  bool DeliverEventsTo(EventSink sink) override;
  size_t Drain(SampleCallback callback) override;
  size_t Stop(SampleCallback callback) override;
  std::array<uint64_t, FW_LOSS_COUNT> Losses() const override;
  uint32_t hz() const override;
  absl::Status SetHz(uint32_t hz, SampleCallback callback) override;
  size_t cpu_count() const override;
  PauseStats Pauses() const override;

 private:
  struct Impl;
  explicit PtraceSampler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
