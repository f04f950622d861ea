// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/index_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr std::string_view kIndexSuffix = ".fwsym";
constexpr std::string_view kTableSuffix = ".fwunw";
constexpr std::string_view kTemporary = ".tmp-";
constexpr time_t kTemporaryMaxAgeSeconds = 3600;
constexpr size_t kCopyBytes = size_t{256} << 10;

// What the two kinds of file differ in.
struct IndexKind {
  static constexpr std::string_view kSuffix = kIndexSuffix;
  static absl::Status Parse(MappedIndex* mapped) {
    ASSIGN_OR_RETURN(mapped->index, SymbolIndex::Parse(mapped->file.bytes()));
    // The check touched every page; lookups need few of them.
    const auto bytes = mapped->file.bytes();
    ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_DONTNEED);
    ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_RANDOM);
    return absl::OkStatus();
  }
  static const BuildId& IdOf(const MappedIndex& mapped) { return mapped.index.id(); }
};
struct TableKind {
  static constexpr std::string_view kSuffix = kTableSuffix;
  static absl::Status Parse(MappedUnwindTable* mapped) {
    ASSIGN_OR_RETURN(mapped->table, UnwindTable::Parse(mapped->file.bytes()));
    return absl::OkStatus();
  }
  static const BuildId& IdOf(const MappedUnwindTable& mapped) { return mapped.table.build_id(); }
};
template <typename T>
using KindOf = std::conditional_t<std::is_same_v<T, MappedIndex>, IndexKind, TableKind>;

template <typename T>
absl::StatusOr<T> Map(int fd, const std::string& name) {
  T mapped;
  ASSIGN_OR_RETURN(mapped.file, base::MappedFile::FromFd(fd, name));
  RETURN_IF_ERROR(KindOf<T>::Parse(&mapped));
  return mapped;
}

// Reads by offset until the end of `from`; `from` may be changed by others meanwhile.
absl::Status Copy(int from, int to) {
  std::vector<char> buffer(kCopyBytes);
  for (off_t offset = 0;;) {
    const ssize_t got = ::pread(from, buffer.data(), buffer.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read what the helper wrote");
    if (got == 0) return absl::OkStatus();
    for (ssize_t done = 0; done < got;) {
      const ssize_t put =
          ::pwrite(to, buffer.data() + done, static_cast<size_t>(got - done), offset + done);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) return base::ErrnoStatus(errno, "write to the symbol cache");
      done += put;
    }
    offset += got;
  }
}

std::string TemporaryRoot() {
  const char* root = std::getenv("TMPDIR");
  return root != nullptr && *root != '\0' ? root : "/tmp";
}

struct CacheFile {
  std::string name;
  uint64_t bytes = 0;
  struct timespec used{};
};

std::vector<CacheFile> List(const std::string& directory) {
  std::vector<CacheFile> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    struct stat info{};
    if (::lstat(entry.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    files.push_back({.name = entry.path().filename().string(),
                     .bytes = static_cast<uint64_t>(info.st_blocks) * 512,
                     .used = info.st_mtim});
  }
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<IndexCache>> IndexCache::Open(const std::string& directory,
                                                             uint64_t max_bytes) {
  std::string path = directory;
  if (path.empty()) {
    path = TemporaryRoot() + "/firewatch-symbols-XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) {
      return base::ErrnoStatus(errno, fmt::format("make {}", path));
    }
  } else {
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
      return base::ErrnoStatus(errno, fmt::format("make symbol cache {}", path));
    }
  }
  std::unique_ptr<IndexCache> cache(new IndexCache(path, max_bytes, directory.empty()));
  // Says now, not at the first file, when the directory cannot be written.
  RETURN_IF_ERROR(cache->NewScratch().status());
  cache->Evict("");
  return cache;
}

IndexCache::~IndexCache() {
  std::error_code ignored;
  if (private_) std::filesystem::remove_all(directory_, ignored);
}

