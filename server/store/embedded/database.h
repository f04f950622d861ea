// SPDX-License-Identifier: Apache-2.0
// The one door to RocksDB: three tables (column families) with their options, atomic synced writes,
// cursors, and the mapping of its errors onto ours. No RocksDB type leaves database.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace firewatch::server {

enum class Table {
  kMeta = 0,        // a handful of rows: format version, counters, the health probe
  kPartitions = 1,  // keys.h; the profiles
  kUploads = 2,     // upload ids; rows older than the cutoff go away in compactions
};
inline constexpr int kTableCount = 3;

// Rows that become durable together. One thread.
class WriteSet {
 public:
  WriteSet();
  ~WriteSet();
  WriteSet(const WriteSet&) = delete;
  WriteSet& operator=(const WriteSet&) = delete;
  void Put(Table table, std::string_view key, std::string_view value);
  // Every key in [begin, end).
  void DeleteRange(Table table, std::string_view begin, std::string_view end);

 private:
  friend class Database;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Sees the database as it was when the cursor was made, whatever is written or dropped since. Keys
// and values are valid until the next move. Must not outlive the database. One thread.
class Cursor {
 public:
  Cursor(Cursor&&) noexcept;
  Cursor& operator=(Cursor&&) noexcept;
  ~Cursor();
  void Seek(std::string_view key);  // first key >= `key`
  void Next();
  bool Valid() const;
  std::string_view key() const;
  std::string_view value() const;
  // Why Valid() is false: OK at the end, DataLoss on damage.
  absl::Status status() const;

 private:
  friend class Database;
  struct Impl;
  explicit Cursor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct DatabaseOptions {
  std::string directory;
  uint64_t cache_bytes = uint64_t{256} << 20;
};

// Thread-safe.
class Database {
 public:
  // FailedPrecondition: another process has it open, or a newer server wrote it.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const DatabaseOptions& options);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Atomic, and on disk when it returns OK; concurrent callers share one sync. After an error of
  // the disk the next call first tries to get RocksDB going again.
  absl::Status Write(WriteSet& rows);
  // Empty optional: no such row.
  absl::StatusOr<std::optional<std::string>> Get(Table table, std::string_view key) const;
  Cursor NewCursor(Table table) const;

  // Deletes the files that lie wholly in [begin, end), whose rows were deleted before. Nobody may
  // write there meanwhile: a file goes whatever its rows are. Open cursors keep what they see.
  absl::Status DropFiles(Table table, std::string_view begin, std::string_view end);
  // Gives back the space of deleted rows in files that overlap [begin, end).
  absl::Status Compact(Table table, std::string_view begin, std::string_view end);
  // Writes what is in memory to table files and drops the log that held it.
  absl::Status Flush();
  // Rough bytes on disk and in memory of [begin, end).
  uint64_t ApproximateBytes(Table table, std::string_view begin, std::string_view end) const;
  // What the directory takes on disk, logs included.
  uint64_t DiskBytes() const;
  // Free for unprivileged writers on that file system.
  absl::StatusOr<uint64_t> FreeBytes() const;

  // Rows of kUploads whose value starts with a time (unix ms, 8 bytes big-endian) before this may
  // be dropped.
  void SetUploadCutoff(int64_t unix_ms);

 private:
  struct Impl;
  explicit Database(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::server
