// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/binary_registry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/logging.h"
#include "base/mapped_file.h"
#include "base/status.h"
#include "profile/utf8.h"
#include "symbolizer/file_identity.h"

namespace firewatch::server {
namespace {

constexpr std::string_view kMagic("FWBIN\0\0\1", 8);
constexpr size_t kRecordHeaderBytes = 8;  // size, hash
constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxDetailBytes = 512;
constexpr int kMaxSegments = 64;
constexpr size_t kMaxRecordBytes = 16 * 1024;
constexpr int64_t kRewriteMs = 600'000;
// Beyond it the log is written anew with one line per binary.
constexpr uint64_t kMaxLogBytes = uint64_t{64} << 20;

std::string CleanText(std::string_view text, size_t max_bytes) {
  std::string clean = profile::ToValidUtf8(text.substr(0, max_bytes));
  for (char& c : clean) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return clean;
}

ingest::NameReason CleanReason(int reason) {
  return ingest::NameReason_IsValid(reason) ? static_cast<ingest::NameReason>(reason)
                                            : ingest::NAME_REASON_NONE;
}

std::string KeyOf(std::string_view build_id, std::string_view path) {
  return build_id.empty() ? "path:" + std::string(path) : std::string(build_id);
}

uint32_t ReadU32(std::string_view bytes, size_t at) {
  uint32_t value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

bool SameSegments(const std::vector<symbolizer::ElfSegment>& a,
                  const std::vector<symbolizer::ElfSegment>& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return x.file_offset == y.file_offset && x.file_size == y.file_size && x.vaddr == y.vaddr;
  });
}

absl::Status WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return base::ErrnoStatus(errno, "write");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<BinaryRecord> CheckBinaryInfo(const ingest::BinaryInfo& info) {
  BinaryRecord record;
  if (!info.build_id().empty()) {
    const auto id = symbolizer::BuildId::FromHex(info.build_id());
    if (id.empty()) return std::nullopt;
    record.build_id = id.ToHex();
  }
  if (info.path().size() > kMaxPathBytes || info.segments_size() > kMaxSegments) {
    return std::nullopt;
  }
  if (record.build_id.empty() && info.path().empty()) return std::nullopt;
  record.path = CleanText(info.path(), kMaxPathBytes);
  record.detail = CleanText(info.detail(), kMaxDetailBytes);
  record.reason = CleanReason(info.reason());
  record.lines_reason = CleanReason(info.lines_reason());
  uint64_t end = 0;
  for (const ingest::BinarySegment& segment : info.segments()) {
    uint64_t next = 0;
    uint64_t vaddr_end = 0;
    if (segment.size() == 0 || segment.offset() < end ||
        __builtin_add_overflow(segment.offset(), segment.size(), &next) ||
        __builtin_add_overflow(segment.vaddr(), segment.size(), &vaddr_end)) {
      return std::nullopt;
    }
    end = next;
    record.segments.push_back({.file_offset = segment.offset(),
                               .file_size = segment.size(),
                               .vaddr = segment.vaddr(),
                               .executable = true});
  }
  return record;
}

std::string EncodeBinaryRecord(const BinaryRecord& record) {
  ingest::BinaryInfo info;
  info.set_build_id(record.build_id);
  info.set_path(record.path);
  info.set_detail(record.detail);
  info.set_reason(record.reason);
  info.set_lines_reason(record.lines_reason);
  for (const auto& segment : record.segments) {
    ingest::BinarySegment& one = *info.add_segments();
    one.set_offset(segment.file_offset);
    one.set_size(segment.file_size);
    one.set_vaddr(segment.vaddr);
  }
  const std::string payload = info.SerializeAsString();
  const auto size = static_cast<uint32_t>(payload.size());
  const auto hash = static_cast<uint32_t>(base::Hash64(payload));
  std::string line(kRecordHeaderBytes, '\0');
  std::memcpy(line.data(), &size, sizeof(size));
  std::memcpy(line.data() + 4, &hash, sizeof(hash));
  return line + payload;
}

std::vector<BinaryRecord> ReadBinaryLog(std::string_view bytes, size_t* whole_bytes) {
  std::vector<BinaryRecord> records;
  *whole_bytes = 0;
  if (!bytes.starts_with(kMagic)) return records;
  size_t at = kMagic.size();
  while (bytes.size() - at >= kRecordHeaderBytes) {
    const uint32_t size = ReadU32(bytes, at);
    if (size > kMaxRecordBytes || size > bytes.size() - at - kRecordHeaderBytes) break;
    const std::string_view payload = bytes.substr(at + kRecordHeaderBytes, size);
    if (static_cast<uint32_t>(base::Hash64(payload)) != ReadU32(bytes, at + 4)) break;
    ingest::BinaryInfo info;
    if (!info.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) break;
    auto record = CheckBinaryInfo(info);
    if (!record) break;
    records.push_back(*std::move(record));
    at += kRecordHeaderBytes + size;
  }
  *whole_bytes = at;
  return records;
}

BinaryRegistry::BinaryRegistry(std::string path, const base::Clock& clock,
                               base::MetricsRegistry& metrics)
    : path_(std::move(path)),
      clock_(clock),
      refused_(metrics.AddCounter("firewatch_binaries_refused_total",
                                  "Descriptions of binaries from agents that make no sense.")),
      write_errors_(metrics.AddCounter("firewatch_binaries_write_errors_total",
                                       "Descriptions of binaries that could not be written.")),
      forgotten_(metrics.AddCounter("firewatch_binaries_forgotten_total",
                                    "Binaries forgotten to keep to the bound, or damaged.")) {}

absl::StatusOr<std::unique_ptr<BinaryRegistry>> BinaryRegistry::Open(
    const std::string& path, const base::Clock& clock, base::MetricsRegistry& metrics) {
  auto registry = std::unique_ptr<BinaryRegistry>(new BinaryRegistry(path, clock, metrics));
  if (path.empty()) return registry;
  base::MutexLock lock(registry->mutex_);
  RETURN_IF_ERROR(registry->Load());
  return registry;
}

absl::Status BinaryRegistry::Load() {
  auto file = base::MappedFile::Open(path_);
  if (file.ok()) {
    const std::string_view bytes(reinterpret_cast<const char*>(file->bytes().data()),
                                 file->bytes().size());
    size_t whole_bytes = 0;
    bool sync = false;
    for (BinaryRecord& record : ReadBinaryLog(bytes, &whole_bytes)) {
      Take(std::move(record), 0, &sync);
    }
    if (whole_bytes != bytes.size()) {
      forgotten_.Add();
      spdlog::warn("{}: damaged at byte {}, the rest is dropped", path_, whole_bytes);
    }
  } else if (file.status().code() != absl::StatusCode::kNotFound) {
    return file.status();
  }
  return Rewrite();
}

// One line per binary, written aside and renamed.
absl::Status BinaryRegistry::Rewrite() {
  std::string bytes(kMagic);
  for (const auto& [key, entry] : entries_) bytes += EncodeBinaryRecord(*entry.record);
  const std::string aside = path_ + ".new";
  base::UniqueFd fd(
      ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (!fd.valid()) return base::ErrnoStatus(errno, "make " + aside);
  RETURN_IF_ERROR(base::Annotate(WriteAll(fd.get(), bytes), aside));
  if (::fsync(fd.get()) != 0) return base::ErrnoStatus(errno, "sync " + aside);
  if (::rename(aside.c_str(), path_.c_str()) != 0) return base::ErrnoStatus(errno, path_);
  log_ = std::move(fd);
  log_bytes_ = bytes.size();
  return absl::OkStatus();
}

bool BinaryRegistry::Take(BinaryRecord record, int64_t now_ms, bool* sync) {
  Entry& entry = entries_[KeyOf(record.build_id, record.path)];
  entry.seen = ++seen_;
  if (entry.record != nullptr) {
    // A window in which the file was not read yet knows less than an earlier one.
    if (record.segments.empty()) record.segments = entry.record->segments;
    record.path = entry.record->path;
    const bool new_segments = !SameSegments(record.segments, entry.record->segments);
    if (!new_segments && record.reason == entry.record->reason &&
        record.lines_reason == entry.record->lines_reason &&
        record.detail == entry.record->detail) {
      return false;
    }
    const bool first_segments = new_segments && entry.record->segments.empty();
    entry.record = std::make_shared<const BinaryRecord>(std::move(record));
    // Two agents that contradict each other must not fill the disk.
    if (!first_segments && now_ms - entry.written_ms < kRewriteMs) return false;
    *sync |= new_segments;
  } else {
    entry.record = std::make_shared<const BinaryRecord>(std::move(record));
    *sync = true;
  }
  entry.written_ms = now_ms;
  if (entries_.size() > kMaxRecords) Forget();
  return true;
}

// The eighth that was not told of for longest: a scan of all for each newcomer would cost more.
void BinaryRegistry::Forget() {
  std::vector<uint64_t> seen;
  seen.reserve(entries_.size());
  for (const auto& [key, entry] : entries_) seen.push_back(entry.seen);
  const size_t cut = seen.size() / 8;
  std::nth_element(seen.begin(), seen.begin() + static_cast<std::ptrdiff_t>(cut), seen.end());
  const size_t before = entries_.size();
  absl::erase_if(entries_,
                 [limit = seen[cut]](const auto& one) { return one.second.seen < limit; });
  forgotten_.Add(before - entries_.size());
}

void BinaryRegistry::Note(const google::protobuf::RepeatedPtrField<ingest::BinaryInfo>& binaries) {
  if (binaries.empty()) return;
  const int64_t now_ms = clock_.Now().unix_ms();
  std::string lines;
  bool sync = false;
  base::MutexLock lock(mutex_);
  for (const ingest::BinaryInfo& info : binaries) {
    auto record = CheckBinaryInfo(info);
    if (!record) {
      refused_.Add();
      continue;
    }
    const std::string key = KeyOf(record->build_id, record->path);
    if (!Take(*std::move(record), now_ms, &sync)) continue;
    const auto it = entries_.find(key);
    if (it != entries_.end()) lines += EncodeBinaryRecord(*it->second.record);
  }
  if (lines.empty() || !log_.valid()) return;
  absl::Status status;
  if (log_bytes_ + lines.size() > kMaxLogBytes) {
    status = Rewrite();
  } else {
    status = WriteAll(log_.get(), lines);
    log_bytes_ += lines.size();
    if (status.ok() && sync && ::fdatasync(log_.get()) != 0) {
      status = base::ErrnoStatus(errno, "sync");
    }
    // Half a line would hide every later one.
    if (!status.ok()) status = base::Annotate(Rewrite(), base::Message(status));
  }
  if (status.ok()) return;
  write_errors_.Add();
  spdlog::warn("{}: {}", path_, base::ToString(status));
}

std::shared_ptr<const BinaryRecord> BinaryRegistry::Find(std::string_view build_id,
                                                         std::string_view path) const {
  const std::string key = KeyOf(build_id, path);
  base::MutexLock lock(mutex_);
  const auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : it->second.record;
}

size_t BinaryRegistry::size() const {
  base::MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace firewatch::server
