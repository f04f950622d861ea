// SPDX-License-Identifier: Apache-2.0
// What /metrics says about the sampler.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "agent/core/bpf_info.h"
#include "base/metrics.h"
#include "bpf/include/losses.h"

namespace firewatch::agent {

// One home thread. `registry` must outlive it; what was counted stays there afterwards.
class SamplerMetrics {
 public:
  explicit SamplerMetrics(base::MetricsRegistry& registry);

  void AddSamples(size_t count) { samples_.Add(count); }
  void AddCpuChanges(size_t count) { cpu_changes_.Add(count); }
  void SetCpuCount(size_t count) { cpus_.Set(static_cast<double>(count)); }
  void SetMapBytes(uint64_t bytes) { map_bytes_.Set(static_cast<double>(bytes)); }

  // Takes totals since the sampler was opened and adds what is new.
  void Refresh(const std::array<uint64_t, FW_LOSS_COUNT>& losses,
               const std::vector<BpfProgramStats>& programs);

 private:
  struct ProgramCounters {
    base::Counter& run_time_ns;
    base::Counter& runs;
    base::Counter& missed;
    BpfProgramStats seen;
  };
  ProgramCounters& CountersOf(const std::string& program);

  base::MetricsRegistry& registry_;
  base::Counter& samples_;
  base::Counter& cpu_changes_;
  base::Gauge& cpus_;
  base::Gauge& map_bytes_;
  std::array<base::Counter*, FW_LOSS_COUNT> losses_{};
  std::array<uint64_t, FW_LOSS_COUNT> losses_seen_{};
  std::map<std::string, ProgramCounters> programs_;
};

}  // namespace firewatch::agent
