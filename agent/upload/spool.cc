// SPDX-License-Identifier: Apache-2.0
#include "agent/upload/spool.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <vector>

#include "agent/core/losses.h"
#include "agent/upload/spool_file.h"
#include "base/logging.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr std::string_view kWindowSuffix = ".window";
constexpr std::string_view kTemporarySuffix = ".tmp";
constexpr size_t kAgentIdBytes = 16;
// The sequence file runs at least so far ahead that windows find a number for five minutes after
// the disk has failed, and is written once per five minutes. A crash skips at most kSequenceBlock.
constexpr uint64_t kSequenceBlock = 64;
constexpr uint64_t kSequenceReserve = 32;
// Larger files are not ours.
constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

// Fixed width: the file can be overwritten in place on a disk without a free block.
std::string SequenceText(uint64_t sequence) { return fmt::format("{:020}\n", sequence); }

std::string WindowName(uint64_t sequence) {
  return fmt::format("{:020}{}", sequence, kWindowSuffix);
}

template <typename T>
std::optional<T> ParseNumber(std::string_view text, int base) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<uint64_t> SequenceOfName(std::string_view name) {
  if (!name.ends_with(kWindowSuffix)) return std::nullopt;
  return ParseNumber<uint64_t>(name.substr(0, name.size() - kWindowSuffix.size()), 10);
}

std::optional<std::string> FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    const auto byte = ParseNumber<uint8_t>(hex.substr(i, 2), 16);
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
  }
  if (bytes.size() != kAgentIdBytes || hex.size() != 2 * kAgentIdBytes) return std::nullopt;
  return bytes;
}

std::string ToHex(std::string_view bytes) {
  std::string hex;
  for (const char byte : bytes) hex += fmt::format("{:02x}", static_cast<uint8_t>(byte));
  return hex;
}

