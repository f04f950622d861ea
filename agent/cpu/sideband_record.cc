// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sideband_record.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/status.h"

namespace firewatch::agent {
namespace {

struct SampleId {
  uint32_t pid, tid;
  uint64_t time_ns;
  uint32_t cpu, reserved;
};
static_assert(sizeof(SampleId) == 24);

struct TaskRecord {  // FORK, EXIT
  uint32_t pid, parent_pid;
  uint32_t tid, parent_tid;
  uint64_t time_ns;
};

struct CommRecord {  // then the name
  uint32_t pid, tid;
};

struct Mmap2Record {  // then the path
  uint32_t pid, tid;
  uint64_t address, length, page_offset;
  union {
    struct {
      uint32_t device_major, device_minor;
      uint64_t inode, inode_generation;
    } file;
    struct {
      uint8_t size;
      uint8_t reserved[3];
      uint8_t bytes[20];
    } build_id;
  };
  uint32_t protection, flags;
};
static_assert(sizeof(Mmap2Record) == 64);

struct LostRecord {
  uint64_t id, lost;
};

// Outside the agent's pid namespace (0), or a task that was gone already (-1).
bool IsVisible(uint32_t pid) { return pid != 0 && pid != UINT32_MAX; }

template <typename T>
bool Take(std::span<const std::byte>& bytes, T& out) {
  if (bytes.size() < sizeof(T)) return false;
  std::memcpy(&out, bytes.data(), sizeof(T));
  bytes = bytes.subspan(sizeof(T));
  return true;
}

std::string_view NulTerminated(std::span<const std::byte> bytes) {
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  return {text, strnlen(text, bytes.size())};
}

using Parsed = std::optional<SideBandRecord>;

absl::Status TooShort(const char* what) {
  return base::InvalidArgument("side-band {} record is too short", what);
}

absl::StatusOr<Parsed> ParseTask(std::span<const std::byte> body, ProcessEventKind kind) {
  TaskRecord task;
  if (!Take(body, task)) return TooShort("task");
  if (!IsVisible(task.pid)) return Parsed();
  SideBandRecord record;
  record.event.kind = kind;
  record.event.time_ns = task.time_ns;
  record.event.pid = Pid{task.pid};
  record.event.tid = task.tid;
  if (kind == ProcessEventKind::kFork) record.event.parent = Pid{task.parent_pid};
  record.thread =
      kind == ProcessEventKind::kFork ? task.pid == task.parent_pid : task.pid != task.tid;
  return Parsed(std::move(record));
}

absl::StatusOr<Parsed> ParseComm(std::span<const std::byte> body, bool exec, uint64_t time_ns) {
  CommRecord comm;
  if (!Take(body, comm)) return TooShort("comm");
  if (!IsVisible(comm.pid)) return Parsed();
  SideBandRecord record;
  record.event.kind = exec ? ProcessEventKind::kExec : ProcessEventKind::kComm;
  record.event.time_ns = time_ns;
  record.event.pid = Pid{comm.pid};
  record.event.tid = comm.tid;
  record.event.comm = NulTerminated(body);
  return Parsed(std::move(record));
}

absl::StatusOr<Parsed> ParseMmap(std::span<const std::byte> body, bool has_build_id,
                                 uint64_t time_ns) {
  Mmap2Record mapping;
  if (!Take(body, mapping)) return TooShort("mapping");
  if (!IsVisible(mapping.pid) || (mapping.protection & PROT_EXEC) == 0) return Parsed();
  if (mapping.length == 0 || mapping.address + mapping.length < mapping.address) {
    return base::InvalidArgument("side-band mapping of {} bytes at {:#x}", mapping.length,
                                 mapping.address);
  }
  SideBandRecord record;
  ProcessEvent& event = record.event;
  event.kind = ProcessEventKind::kMmap;
  event.time_ns = time_ns;
  event.pid = Pid{mapping.pid};
  event.tid = mapping.tid;
  event.start = mapping.address;
  event.end = mapping.address + mapping.length;
  event.file_offset = mapping.page_offset;
  event.file.path = NulTerminated(body);
  if (has_build_id) {
    symbolizer::BuildId& id = event.file.build_id;
    id.size = std::min<uint8_t>(mapping.build_id.size, sizeof(mapping.build_id.bytes));
    std::copy_n(mapping.build_id.bytes, id.size, id.bytes.begin());
  } else {
    event.file.device_major = mapping.file.device_major;
    event.file.device_minor = mapping.file.device_minor;
    event.file.inode = mapping.file.inode;
    event.file.inode_generation = mapping.file.inode_generation;
  }
  return Parsed(std::move(record));
}

absl::StatusOr<Parsed> ParseLost(std::span<const std::byte> body, uint64_t time_ns) {
  LostRecord lost;
  if (!Take(body, lost)) return TooShort("lost");
  SideBandRecord record;
  record.event.kind = ProcessEventKind::kLost;
  record.event.time_ns = time_ns;
  record.event.lost = lost.lost;
  return Parsed(std::move(record));
}

}  // namespace

absl::StatusOr<Parsed> ParseSideBandRecord(std::span<const std::byte> bytes) {
  const size_t given = bytes.size();
  perf_event_header header;
  if (!Take(bytes, header) || header.size != given || bytes.size() < sizeof(SampleId)) {
    return base::InvalidArgument("side-band record of {} bytes", given);
  }
  SampleId id;
  std::memcpy(&id, bytes.data() + bytes.size() - sizeof(id), sizeof(id));
  const auto body = bytes.first(bytes.size() - sizeof(id));
  switch (header.type) {
    case PERF_RECORD_FORK:
      return ParseTask(body, ProcessEventKind::kFork);
    case PERF_RECORD_EXIT:
      return ParseTask(body, ProcessEventKind::kExit);
    case PERF_RECORD_COMM:
      return ParseComm(body, (header.misc & PERF_RECORD_MISC_COMM_EXEC) != 0, id.time_ns);
    case PERF_RECORD_MMAP2:
      return ParseMmap(body, (header.misc & PERF_RECORD_MISC_MMAP_BUILD_ID) != 0, id.time_ns);
    case PERF_RECORD_LOST:
      return ParseLost(body, id.time_ns);
    default:
      return Parsed();
  }
}

}  // namespace firewatch::agent
