// SPDX-License-Identifier: Apache-2.0
// One raw perf record of the side-band events: from bytes to a ProcessEvent. The layout is
// include/uapi/linux/perf_event.h (enum perf_event_type) with the trailing sample_id that
// kSideBandSampleType asks for.
#pragma once

#include <linux/perf_event.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "agent/core/events.h"

namespace firewatch::agent {

constexpr uint64_t kSideBandSampleType = PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_CPU;

struct SideBandRecord {
  ProcessEvent event;
  // A fork that made a thread, or the exit of a thread: of no interest by itself, but the last of
  // them ends the process (thread_counts.h).
  bool thread = false;
};

// `bytes` is one whole record with its header. Nothing for records that say nothing about a process
// that the agent can see. InvalidArgument when it is cut short or lengths contradict each other.
absl::StatusOr<std::optional<SideBandRecord>> ParseSideBandRecord(std::span<const std::byte> bytes);

}  // namespace firewatch::agent