std::string_view WithoutLineEnd(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

absl::Status WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return base::ErrnoStatus(errno, "write " + path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadAll(const std::string& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) return base::ErrnoStatus(errno, "open " + path);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return base::ErrnoStatus(errno, "stat " + path);
  if (!S_ISREG(info.st_mode) || static_cast<uint64_t>(info.st_size) > kMaxFileBytes) {
    return base::DataLoss("{}: not a spool file", path);
  }
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t used = 0;
  while (used < bytes.size()) {
    const ssize_t got = ::read(fd.get(), bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read " + path);
    if (got == 0) break;
    used += static_cast<size_t>(got);
  }
  bytes.resize(used);
  return bytes;
}

}  // namespace

Spool::Spool(std::string directory, uint64_t max_bytes, base::MetricsRegistry& metrics)
    : directory_(std::move(directory)),
      max_bytes_(max_bytes),
      dropped_(LossCounter(metrics, FW_LOSS_SPOOL_DROPPED)),
      damaged_(LossCounter(metrics, FW_LOSS_SPOOL_DAMAGED)),
      windows_gauge_(metrics.AddGauge("firewatch_agent_spool_windows",
                                      "Windows on disk that the server has not acknowledged.")),
      bytes_gauge_(metrics.AddGauge("firewatch_agent_spool_bytes",
                                    "Size of the windows in the spool directory.")) {}

Spool::~Spool() {
  uint64_t last = 0;
  {
    base::MutexLock lock(mutex_);
    last = last_sequence_;
    if (last == reserved_sequence_) return;
  }
  // On failure the numbers up to the reserved one are skipped: no harm.
  if (!directory_fd_.valid()) return;
  if (const absl::Status status = StoreSequence(last); !status.ok()) {
    spdlog::debug("spool: {}", base::ToString(status));
  }
}

std::string Spool::PathOf(std::string_view name) const {
  return fmt::format("{}/{}", directory_, name);
}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(std::string directory, uint64_t max_bytes,
                                                   base::MetricsRegistry& metrics) {
  if (directory.empty()) return base::InvalidArgument("the spool needs a directory");
  std::unique_ptr<Spool> spool(new Spool(std::move(directory), max_bytes, metrics));
  RETURN_IF_ERROR(base::Annotate(spool->Load(), "spool"));
  return spool;
}

absl::Status Spool::Load() {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(directory_).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  // Closed to others: it tells which programs run on this machine.
  if (::mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) {
    return base::ErrnoStatus(errno, "make directory " + directory_);
  }
  directory_fd_.Reset(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory_fd_.valid()) return base::ErrnoStatus(errno, "open " + directory_);
  const std::string lock_path = PathOf("lock");
  base::UniqueFd lock_fd(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_fd.valid()) return base::ErrnoStatus(errno, "open " + lock_path);
  if (::flock(lock_fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return base::FailedPrecondition("{} is in use by another agent", directory_);
  }
  lock_ = std::move(lock_fd);
  RETURN_IF_ERROR(LoadFiles());
  return LoadAgentId();
}

// Without the id or without the sequence an old number could come twice, and the server would take
// the new window for a repeat: then the agent starts as a new one. Windows in the spool keep the
// name that they were stored with.
absl::Status Spool::LoadAgentId() {
  const std::optional<uint64_t> stored = ReadSequence();
  std::optional<std::string> id = ReadAgentId();
  base::MutexLock lock(mutex_);
  last_sequence_ = std::max(files_.empty() ? 0 : files_.rbegin()->first, stored.value_or(0));
  reserved_sequence_ = last_sequence_;
  if (stored && id) {
    agent_id_ = *std::move(id);
    if (const absl::Status reserved = Reserve(); !reserved.ok()) {
      spdlog::warn("spool: {}", base::Message(reserved));
    }
    return absl::OkStatus();
  }
  if (stored || id) spdlog::warn("{}: incomplete, this agent gets a new id", directory_);
  agent_id_.assign(kAgentIdBytes, '\0');
  if (::getrandom(agent_id_.data(), kAgentIdBytes, 0) != static_cast<ssize_t>(kAgentIdBytes)) {
    return base::ErrnoStatus(errno, "getrandom");
  }
  RETURN_IF_ERROR(StoreSequence(last_sequence_ + kSequenceBlock));
  reserved_sequence_ = last_sequence_ + kSequenceBlock;
  return WriteAtomically("agent_id", ToHex(agent_id_), "\n");
}

std::optional<std::string> Spool::ReadAgentId() const {
  const auto text = ReadAll(PathOf("agent_id"));
  if (!text.ok()) return std::nullopt;
  return FromHex(WithoutLineEnd(*text));
}

std::optional<uint64_t> Spool::ReadSequence() const {
  const auto text = ReadAll(PathOf("sequence"));
  if (!text.ok()) return std::nullopt;
  return ParseNumber<uint64_t>(WithoutLineEnd(*text), 10);
}

absl::Status Spool::LoadFiles() {
  base::MutexLock lock(mutex_);
  std::error_code error;
  for (const auto& item : std::filesystem::directory_iterator(directory_, error)) {
    const std::string name = item.path().filename();
    std::error_code item_error;
    // A crash came before its rename: it was never acknowledged to the caller.
    if (name.ends_with(kTemporarySuffix)) std::filesystem::remove(item.path(), item_error);
    const auto sequence = SequenceOfName(name);
    if (!sequence) continue;
    const uint64_t size = item.file_size(item_error);
    if (item_error) continue;
    files_[*sequence] = size;
    bytes_ += size;
  }
  if (error) return base::ErrnoStatus(error.value(), "list " + directory_);
  DropBeyondBound();
  ShowSize();
  return absl::OkStatus();
}

absl::Status Spool::WriteAtomically(const std::string& name, std::string_view head,
                                    std::string_view body) const {
  const std::string path = PathOf(name);
  const std::string temporary = path + std::string(kTemporarySuffix);
  base::UniqueFd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return base::ErrnoStatus(errno, "open " + temporary);
  absl::Status status = WriteAll(fd.get(), head, temporary);
  if (status.ok()) status = WriteAll(fd.get(), body, temporary);
  if (status.ok() && ::fsync(fd.get()) != 0) status = base::ErrnoStatus(errno, "sync " + temporary);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = base::ErrnoStatus(errno, "rename " + temporary);
  }
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return status;
  }
  if (::fsync(directory_fd_.get()) != 0) return base::ErrnoStatus(errno, "sync " + directory_);
  return absl::OkStatus();
}

