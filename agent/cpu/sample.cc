// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sample.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr size_t kFrameSize = sizeof(fw_u64);
constexpr uint8_t kKnownFlags =
    FW_SAMPLE_KERNEL_TRUNCATED | FW_SAMPLE_IN_KERNEL | FW_SAMPLE_KERNEL_THREAD;

uint32_t StackBytes(const fw_sample& header) {
  return header.header_size < sizeof(fw_sample) ? 0 : header.stack_bytes;
}

size_t RecordSize(const fw_sample& header) {
  const size_t stack = StackBytes(header);
  return header.header_size + (size_t{header.kernel_frames} + header.user_frames) * kFrameSize +
         header.file_notes * sizeof(fw_file_note) +
         (stack == 0 ? 0 : sizeof(fw_stack_copy) + stack);
}

absl::Status CheckHeader(const fw_sample& header, size_t size) {
  if (header.version != FW_SAMPLE_VERSION) {
    return base::InvalidArgument("sample: version {} is unknown", header.version);
  }
  // A newer writer of the same version may append fields; frames stay aligned.
  if (header.header_size < FW_SAMPLE_HEADER_MIN || header.header_size % kFrameSize != 0) {
    return base::InvalidArgument("sample: header of {} bytes", header.header_size);
  }
  if (header.kernel_frames > FW_MAX_KERNEL_FRAMES || header.user_frames > FW_MAX_USER_FRAMES) {
    return base::InvalidArgument("sample: {} kernel and {} user frames", header.kernel_frames,
                                 header.user_frames);
  }
  if (header.file_notes > FW_MAX_FILE_NOTES) {
    return base::InvalidArgument("sample: {} file notes", header.file_notes);
  }
  if (header.header_size > size) {
    return base::InvalidArgument("sample: header of {} bytes", header.header_size);
  }
  if (StackBytes(header) > FW_STACK_COPY_BYTES_MAX) {
    return base::InvalidArgument("sample: stack of {} bytes", StackBytes(header));
  }
  if (RecordSize(header) > size) {
    return base::InvalidArgument("sample: {} frames, {} notes and {} bytes of stack do not fit into "
                                 "{} bytes",
                                 header.kernel_frames + header.user_frames, header.file_notes,
                                 StackBytes(header), size);
  }
  if (header.stack_end >= FW_STACK_END_COUNT || (header.flags & ~kKnownFlags) != 0) {
    return base::InvalidArgument("sample: stack end {} with flags {}", header.stack_end,
                                 header.flags);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SampleRecord> ParseSample(std::span<const std::byte> bytes) {
  if (bytes.size() < FW_SAMPLE_HEADER_MIN) {
    return base::InvalidArgument("sample: {} bytes are no header", bytes.size());
  }
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(fw_sample) != 0) {
    return base::InvalidArgument("sample: bytes are not aligned");
  }
  const auto& header = *reinterpret_cast<const fw_sample*>(bytes.data());
  RETURN_IF_ERROR(CheckHeader(header, bytes.size()));

  const auto* frames = reinterpret_cast<const fw_u64*>(bytes.data() + header.header_size);
  SampleRecord record;
  record.time_ns = header.time_ns;
  record.cgroup_id = header.cgroup_id;
  record.pid = Pid{header.pid};
  record.tid = header.tid;
  record.cpu = header.cpu;
  record.stack_end = static_cast<fw_stack_end>(header.stack_end);
  record.in_kernel = (header.flags & FW_SAMPLE_IN_KERNEL) != 0;
  record.kernel_thread = (header.flags & FW_SAMPLE_KERNEL_THREAD) != 0;
  record.kernel_truncated = (header.flags & FW_SAMPLE_KERNEL_TRUNCATED) != 0;
  record.comm = {header.comm, strnlen(header.comm, sizeof(header.comm))};
  record.kernel_frames = {frames, header.kernel_frames};
  record.user_frames = {frames + header.kernel_frames, header.user_frames};
  const auto* notes =
      reinterpret_cast<const fw_file_note*>(frames + header.kernel_frames + header.user_frames);
  record.file_notes = {notes, header.file_notes};
  if (const uint32_t stack = StackBytes(header); stack != 0) {
    record.registers = reinterpret_cast<const fw_stack_copy*>(notes + header.file_notes);
    record.stack = {reinterpret_cast<const std::byte*>(record.registers + 1), stack};
  }
  record.bytes = bytes.first(RecordSize(header));
  return record;
}

}  // namespace firewatch::agent
