// SPDX-License-Identifier: Apache-2.0
#include "agent/self_metrics.h"

#include <sys/resource.h>

#include <charconv>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

namespace firewatch::agent {
namespace {

// A field of /proc/self/status such as "RssAnon:     1234 kB", in bytes.
uint64_t StatusBytes(std::string_view field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    const std::string_view view = line;
    if (!view.starts_with(field) || view.size() <= field.size() || view[field.size()] != ':') {
      continue;
    }
    const size_t digits = view.find_first_of("0123456789", field.size());
    uint64_t kib = 0;
    if (digits != std::string_view::npos) {
      std::from_chars(view.data() + digits, view.data() + view.size(), kib);
    }
    return kib * 1024;
  }
  return 0;
}

double CpuSeconds(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

uint64_t RssAnonBytes() { return StatusBytes("RssAnon"); }

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
