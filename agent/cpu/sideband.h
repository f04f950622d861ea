// SPDX-License-Identifier: Apache-2.0
// Process events from the kernel's own perf records: one dummy event per CPU that reports forks,
// execs, names, executable mappings (with build ids since 5.12) and exits, with CLOCK_MONOTONIC
// times. An idle machine writes none and wakes nobody.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "agent/core/events.h"
#include "base/metrics.h"

namespace firewatch::agent {

struct SideBandOptions {
  // Per CPU, a power of two. 0: 256 KiB, or 128 KiB on machines with more than 64 CPUs.
  uint32_t ring_bytes = 0;
  std::string online_cpus_path = "/sys/devices/system/cpu/online";
};

// One home thread. Memory is bounded by the rings: events are read out of them one at a time.
class SideBand {
 public:
  using EventCallback = absl::FunctionRef<void(const ProcessEvent&)>;

  // Events are recorded when this returns. PermissionDenied says which right is missing.
  static absl::StatusOr<std::unique_ptr<SideBand>> Open(const SideBandOptions& options,
                                                        base::MetricsRegistry& metrics);
  ~SideBand();
  SideBand(const SideBand&) = delete;
  SideBand& operator=(const SideBand&) = delete;

  // Readable when a ring is half full: then call Drain, whatever the time. Owned by this object.
  int WaitFd() const;

  // Hands out the events of all CPUs up to and including `until_time_ns`, in the order of their
  // times; later ones stay in the rings. Cheap when there are none, so it can be called before each
  // sample with the sample's time. Returns the number of events.
  size_t Drain(uint64_t until_time_ns, EventCallback callback);

  // Re-reads the list of CPUs: opens rings for those that came; a CPU that went keeps its ring
  // until it has been drained. Drain does so when the kernel announces a change.
  void FollowCpus();

  uint64_t lost() const;  // events that the kernel dropped because a ring was full
  bool has_build_ids() const;
  size_t cpu_count() const;

 private:
  struct Impl;
  explicit SideBand(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
