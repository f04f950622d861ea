// SPDX-License-Identifier: Apache-2.0
// perf_event_open with errors that say what to do.
#pragma once

#include <linux/perf_event.h>
#include <sys/types.h>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// pid -1: every process of the CPU; cpu -1: every CPU of the process. Closed on exec.
absl::StatusOr<base::UniqueFd> OpenPerfEvent(perf_event_attr attr, pid_t pid, int cpu);

// Whether the machine counts cycles in hardware (many virtual machines do not).
bool HasHardwareCycles();

}  // namespace firewatch::agent
