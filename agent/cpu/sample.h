// SPDX-License-Identifier: Apache-2.0
// One sample as it left the kernel: the bytes of bpf/include/frame.h, checked. The same bytes stand
// in replay files, so they are foreign bytes too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/core/events.h"
#include "bpf/include/frame.h"

namespace firewatch::agent {

// A view: everything that is a span or a string_view points into the record it was parsed from,
// which is valid only during the callback that delivers it.
struct SampleRecord {
  uint64_t time_ns = 0;  // CLOCK_MONOTONIC
  uint64_t cgroup_id = 0;
  Pid pid{};  // 0 when the process is not visible in the agent's pid namespace
  uint32_t tid = 0;
  uint32_t cpu = 0;
  fw_stack_end stack_end = FW_STACK_END_NONE;  // of the user part
  bool in_kernel = false;                      // the tick hit kernel mode
  bool kernel_thread = false;
  bool kernel_truncated = false;
  std::string_view comm;                  // of the thread
  std::span<const fw_u64> kernel_frames;  // leaf first; see FW_FRAME_* for the 64 bits of a frame
  std::span<const fw_u64> user_frames;    // leaf first
  std::span<const fw_file_note> file_notes;  // mappings whose file the kernel side does not know
  // With `stack`: the registers of user mode, for a walk in user space; else nullptr.
  const fw_stack_copy* registers = nullptr;
  std::span<const std::byte> stack;  // memory from registers->start on
  std::span<const std::byte> bytes;  // the whole record, for the replay writer
};

// `bytes` must be 8-byte aligned (ring-buffer records and the replay reader's buffer are). Trailing
// bytes are ignored: the ring rounds records up. InvalidArgument when the version is unknown, a
// length does not fit, or a field has a value that the kernel side never writes.
absl::StatusOr<SampleRecord> ParseSample(std::span<const std::byte> bytes);

}  // namespace firewatch::agent
