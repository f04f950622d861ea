// SPDX-License-Identifier: Apache-2.0
// What the agent itself costs, on its own /metrics: CPU of this process and of its children, and
// memory by the one definition of the project: RssAnon plus charged BPF maps.
#pragma once

#include <cstdint>
#include <functional>

#include "base/metrics.h"

namespace firewatch::agent {

// Registers process_cpu_seconds_total, process_resident_memory_bytes, firewatch_agent_anon_bytes
// and firewatch_agent_memory_bytes (RssAnon + map_bytes()). `metrics` must not outlive what
// map_bytes reads.
void RegisterSelfMetrics(base::MetricsRegistry& metrics, std::function<uint64_t()> map_bytes);

// User and system time of this process, its ended threads included, children not.
uint64_t ProcessCpuNs();

}  // namespace firewatch::agent
