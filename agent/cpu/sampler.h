// SPDX-License-Identifier: Apache-2.0
// The CPU sampler: loads bpf/cpu.bpf.c, opens one perf event per CPU, and hands out samples. The
// kernel decides when a reader is woken (a part of the ring is full, or about a second has passed),
// so that neither side polls and a wake-up is shared by many samples.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/core/events.h"
#include "agent/core/bpf_info.h"
#include "agent/cpu/sample_source.h"
#include "base/metrics.h"
#include "bpf/include/losses.h"

namespace firewatch::agent {

struct SamplerOptions {
  uint32_t hz = 19;  // 1..999
  // Only these processes and, from their first instruction, all their descendants. Descendants that
  // live already are found in /proc by Open. Empty: every process.
  std::vector<Pid> pids;
  // Only these cgroups and what is below them: directories of the cgroup v2 hierarchy, absolute or
  // relative to its mount; at most 64. Empty: every cgroup. Both filters given: both must match.
  std::vector<std::string> cgroups;
  // Walk user stacks by the unwind tables that table_memory() holds, else by frame pointers alone.
  bool use_tables = true;
  bool exclude_self = false;      // the agent profiles itself, too, unless told otherwise
  bool prefer_cpu_clock = false;  // even where the machine has a cycle counter
  uint64_t wake_interval_ns = 2'000'000'000;
  uint32_t ring_bytes = 0;  // 0: by rate and CPUs, 256 KiB .. 16 MiB; else a power of two
  std::string online_cpus_path = "/sys/devices/system/cpu/online";
};

// One home thread, the one that calls Drain.
class Sampler : public SampleSource {
 public:
  // Sampling runs when this returns. PermissionDenied, FailedPrecondition (no BTF, no BPF) or
  // InvalidArgument (options) with a text that says what is missing. `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<Sampler>> Open(const SamplerOptions& options,
                                                       base::MetricsRegistry& metrics);
  ~Sampler() override;
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  SourceKind kind() const override { return SourceKind::kEbpf; }
  int WaitFd() const override;

  // Hands every sample that is in the ring to `callback`, nearly ordered by time (two CPUs may swap
  // neighbours by microseconds), follows CPUs that came or went, and refreshes the metrics at most
  // once a second; losses are added to the LossCounters of agent/core. Never blocks. Call it also
  // when a window closes: up to two seconds of samples may wait there without a wake-up. Returns the
  // number of samples.
  size_t Drain(SampleCallback callback) override;
  size_t Stop(SampleCallback callback) override;

  // Adds a process and its living descendants to the filter. FailedPrecondition without a filter.
  absl::Status Follow(Pid pid);

  // Re-reads the list of CPUs. Drain does so when the kernel announces a change.
  void FollowCpus();

  // Totals since Open, indexed by enum fw_loss: the kernel's and the sampler's own.
  std::array<uint64_t, FW_LOSS_COUNT> Losses() const override;

  uint32_t hz() const override;
  absl::Status SetHz(uint32_t hz, SampleCallback callback) override;
  bool hardware_cycles() const override;
  size_t cpu_count() const override;
  uint64_t map_bytes() const override;
  TableMemory* table_memory() override;
  std::vector<std::pair<std::string, uint64_t>> MapSizes() const override;
  std::vector<BpfProgramStats> ProgramStats() const;
  // Of its programs; valid as long as the sampler, and may be asked about from any thread.
  std::vector<int> ProgramFds() const override;

 private:
  struct Impl;
  explicit Sampler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
