// SPDX-License-Identifier: Apache-2.0
// How stacks ended, by program, for /metrics and /status: the programs with the most samples by
// name, everything else as "other", so that a node with a thousand programs shows as many series as
// one with twenty.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "agent/cpu/window.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/mutex.h"

namespace firewatch::agent {

// "root", as metrics and uploads show it.
const char* StackEndName(fw_stack_end end);

// Stacks that end at a proven root, of those that there is something to say about: kernel threads
// and the like have no user stack. 1 when there are none.
double CompleteShare(const std::array<uint64_t, FW_STACK_END_COUNT>& counts);

// Any thread.
class StackEndsByProgram {
 public:
  static constexpr size_t kPrograms = 20;

  // One window.
  void Add(std::span<const ProgramStackEnds> programs) ABSL_LOCKS_EXCLUDED(mutex_);

  // Totals; most samples first, "other" last (when there is such).
  std::vector<ProgramStackEnds> Programs() const ABSL_LOCKS_EXCLUDED(mutex_);
  // The same as {program, reason}; zeros left out.
  base::MetricsRegistry::Series Series() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Program {
    std::array<uint64_t, FW_STACK_END_COUNT> counts{};
    double weight = 0;  // samples, those of earlier windows count half
  };

  mutable base::Mutex mutex_;
  base::StringMap<Program> programs_ ABSL_GUARDED_BY(mutex_);
  Program other_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::agent
