// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/file_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "base/logging.h"
#include "base/status.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;

constexpr std::array<std::string_view, 3> kKinds = {"debug", "executable", "common"};
constexpr FileKind kAllKinds[] = {FileKind::kDebug, FileKind::kExecutable, FileKind::kCommon};
constexpr std::array<std::string_view, 3> kSources = {"upload", "agent", "debuginfod"};
// Between two questions for the free space.
constexpr uint64_t kSpaceCheckBytes = uint64_t{16} << 20;
// The time of the last use is kept on disk as the file's modification time, this exactly.
constexpr int64_t kUseResolutionMs = 600'000;

absl::Status MakeDirectory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return base::ErrnoStatus(error.value(), "make directory " + path);
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return base::ErrnoStatus(errno, "sync " + path);
  return absl::OkStatus();
}

// "HEX.KIND.SOURCE".
std::optional<StoredFile> ParseName(std::string_view name) {
  const size_t first = name.find('.');
  const size_t second = name.find('.', std::min(first, name.size() - 1) + 1);
  if (first == std::string_view::npos || second == std::string_view::npos) return std::nullopt;
  StoredFile file;
  file.id = BuildId::FromHex(name.substr(0, first));
  const auto kind = ParseFileKind(name.substr(first + 1, second - first - 1));
  const auto source = std::find(kSources.begin(), kSources.end(), name.substr(second + 1));
  if (file.id.empty() || !kind || source == kSources.end()) return std::nullopt;
  file.kind = *kind;
  file.source = static_cast<FileSource>(source - kSources.begin());
  return file;
}

void SetUseTime(const std::string& path, int64_t used_ms) {
  const timespec time = {.tv_sec = used_ms / 1000, .tv_nsec = used_ms % 1000 * 1'000'000};
  const timespec times[2] = {time, time};
  (void)::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW);
}

}  // namespace

std::string_view FileKindText(FileKind kind) { return kKinds[static_cast<size_t>(kind)]; }

std::optional<FileKind> ParseFileKind(std::string_view text) {
  const auto found = std::find(kKinds.begin(), kKinds.end(), text);
  if (found == kKinds.end()) return std::nullopt;
  return static_cast<FileKind>(found - kKinds.begin());
}

std::string_view FileSourceText(FileSource source) { return kSources[static_cast<size_t>(source)]; }

IncomingFile::~IncomingFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

