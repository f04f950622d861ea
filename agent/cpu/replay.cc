// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/replay.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr std::array<char, 8> kMagic = {'F', 'W', 'E', 'V', 'E', 'N', 'T', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kSampleRecord = 1;
constexpr uint32_t kEventRecord = 2;
// The largest sample is 9.3 KB (docs/formats.md); paths of mappings are at most 4 KiB.
constexpr uint32_t kMaxRecordBytes = 64 * 1024;

struct FileHeader {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t hz;
  int64_t unix_minus_monotonic_ns;
};
static_assert(sizeof(FileHeader) == 24);

struct RecordHeader {
  uint32_t type;
  uint32_t size;  // of the payload, without padding to 8 bytes
};
static_assert(sizeof(RecordHeader) == 8);

// The fixed part of a process event; comm and path follow it.
struct EventPayload {
  uint64_t time_ns;
  uint64_t lost;
  uint64_t start;
  uint64_t end;
  uint64_t file_offset;
  uint64_t inode;
  uint64_t inode_generation;
  uint32_t pid;
  uint32_t parent;
  uint32_t tid;
  uint32_t device_major;
  uint32_t device_minor;
  uint16_t comm_size;
  uint16_t path_size;
  uint8_t kind;
  uint8_t build_id_size;
  std::array<uint8_t, 20> build_id;
  std::array<uint8_t, 2> padding;
};
static_assert(sizeof(EventPayload) == 104);

size_t PaddedTo8(size_t size) { return (size + 7) & ~size_t{7}; }

absl::StatusOr<ProcessEvent> ParseEvent(std::string_view payload) {
  EventPayload fixed;
  if (payload.size() < sizeof(fixed)) return base::InvalidArgument("process event is too short");
  std::memcpy(&fixed, payload.data(), sizeof(fixed));
  payload.remove_prefix(sizeof(fixed));
  if (payload.size() != size_t{fixed.comm_size} + fixed.path_size) {
    return base::InvalidArgument("process event: lengths do not add up");
  }
  if (fixed.kind > static_cast<uint8_t>(ProcessEventKind::kLost)) {
    return base::InvalidArgument("process event of unknown kind {}", fixed.kind);
  }
  if (fixed.build_id_size > fixed.build_id.size()) {
    return base::InvalidArgument("build id of {} bytes", fixed.build_id_size);
  }
  ProcessEvent event;
  event.kind = static_cast<ProcessEventKind>(fixed.kind);
  event.time_ns = fixed.time_ns;
  event.pid = Pid{fixed.pid};
  event.parent = Pid{fixed.parent};
  event.tid = fixed.tid;
  event.lost = fixed.lost;
  event.comm = payload.substr(0, fixed.comm_size);
  event.start = fixed.start;
  event.end = fixed.end;
  event.file_offset = fixed.file_offset;
  event.file.path = payload.substr(fixed.comm_size);
  event.file.build_id.size = fixed.build_id_size;
  std::copy_n(fixed.build_id.begin(), fixed.build_id_size, event.file.build_id.bytes.begin());
  event.file.device_major = fixed.device_major;
  event.file.device_minor = fixed.device_minor;
  event.file.inode = fixed.inode;
  event.file.inode_generation = fixed.inode_generation;
  return event;
}

// 0, which is no user address, when the mapping is gone.
fw_u64 WithoutFileId(fw_u64 frame, const MappingSet& mappings) {
  if (frame >> FW_FRAME_KIND_SHIFT != FW_FRAME_FILE) return frame;
  const uint64_t payload = frame & FW_FRAME_PAYLOAD_MASK;
  const uint64_t offset = payload & ((uint64_t{1} << FW_FRAME_FILE_OFFSET_BITS) - 1);
  const ProcessMapping* mapping = mappings.FindFile(
      static_cast<symbolizer::FileId>(payload >> FW_FRAME_FILE_OFFSET_BITS), offset);
  return mapping == nullptr ? 0 : mapping->start + (offset - mapping->file_offset);
}

}  // namespace

