// SPDX-License-Identifier: Apache-2.0
// The CPU time of a set of threads: those of one module.
#pragma once

#include <cstdint>
#include <ctime>
#include <vector>

#include "base/mutex.h"

namespace firewatch::agent {

// Any thread. Must outlive its scopes.
class ThreadMeter {
 public:
  // Counts the thread that made it, while it lives: the first object on a thread's stack. Where a
  // thread works for several modules in turn, a scope around each turn. Not nested in one meter.
  class Scope {
   public:
    explicit Scope(ThreadMeter& meter);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    ThreadMeter& meter_;
    uint64_t id_ = 0;
  };

  // User and system time within all scopes so far, those that still live included: a system call
  // of 0.3 us for each of them.
  uint64_t CpuNs() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Thread {
    uint64_t id = 0;
    clockid_t clock{};
    uint64_t start_ns = 0;
  };
  mutable base::Mutex mutex_;
  std::vector<Thread> threads_ ABSL_GUARDED_BY(mutex_);
  uint64_t ended_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace firewatch::agent
