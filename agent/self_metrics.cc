// SPDX-License-Identifier: Apache-2.0
#include "agent/self_metrics.h"

#include <sys/resource.h>

#include <ctime>
#include <utility>

#include "agent/core/memory.h"

namespace firewatch::agent {
namespace {

double CpuSeconds(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

uint64_t ProcessCpuNs() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

void RegisterSelfMetrics(base::MetricsRegistry& metrics, std::function<uint64_t()> map_bytes) {
  metrics.AddCallback("process_cpu_seconds_total", "User and system CPU time.", "counter", {},
                      [] { return CpuSeconds(RUSAGE_SELF); });
  metrics.AddCallback("process_resident_memory_bytes", "Resident memory.", "gauge", {},
                      [] { return static_cast<double>(StatusBytes("VmRSS")); });
  metrics.AddCallback("firewatch_agent_anon_bytes", "RssAnon of the agent.", "gauge", {},
                      [] { return static_cast<double>(RssAnonBytes()); });
  metrics.AddCallback("firewatch_agent_memory_bytes", "RssAnon plus charged BPF maps.", "gauge", {},
                      [map_bytes = std::move(map_bytes)] {
                        return static_cast<double>(RssAnonBytes() + map_bytes());
                      });
}

}  // namespace firewatch::agent