absl::Status IncomingFile::Write(std::string_view bytes) {
  if (bytes.size() > max_bytes_ - size_) {
    return base::ResourceExhausted("the file is larger than {} bytes", max_bytes_);
  }
  if (size_ >= next_space_check_) {
    struct statvfs space{};
    if (::fstatvfs(fd_.get(), &space) != 0) return base::ErrnoStatus(errno, "ask for free space");
    if (space.f_bavail * space.f_frsize < min_free_bytes_ + kSpaceCheckBytes) {
      return base::Unavailable("disk full: {} MiB are kept free for profiles",
                               min_free_bytes_ >> 20);
    }
    next_space_check_ = size_ + kSpaceCheckBytes;
  }
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return base::ErrnoStatus(errno, "write debug information");
    bytes.remove_prefix(static_cast<size_t>(written));
    size_ += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

FileStore::FileStore(FileStoreOptions options, const base::Clock& clock,
                     base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      clock_(clock),
      evicted_(metrics.AddCounter("firewatch_debuginfo_evicted_total",
                                  "Debug information files deleted to keep to the bound.")),
      bytes_gauge_(metrics.AddGauge("firewatch_debuginfo_bytes",
                                    "Disk that debug information files take.")) {}

absl::StatusOr<std::unique_ptr<FileStore>> FileStore::Open(FileStoreOptions options,
                                                           const base::Clock& clock,
                                                           base::MetricsRegistry& metrics) {
  auto store = std::unique_ptr<FileStore>(new FileStore(std::move(options), clock, metrics));
  RETURN_IF_ERROR(store->Load());
  return store;
}

absl::Status FileStore::Load() {
  const std::string incoming = options_.directory + "/incoming";
  const std::string files = options_.directory + "/files";
  std::error_code error;
  std::filesystem::remove_all(incoming, error);  // of a server that was killed
  RETURN_IF_ERROR(MakeDirectory(incoming));
  RETURN_IF_ERROR(MakeDirectory(files));
  base::MutexLock lock(mutex_);
  for (std::filesystem::directory_iterator it(files, error), end; !error && it != end;
       it.increment(error)) {
    auto file = ParseName(it->path().filename().native());
    struct stat info{};
    if (!file || ::lstat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    file->bytes = static_cast<uint64_t>(info.st_size);
    file->used_ms = info.st_mtim.tv_sec * 1000 + info.st_mtim.tv_nsec / 1'000'000;
    file->stored_ms = info.st_ctim.tv_sec * 1000;
    const auto [place, is_new] = files_.try_emplace({file->id, file->kind}, *file);
    if (!is_new) {  // of two sources: the newer one was meant to replace the other
      const bool newer = place->second.used_ms < file->used_ms;
      const StoredFile gone = newer ? place->second : *file;
      if (newer) place->second = *file;
      ::unlink(PathOf(gone).c_str());
      if (newer) total_bytes_ -= gone.bytes;
      if (!newer) continue;
    }
    total_bytes_ += file->bytes;
  }
  if (error) return base::ErrnoStatus(error.value(), "list " + files);
  bytes_gauge_.Set(static_cast<double>(total_bytes_));
  return absl::OkStatus();
}

std::string FileStore::PathOf(const StoredFile& file) const {
  return fmt::format("{}/files/{}.{}.{}", options_.directory, file.id.ToHex(),
                     FileKindText(file.kind), FileSourceText(file.source));
}

absl::StatusOr<std::unique_ptr<IncomingFile>> FileStore::Receive() {
  std::string path;
  {
    base::MutexLock lock(mutex_);
    path = fmt::format("{}/incoming/{}", options_.directory, next_incoming_++);
  }
  base::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return base::ErrnoStatus(errno, "make " + path);
  return std::make_unique<IncomingFile>(std::move(path), std::move(fd), options_.max_file_bytes,
                                        options_.min_free_bytes);
}

absl::Status FileStore::Publish(IncomingFile& file, const BuildId& id, FileKind kind,
                                FileSource source) {
  if (file.size() > options_.max_bytes) {
    return base::ResourceExhausted("the file is larger than all debug information may be, {} bytes",
                                   options_.max_bytes);
  }
  if (::fsync(file.fd().get()) != 0) return base::ErrnoStatus(errno, "sync debug information");
  const int64_t now_ms = clock_.Now().unix_ms();
  const StoredFile stored{.id = id,
                          .kind = kind,
                          .source = source,
                          .bytes = file.size(),
                          .stored_ms = now_ms,
                          .used_ms = now_ms};
  base::MutexLock lock(mutex_);
  MakeRoom(stored.bytes, id);
  const std::string path = PathOf(stored);
  if (::rename(file.path_.c_str(), path.c_str()) != 0) return base::ErrnoStatus(errno, path);
  file.path_.clear();
  SetUseTime(path, now_ms);
  const auto [place, is_new] = files_.try_emplace({id, kind}, stored);
  if (!is_new) {
    if (place->second.source != source) ::unlink(PathOf(place->second).c_str());
    total_bytes_ -= place->second.bytes;
    place->second = stored;
  }
  total_bytes_ += stored.bytes;
  bytes_gauge_.Set(static_cast<double>(total_bytes_));
  return SyncDirectory(options_.directory + "/files");
}

void FileStore::MakeRoom(uint64_t bytes, const BuildId& keep) {
  while (total_bytes_ + bytes > options_.max_bytes) {
    const StoredFile* oldest = nullptr;
    for (const auto& [key, file] : files_) {
      if (file.id != keep && (oldest == nullptr || file.used_ms < oldest->used_ms)) oldest = &file;
    }
    if (oldest == nullptr) return;  // only its own other kind: one id may pass the bound
    spdlog::info("debug information of {} is evicted", oldest->id.ToHex());
    evicted_.Add(static_cast<uint64_t>(RemoveLocked(BuildId(oldest->id))));
  }
}

int FileStore::RemoveLocked(const BuildId& id) {
  int removed = 0;
  for (const FileKind kind : kAllKinds) {
    const auto it = files_.find({id, kind});
    if (it == files_.end()) continue;
    ::unlink(PathOf(it->second).c_str());
    total_bytes_ -= it->second.bytes;
    files_.erase(it);
    ++removed;
  }
  bytes_gauge_.Set(static_cast<double>(total_bytes_));
  return removed;
}

int FileStore::Remove(const BuildId& id) {
  base::MutexLock lock(mutex_);
  return RemoveLocked(id);
}

base::UniqueFd FileStore::OpenFile(const BuildId& id, FileKind kind) const {
  std::string path;
  {
    base::MutexLock lock(mutex_);
    const auto it = files_.find({id, kind});
    if (it == files_.end()) return {};
    path = PathOf(it->second);
  }
  return base::UniqueFd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
}

bool FileStore::Has(const BuildId& id) const {
  base::MutexLock lock(mutex_);
  return files_.contains({id, FileKind::kDebug}) || files_.contains({id, FileKind::kExecutable});
}

bool FileStore::HasCommon(const BuildId& id) const {
  base::MutexLock lock(mutex_);
  return files_.contains({id, FileKind::kCommon});
}

void FileStore::NoteUse(const BuildId& id) {
  const int64_t now_ms = clock_.Now().unix_ms();
  base::MutexLock lock(mutex_);
  for (const FileKind kind : kAllKinds) {
    const auto it = files_.find({id, kind});
    if (it == files_.end() || now_ms - it->second.used_ms < kUseResolutionMs) continue;
    it->second.used_ms = now_ms;
    SetUseTime(PathOf(it->second), now_ms);
  }
}

std::vector<StoredFile> FileStore::List() const {
  base::MutexLock lock(mutex_);
  std::vector<StoredFile> all;
  all.reserve(files_.size());
  for (const auto& [key, file] : files_) all.push_back(file);
  return all;
}

uint64_t FileStore::total_bytes() const {
  base::MutexLock lock(mutex_);
  return total_bytes_;
}

}  // namespace firewatch::server