// ---- writer -------------------------------------------------------------------------------------

struct ReplayWriter::Impl {
  void Append(uint32_t type, std::string_view fixed, std::string_view first = "",
              std::string_view second = "") {
    const size_t size = fixed.size() + first.size() + second.size();
    const RecordHeader header = {type, static_cast<uint32_t>(size)};
    file.write(reinterpret_cast<const char*>(&header), sizeof(header));
    for (std::string_view part : {fixed, first, second}) {
      file.write(part.data(), static_cast<std::streamsize>(part.size()));
    }
    static constexpr std::array<char, 8> kZeros{};
    file.write(kZeros.data(), static_cast<std::streamsize>(PaddedTo8(size) - size));
  }

  std::string path;
  std::ofstream file;
  std::vector<std::byte> record;  // scratch
};

ReplayWriter::ReplayWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ReplayWriter::~ReplayWriter() = default;

absl::StatusOr<std::unique_ptr<ReplayWriter>> ReplayWriter::Create(const std::string& path,
                                                                   const ReplayHeader& header) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->file.open(path, std::ios::binary | std::ios::trunc);
  if (!impl->file) return base::ErrnoStatus(errno, fmt::format("create {}", path));
  const FileHeader out = {kMagic, kVersion, header.hz, header.unix_minus_monotonic_ns};
  impl->file.write(reinterpret_cast<const char*>(&out), sizeof(out));
  return std::unique_ptr<ReplayWriter>(new ReplayWriter(std::move(impl)));
}

void ReplayWriter::Write(const SampleRecord& sample, const MappingSet& mappings) {
  const std::span<const std::byte> frames = std::as_bytes(sample.user_frames);
  std::vector<std::byte>& record = impl_->record;
  record.assign(sample.bytes.begin(), sample.bytes.end());
  std::byte* const to = record.data() + (frames.data() - sample.bytes.data());
  record.resize(static_cast<size_t>(to - record.data()) + frames.size());
  record[offsetof(fw_sample, file_notes)] = std::byte{0};
  if (!sample.stack.empty()) std::memset(&record[offsetof(fw_sample, stack_bytes)], 0, 4);
  for (size_t i = 0; i < sample.user_frames.size(); ++i) {
    const fw_u64 frame = WithoutFileId(sample.user_frames[i], mappings);
    std::memcpy(to + i * sizeof(frame), &frame, sizeof(frame));
  }
  impl_->Append(kSampleRecord, {reinterpret_cast<const char*>(record.data()), record.size()});
}

void ReplayWriter::Write(const ProcessEvent& event) {
  EventPayload fixed{};
  fixed.time_ns = event.time_ns;
  fixed.lost = event.lost;
  fixed.start = event.start;
  fixed.end = event.end;
  fixed.file_offset = event.file_offset;
  fixed.inode = event.file.inode;
  fixed.inode_generation = event.file.inode_generation;
  fixed.pid = static_cast<uint32_t>(event.pid);
  fixed.parent = static_cast<uint32_t>(event.parent);
  fixed.tid = event.tid;
  fixed.device_major = event.file.device_major;
  fixed.device_minor = event.file.device_minor;
  const std::string_view comm = std::string_view(event.comm).substr(0, 256);
  const std::string_view path = std::string_view(event.file.path).substr(0, 4096);
  fixed.comm_size = static_cast<uint16_t>(comm.size());
  fixed.path_size = static_cast<uint16_t>(path.size());
  fixed.kind = static_cast<uint8_t>(event.kind);
  fixed.build_id_size = event.file.build_id.size;
  fixed.build_id = event.file.build_id.bytes;
  impl_->Append(kEventRecord, {reinterpret_cast<const char*>(&fixed), sizeof(fixed)}, comm, path);
}

