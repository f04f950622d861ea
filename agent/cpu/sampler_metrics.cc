// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sampler_metrics.h"

#include "agent/core/losses.h"

namespace firewatch::agent {
SamplerMetrics::SamplerMetrics(base::MetricsRegistry& registry)
    : registry_(registry),
      samples_(registry.AddCounter("firewatch_sampler_samples_total",
                                   "Samples taken over from the kernel")),
      cpu_changes_(registry.AddCounter("firewatch_sampler_cpu_changes_total",
                                       "CPUs that sampling began or ended on")),
      cpus_(registry.AddGauge("firewatch_sampler_cpus", "CPUs that are being sampled")),
      map_bytes_(registry.AddGauge("firewatch_sampler_bpf_map_bytes",
                                   "Memory that the kernel charges for the sampler's BPF maps")) {
  for (size_t i = 0; i < losses_.size(); ++i) {
    losses_[i] = &LossCounter(registry, static_cast<fw_loss>(i));
  }
}

SamplerMetrics::ProgramCounters& SamplerMetrics::CountersOf(const std::string& program) {
  const auto it = programs_.find(program);
  if (it != programs_.end()) return it->second;
  const base::MetricLabels labels = {{"program", program}};
  ProgramCounters counters{
      .run_time_ns =
          registry_.AddCounter("firewatch_sampler_bpf_run_nanoseconds_total",
                               "Time in a BPF program (0 unless the kernel counts it)", labels),
      .runs =
          registry_.AddCounter("firewatch_sampler_bpf_runs_total",
                               "Runs of a BPF program (0 unless the kernel counts them)", labels),
      .missed = registry_.AddCounter("firewatch_sampler_bpf_missed_total",
                                     "Runs of a BPF program that the kernel refused", labels),
      .seen = {}};
  return programs_.emplace(program, counters).first->second;
}

void SamplerMetrics::Refresh(const std::array<uint64_t, FW_LOSS_COUNT>& losses,
                             const std::vector<BpfProgramStats>& programs) {
  for (size_t i = 0; i < losses.size(); ++i) {
    losses_[i]->Add(losses[i] - losses_seen_[i]);
    losses_seen_[i] = losses[i];
  }
  for (const BpfProgramStats& now : programs) {
    ProgramCounters& counters = CountersOf(now.name);
    counters.run_time_ns.Add(now.run_time_ns - counters.seen.run_time_ns);
    counters.runs.Add(now.run_count - counters.seen.run_count);
    counters.missed.Add(now.missed - counters.seen.missed);
    counters.seen = now;
  }
}

}  // namespace firewatch::agent