absl::Status Spool::StoreSequence(uint64_t sequence) const {
  const std::string text = SequenceText(sequence);
  const absl::Status status = WriteAtomically("sequence", text, "");
  if (status.ok()) return status;
  // A full disk has no block for a new file; the old one has room for the same 21 bytes, and they
  // lie in one sector.
  const std::string path = PathOf("sequence");
  const base::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd.valid()) return status;
  const ssize_t written = ::pwrite(fd.get(), text.data(), text.size(), 0);
  if (written != static_cast<ssize_t>(text.size()) || ::fdatasync(fd.get()) != 0) return status;
  return absl::OkStatus();
}

absl::Status Spool::Reserve() {
  if (reserved_sequence_ - last_sequence_ > kSequenceReserve) return absl::OkStatus();
  RETURN_IF_ERROR(StoreSequence(last_sequence_ + kSequenceBlock));
  reserved_sequence_ = last_sequence_ + kSequenceBlock;
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Spool::TakeSequence() {
  base::MutexLock lock(mutex_);
  const absl::Status reserved = Reserve();
  // While there are numbers left a disk that fails does no harm here.
  if (last_sequence_ == reserved_sequence_) return reserved;
  return ++last_sequence_;
}

absl::Status Spool::Put(uint64_t sequence, std::string_view payload) {
  const uint64_t size = kSpoolHeaderBytes + payload.size();
  if (size > std::min(max_bytes_, kMaxFileBytes)) {
    dropped_.Add();
    return base::ResourceExhausted("a window of {} bytes does not fit into a spool of {}", size,
                                   max_bytes_);
  }
  const absl::Status written =
      WriteAtomically(WindowName(sequence), EncodeSpoolHeader(payload), payload);
  if (!written.ok()) {
    // After a failed sync of the directory the file may stand there under its name.
    ::unlink(PathOf(WindowName(sequence)).c_str());
    return written;
  }
  base::MutexLock lock(mutex_);
  files_[sequence] = size;
  bytes_ += size;
  DropBeyondBound();
  ShowSize();
  return absl::OkStatus();
}

std::optional<uint64_t> Spool::Oldest() const {
  base::MutexLock lock(mutex_);
  if (files_.empty()) return std::nullopt;
  return files_.begin()->first;
}

absl::StatusOr<std::string> Spool::Read(uint64_t sequence) {
  const std::string path = PathOf(WindowName(sequence));
  absl::StatusOr<std::string> file = ReadAll(path);
  absl::StatusOr<std::string_view> payload = std::string_view();
  if (file.ok()) payload = DecodeSpoolFile(*file);
  const absl::Status status = file.ok() ? payload.status() : file.status();
  if (status.ok()) return std::string(*payload);
  if (absl::IsDataLoss(status)) {
    damaged_.Add();
    spdlog::warn("spool: dropped {}: {}", path, base::Message(status));
    Remove(sequence);
  } else if (absl::IsNotFound(status)) {
    base::MutexLock lock(mutex_);
    // Still in our list: somebody else removed it.
    if (files_.contains(sequence)) damaged_.Add();
    Forget(sequence);
    ShowSize();
  }
  return base::Annotate(status, path);
}

void Spool::Remove(uint64_t sequence) {
  ::unlink(PathOf(WindowName(sequence)).c_str());
  base::MutexLock lock(mutex_);
  Forget(sequence);
  ShowSize();
}

void Spool::Forget(uint64_t sequence) {
  const auto found = files_.find(sequence);
  if (found == files_.end()) return;
  bytes_ -= found->second;
  files_.erase(found);
}

void Spool::DropBeyondBound() {
  uint64_t count = 0;
  for (; bytes_ > max_bytes_ && !files_.empty(); ++count) {
    const uint64_t oldest = files_.begin()->first;
    ::unlink(PathOf(WindowName(oldest)).c_str());
    Forget(oldest);
  }
  if (count == 0) return;
  dropped_.Add(count);
  spdlog::warn("spool: full ({} bytes): dropped the {} oldest window(s)", max_bytes_, count);
}

void Spool::ShowSize() {
  windows_gauge_.Set(static_cast<double>(files_.size()));
  bytes_gauge_.Set(static_cast<double>(bytes_));
}

uint64_t Spool::windows() const {
  base::MutexLock lock(mutex_);
  return files_.size();
}

uint64_t Spool::bytes() const {
  base::MutexLock lock(mutex_);
  return bytes_;
}

}  // namespace firewatch::agent