absl::Status ReplayWriter::Close() {
  impl_->file.close();
  if (impl_->file.fail()) return base::ErrnoStatus(errno, fmt::format("write {}", impl_->path));
  return absl::OkStatus();
}

// ---- reader -------------------------------------------------------------------------------------

struct ReplayReader::Impl {
  // Bytes that were read: fewer than asked for only at the end.
  size_t Read(void* to, size_t size) {
    if (file.is_open()) {
      file.read(static_cast<char*>(to), static_cast<std::streamsize>(size));
      return static_cast<size_t>(file.gcount());
    }
    const size_t got = std::min(size, memory.size());
    if (got != 0) std::memcpy(to, memory.data(), got);
    memory = memory.subspan(got);
    return got;
  }

  absl::Status ReadHeader() {
    FileHeader in{};
    if (Read(&in, sizeof(in)) != sizeof(in) || in.magic != kMagic) {
      return base::InvalidArgument("not a Firewatch event file");
    }
    if (in.version != kVersion) {
      return base::InvalidArgument("event file of version {}; this program reads version {}",
                                   in.version, kVersion);
    }
    if (in.hz < 1 || in.hz > 999) return base::InvalidArgument("event file of {} Hz", in.hz);
    header = {in.hz, in.unix_minus_monotonic_ns};
    return absl::OkStatus();
  }

  absl::StatusOr<Item> ReadItem() {
    RecordHeader record{};
    const size_t got = Read(&record, sizeof(record));
    if (got == 0) return Item(std::monostate());
    if (got != sizeof(record)) return base::DataLoss("event file is cut short");
    if (record.size > kMaxRecordBytes) {
      return base::InvalidArgument("record of {} bytes", record.size);
    }
    const size_t padded = PaddedTo8(record.size);
    buffer.resize(padded / sizeof(uint64_t));
    if (Read(buffer.data(), padded) != padded) return base::DataLoss("event file is cut short");
    const auto* bytes = reinterpret_cast<const std::byte*>(buffer.data());
    if (record.type == kSampleRecord) {
      ASSIGN_OR_RETURN(const SampleRecord sample, ParseSample({bytes, record.size}));
      return Item(sample);
    }
    if (record.type == kEventRecord) {
      ASSIGN_OR_RETURN(ProcessEvent event,
                       ParseEvent({reinterpret_cast<const char*>(bytes), record.size}));
      return Item(std::move(event));
    }
    return base::InvalidArgument("record of unknown type {}", record.type);
  }

  std::ifstream file;
  std::span<const std::byte> memory;
  ReplayHeader header;
  std::vector<uint64_t> buffer;  // 8-byte aligned, as ParseSample wants it
  bool ended = false;
};

ReplayReader::ReplayReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ReplayReader::~ReplayReader() = default;

absl::StatusOr<std::unique_ptr<ReplayReader>> ReplayReader::Open(const std::string& path) {
  auto impl = std::make_unique<Impl>();
  impl->file.open(path, std::ios::binary);
  if (!impl->file) return base::ErrnoStatus(errno, fmt::format("open {}", path));
  if (absl::Status status = impl->ReadHeader(); !status.ok()) return base::Annotate(status, path);
  return std::unique_ptr<ReplayReader>(new ReplayReader(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<ReplayReader>> ReplayReader::FromBytes(
    std::span<const std::byte> bytes) {
  auto impl = std::make_unique<Impl>();
  impl->memory = bytes;
  RETURN_IF_ERROR(impl->ReadHeader());
  return std::unique_ptr<ReplayReader>(new ReplayReader(std::move(impl)));
}

const ReplayHeader& ReplayReader::header() const { return impl_->header; }

absl::StatusOr<ReplayReader::Item> ReplayReader::Next() {
  if (impl_->ended) return Item(std::monostate());
  absl::StatusOr<Item> item = impl_->ReadItem();
  impl_->ended = !item.ok() || std::holds_alternative<std::monostate>(*item);
  return item;
}

}  // namespace firewatch::agent