template <typename T>
absl::StatusOr<T> IndexCache::FindFile(std::string_view key) {
  const std::string path = fmt::format("{}/{}{}", directory_, key, KindOf<T>::kSuffix);
  base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open {}", path));
  auto mapped = Map<T>(fd.get(), path);
  if (!mapped.ok()) {
    ++corrupt_files_;
    ::unlink(path.c_str());
    return base::NotFound("{}: {}", path, base::Message(mapped.status()));
  }
  ::futimens(fd.get(), nullptr);  // the time of last use, for Evict
  return mapped;
}

absl::StatusOr<base::UniqueFd> IndexCache::NewScratch() {
  base::UniqueFd fd(::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  // Not every file system has O_TMPFILE.
  std::string path = fmt::format("{}/{}XXXXXX", directory_, kTemporary);
  fd.Reset(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("make {}", path));
  ::unlink(path.c_str());
  return fd;
}

template <typename T>
absl::StatusOr<T> IndexCache::AdoptFile(std::string_view key, const BuildId& id, int scratch_fd) {
  std::string temporary = fmt::format("{}/{}XXXXXX", directory_, kTemporary);
  base::UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("make {}", temporary));
  const auto give_up = [&](absl::Status status) {
    ::unlink(temporary.c_str());
    return status;
  };
  if (absl::Status copied = Copy(scratch_fd, fd.get()); !copied.ok()) return give_up(copied);
  auto mapped = Map<T>(fd.get(), temporary);
  if (!mapped.ok()) return give_up(mapped.status());
  if (KindOf<T>::IdOf(*mapped) != id) return give_up(base::DataLoss("{}: wrong id", key));
  // No fsync: after a power failure the checksums find a torn file and it is built again.
  const std::string name = fmt::format("{}{}", key, KindOf<T>::kSuffix);
  const std::string path = fmt::format("{}/{}", directory_, name);
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return give_up(base::ErrnoStatus(errno, fmt::format("rename to {}", path)));
  }
  total_bytes_ += mapped->file.bytes().size();
  if (total_bytes_ > max_bytes_) Evict(name);
  return mapped;
}

absl::StatusOr<MappedIndex> IndexCache::Find(std::string_view key) {
  return FindFile<MappedIndex>(key);
}
absl::StatusOr<MappedUnwindTable> IndexCache::FindTable(std::string_view key) {
  return FindFile<MappedUnwindTable>(key);
}
absl::StatusOr<MappedIndex> IndexCache::Adopt(std::string_view key, const BuildId& id,
                                              int scratch_fd) {
  return AdoptFile<MappedIndex>(key, id, scratch_fd);
}
absl::StatusOr<MappedUnwindTable> IndexCache::AdoptTable(std::string_view key, const BuildId& id,
                                                         int scratch_fd) {
  return AdoptFile<MappedUnwindTable>(key, id, scratch_fd);
}

void IndexCache::Evict(const std::string& keep) {
  std::vector<CacheFile> files = List(directory_);
  const time_t now = ::time(nullptr);
  total_bytes_ = 0;
  for (CacheFile& file : files) {
    if (file.name.starts_with(kTemporary) && now - file.used.tv_sec > kTemporaryMaxAgeSeconds) {
      ::unlink(fmt::format("{}/{}", directory_, file.name).c_str());
      file.bytes = 0;
    }
    total_bytes_ += file.bytes;
  }
  if (total_bytes_ <= max_bytes_) return;
  std::sort(files.begin(), files.end(), [](const CacheFile& a, const CacheFile& b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) < std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  // A tenth of room, so that a full directory is not listed again for every new file.
  const uint64_t goal = max_bytes_ - max_bytes_ / 10;
  for (const CacheFile& file : files) {
    if (total_bytes_ <= goal) break;
    const bool ours = file.name.ends_with(kIndexSuffix) || file.name.ends_with(kTableSuffix);
    if (!ours || file.name == keep) continue;
    if (::unlink(fmt::format("{}/{}", directory_, file.name).c_str()) != 0) continue;
    total_bytes_ -= std::min(total_bytes_, file.bytes);
    ++evicted_files_;
  }
}

}  // namespace firewatch::symbolizer
