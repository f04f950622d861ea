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

size_t RecordSize(const fw_sample& header) {
  return header.header_size + (size_t{header.kernel_frames} + header.user_frames) * kFrameSize +
         header.file_notes * sizeof(fw_file_note);
}

absl::Status CheckHeader(const fw_sample& header, size_t size) {
  if (header.version != FW_SAMPLE_VERSION) {
    return base::InvalidArgument("sample: version {} is unknown", header.version);
  }
  // A newer writer of the same version may append fields; frames stay aligned.
  if (header.header_size < sizeof(fw_sample) || header.header_size % kFrameSize != 0) {
    return base::InvalidArgument("sample: header of {} bytes", header.header_size);
  }
  if (header.kernel_frames > FW_MAX_KERNEL_FRAMES || header.user_frames > FW_MAX_USER_FRAMES) {
    return base::InvalidArgument("sample: {} kernel and {} user frames", header.kernel_frames,
                                 header.user_frames);
  }
  if (header.file_notes > FW_MAX_FILE_NOTES) {
    return base::InvalidArgument("sample: {} file notes", header.file_notes);
  }
  if (RecordSize(header) > size) {
    return base::InvalidArgument("sample: {} frames and {} notes do not fit into {} bytes",
                                 header.kernel_frames + header.user_frames, header.file_notes,
                                 size);
  }
  if (header.stack_end >= FW_STACK_END_COUNT || (header.flags & ~kKnownFlags) != 0) {
    return base::InvalidArgument("sample: stack end {} with flags {}", header.stack_end,
                                 header.flags);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SampleRecord> ParseSample(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(fw_sample)) {
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
  record.bytes = bytes.first(RecordSize(header));
  return record;
}

}  // namespace firewatch::agent
