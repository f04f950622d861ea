// SPDX-License-Identifier: Apache-2.0
// Files with debug information, by build id, in one directory (docs/formats.md, "Debug information
// files"):
//   DIR/files/HEX.KIND.SOURCE     whole files; a name appears by rename, after fsync
//   DIR/incoming/                 what is being received; emptied at start
// Bounded in bytes: the build id that was used least recently goes first. Nothing here is parsed.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "symbolizer/file_identity.h"

namespace firewatch::server {

// kCommon: what several debug files share (common_files.h).
enum class FileKind : uint8_t { kDebug, kExecutable, kCommon };
std::string_view FileKindText(FileKind kind);  // "debug", "executable", "common"
std::optional<FileKind> ParseFileKind(std::string_view text);

enum class FileSource : uint8_t { kUpload, kAgent, kDebuginfod };
std::string_view FileSourceText(FileSource source);  // "upload", "agent", "debuginfod"

struct StoredFile {
  symbolizer::BuildId id;
  FileKind kind = FileKind::kDebug;
  FileSource source = FileSource::kUpload;
  uint64_t bytes = 0;
  int64_t stored_ms = 0;
  int64_t used_ms = 0;
};

struct FileStoreOptions {
  std::string directory;
  uint64_t max_bytes = uint64_t{10} << 30;
  uint64_t max_file_bytes = uint64_t{4} << 30;
  uint64_t min_free_bytes = uint64_t{512} << 20;  // of the file system: kept for the profiles
};

// A file that is being received. Deleted by the destructor unless published. One thread.
class IncomingFile {
 public:
  IncomingFile(std::string path, base::UniqueFd fd, uint64_t max_bytes, uint64_t min_free_bytes)
      : path_(std::move(path)),
        fd_(std::move(fd)),
        max_bytes_(max_bytes),
        min_free_bytes_(min_free_bytes) {}
  ~IncomingFile();
  IncomingFile(const IncomingFile&) = delete;
  IncomingFile& operator=(const IncomingFile&) = delete;

  // ResourceExhausted: larger than one file may be; Unavailable or ResourceExhausted: the disk.
  absl::Status Write(std::string_view bytes);
  const base::UniqueFd& fd() const { return fd_; }
  uint64_t size() const { return size_; }

 private:
  friend class FileStore;
  std::string path_;  // "" once published
  base::UniqueFd fd_;
  const uint64_t max_bytes_;
  const uint64_t min_free_bytes_;
  uint64_t size_ = 0;
  uint64_t next_space_check_ = 0;
};

// Any thread.
class FileStore {
 public:
  // Makes the directories, lists what is there. `clock` and `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<FileStore>> Open(FileStoreOptions options,
                                                         const base::Clock& clock,
                                                         base::MetricsRegistry& metrics);

  absl::StatusOr<std::unique_ptr<IncomingFile>> Receive() ABSL_LOCKS_EXCLUDED(mutex_);
  // On disk under its name when it returns OK; replaces the one of that id and kind. Evicts.
  absl::Status Publish(IncomingFile& file, const symbolizer::BuildId& id, FileKind kind,
                       FileSource source) ABSL_LOCKS_EXCLUDED(mutex_);

  // An invalid descriptor when there is none.
  base::UniqueFd OpenFile(const symbolizer::BuildId& id, FileKind kind) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Of which names can be made.
  bool Has(const symbolizer::BuildId& id) const ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasCommon(const symbolizer::BuildId& id) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Keeps it from being evicted first.
  void NoteUse(const symbolizer::BuildId& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // How many files went.
  int Remove(const symbolizer::BuildId& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Sorted by id and kind.
  std::vector<StoredFile> List() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t total_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  const FileStoreOptions& options() const { return options_; }

 private:
  using Key = std::pair<symbolizer::BuildId, FileKind>;
  FileStore(FileStoreOptions options, const base::Clock& clock, base::MetricsRegistry& metrics);
  absl::Status Load();
  std::string PathOf(const StoredFile& file) const;
  void MakeRoom(uint64_t bytes, const symbolizer::BuildId& keep)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int RemoveLocked(const symbolizer::BuildId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const FileStoreOptions options_;
  const base::Clock& clock_;
  base::Counter& evicted_;
  base::Gauge& bytes_gauge_;
  mutable base::Mutex mutex_;
  std::map<Key, StoredFile> files_ ABSL_GUARDED_BY(mutex_);
  uint64_t total_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t next_incoming_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace firewatch::server
