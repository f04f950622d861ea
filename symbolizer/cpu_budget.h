// SPDX-License-Identifier: Apache-2.0
// A share of one core for work that can wait: a bucket of CPU time that fills slowly and may be
// overdrawn by one piece of work, whose cost nobody knows before.
#pragma once

#include <algorithm>
#include <cstdint>

namespace firewatch::symbolizer {

struct CpuBudgetOptions {
  // What flows in, as a share of one core; 1 and more: no bound.
  double share = 0.004;
  // What the bucket holds, full at the beginning: a host's files are new only once.
  double burst_seconds = 20;
};

// One thread. Times are monotonic.
class CpuBudget {
 public:
  CpuBudget(CpuBudgetOptions options, uint64_t now_ns)
      : options_(options), seconds_(options.burst_seconds), filled_at_ns_(now_ns) {}

  bool Allows(uint64_t now_ns) {
    Fill(now_ns);
    return options_.share >= 1 || seconds_ > 0;
  }
  void Spend(uint64_t cpu_ns) { seconds_ -= static_cast<double>(cpu_ns) * 1e-9; }
  // In debt: how long until the next piece of work.
  double SecondsToWait() const {
    return options_.share >= 1 || seconds_ > 0 ? 0 : -seconds_ / options_.share;
  }

 private:
  void Fill(uint64_t now_ns) {
    const double passed = static_cast<double>(now_ns - filled_at_ns_) * 1e-9;
    filled_at_ns_ = now_ns;
    seconds_ = std::min(options_.burst_seconds, seconds_ + passed * options_.share);
  }

  const CpuBudgetOptions options_;
  double seconds_;
  uint64_t filled_at_ns_;
};

}  // namespace firewatch::symbolizer
