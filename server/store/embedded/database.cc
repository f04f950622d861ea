// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/database.h"

#include <rocksdb/cache.h>
#include <rocksdb/compaction_filter.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/logging.h"
#include "base/status.h"
#include "server/store/embedded/bytes.h"

namespace firewatch::server {
namespace {

constexpr std::array<const char*, kTableCount> kTableNames = {"default", "partitions", "uploads"};

rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

absl::Status ToStatus(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  if (status.IsCorruption()) return base::DataLoss("{}: {}", what, text);
  // A file size limit (EFBIG) is a full disk to us, but an ordinary I/O error to RocksDB.
  if (status.IsNoSpace() || text.find("No space left") != std::string::npos ||
      text.find("File too large") != std::string::npos ||
      text.find("quota exceeded") != std::string::npos) {
    return base::ResourceExhausted("{}: {}", what, text);
  }
  if (status.IsInvalidArgument()) return base::FailedPrecondition("{}: {}", what, text);
  return base::Unavailable("{}: {}", what, text);
}

// Drops upload ids that are older than anything an agent may still send again.
class UploadFilter final : public rocksdb::CompactionFilter {
 public:
  explicit UploadFilter(const std::atomic<int64_t>& cutoff_ms) : cutoff_ms_(cutoff_ms) {}
  const char* Name() const override { return "firewatch.uploads"; }
  bool Filter(int /*level*/, const rocksdb::Slice& /*key*/, const rocksdb::Slice& value,
              std::string* /*new_value*/, bool* /*changed*/) const override {
    ByteReader reader(ToView(value));
    const auto received_ms = static_cast<int64_t>(reader.BigEndian<uint64_t>());
    return !reader.failed() && received_ms < cutoff_ms_.load(std::memory_order_relaxed);
  }

 private:
  const std::atomic<int64_t>& cutoff_ms_;
};

// RocksDB's warnings go where ours go, for those who ask for details: what matters of them comes
// back as the status of a call, and is said once. Its own LOG file must not be: on a full disk the
// library (7.8.3 as Debian builds it, with assertions) aborts the process at the second line that
// it cannot write there.
class LogBridge final : public rocksdb::Logger {
 public:
  LogBridge() : Logger(rocksdb::WARN_LEVEL) {}
  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    std::array<char, 1024> line;
    std::vsnprintf(line.data(), line.size(), format, arguments);
    spdlog::debug("rocksdb: {}", line.data());
  }
};

rocksdb::DBOptions GlobalOptions() {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_background_jobs = 2;
  options.max_open_files = 512;
  // Three tables of different pace share the log; without a bound the slowest would keep it all.
  options.max_total_wal_size = uint64_t{48} << 20;
  options.bytes_per_sync = uint64_t{1} << 20;
  // Room allocated ahead (17 MiB per log, 4 MiB for the manifest) would count against the bound on
  // bytes, and is the first to meet a full disk.
  options.allow_fallocate = false;
  options.manifest_preallocation_size = size_t{64} << 10;
  options.info_log = std::make_shared<LogBridge>();
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  // Stops at the first record that is not whole. With every write synced, that can only be one
  // that nobody was told about (kill -9, loss of power).
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  return options;
}

rocksdb::ColumnFamilyOptions TableOptions(const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.block_size = size_t{16} << 10;
  table.cache_index_and_filter_blocks = true;  // else index blocks escape the bound
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.format_version = 5;
  rocksdb::ColumnFamilyOptions options;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.write_buffer_size = size_t{16} << 20;
  options.max_write_buffer_number = 3;
  options.target_file_size_base = uint64_t{32} << 20;
  options.max_bytes_for_level_base = uint64_t{128} << 20;
  options.level_compaction_dynamic_level_bytes = true;
  // Blocks are zstd frames already (RocksDB then keeps them as they are); the tables of names and
  // stacks are not.
  options.compression = rocksdb::kLZ4Compression;
  options.bottommost_compression = rocksdb::kZSTD;
  return options;
}

rocksdb::ColumnFamilyOptions UploadTableOptions(const std::shared_ptr<rocksdb::Cache>& cache,
                                                const rocksdb::CompactionFilter* filter) {
  rocksdb::ColumnFamilyOptions options = TableOptions(cache);
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));  // most look-ups are for new ids
  table.format_version = 5;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.write_buffer_size = size_t{4} << 20;
  options.compaction_filter = filter;
  options.periodic_compaction_seconds = 24 * 3600;  // so that the filter sees every row some day
  return options;
}

}  // namespace

struct WriteSet::Impl {
  struct Operation {
    Table table;
    bool is_range;
    std::string key, value;
  };
  std::vector<Operation> operations;
};

WriteSet::WriteSet() : impl_(std::make_unique<Impl>()) {}
WriteSet::~WriteSet() = default;

void WriteSet::Put(Table table, std::string_view key, std::string_view value) {
  impl_->operations.push_back({table, false, std::string(key), std::string(value)});
}

void WriteSet::DeleteRange(Table table, std::string_view begin, std::string_view end) {
  impl_->operations.push_back({table, true, std::string(begin), std::string(end)});
}

struct Cursor::Impl {
  std::unique_ptr<rocksdb::Iterator> iterator;
};

Cursor::Cursor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Cursor::Cursor(Cursor&&) noexcept = default;
Cursor& Cursor::operator=(Cursor&&) noexcept = default;
Cursor::~Cursor() = default;
void Cursor::Seek(std::string_view key) { impl_->iterator->Seek(ToSlice(key)); }
void Cursor::Next() { impl_->iterator->Next(); }
bool Cursor::Valid() const { return impl_->iterator->Valid(); }
std::string_view Cursor::key() const { return ToView(impl_->iterator->key()); }
std::string_view Cursor::value() const { return ToView(impl_->iterator->value()); }
absl::Status Cursor::status() const { return ToStatus(impl_->iterator->status(), "read"); }

struct Database::Impl {
  std::string directory;
  std::atomic<int64_t> upload_cutoff_ms{0};
  UploadFilter filter{upload_cutoff_ms};
  std::unique_ptr<rocksdb::DB> db;
  std::array<rocksdb::ColumnFamilyHandle*, kTableCount> handles{};
  std::atomic<bool> write_failed{false};

  rocksdb::ColumnFamilyHandle* handle(Table table) const {
    return handles[static_cast<size_t>(table)];
  }
  ~Impl() {
    if (db == nullptr) return;
    for (auto* const open : handles) {
      if (open != nullptr) db->DestroyColumnFamilyHandle(open).PermitUncheckedError();
    }
    db->Close().PermitUncheckedError();
  }
};

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::~Database() = default;

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const DatabaseOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  if (error) return base::ErrnoStatus(error.value(), "create " + options.directory);
  auto impl = std::make_unique<Impl>();
  impl->directory = options.directory;
  const auto cache = rocksdb::NewLRUCache(options.cache_bytes);
  const std::vector<rocksdb::ColumnFamilyDescriptor> tables = {
      {kTableNames[0], TableOptions(cache)},
      {kTableNames[1], TableOptions(cache)},
      {kTableNames[2], UploadTableOptions(cache, &impl->filter)}};
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status =
      rocksdb::DB::Open(GlobalOptions(), options.directory, tables, &handles, &db);
  if (!status.ok()) {
    const std::string what = "open " + options.directory;
    if (status.ToString().find("lock") != std::string::npos) {
      return base::FailedPrecondition("{}: another process has it open ({})", what,
                                      status.ToString());
    }
    return ToStatus(status, what);
  }
  impl->db.reset(db);
  CHECK(handles.size() == kTableCount);
  for (size_t i = 0; i < handles.size(); ++i) impl->handles[i] = handles[i];
  return std::unique_ptr<Database>(new Database(std::move(impl)));
}

absl::Status Database::Write(WriteSet& rows) {
  if (impl_->write_failed.load()) {
    // RocksDB refuses writes after an error of the disk until it is told that things are well. It
    // then starts a new log, so a record that was half written can never come back.
    // Busy: it is trying by itself, once a second; then the write below says how that went.
    const rocksdb::Status resumed = impl_->db->Resume();
    if (!resumed.IsBusy()) RETURN_IF_ERROR(ToStatus(resumed, "resume after a failed write"));
    impl_->write_failed.store(false);
  }
  rocksdb::WriteBatch batch;
  for (const auto& operation : rows.impl_->operations) {
    auto* const handle = impl_->handle(operation.table);
    const rocksdb::Status added = operation.is_range
                                      ? batch.DeleteRange(handle, operation.key, operation.value)
                                      : batch.Put(handle, operation.key, operation.value);
    RETURN_IF_ERROR(ToStatus(added, "prepare write"));
  }
  rocksdb::WriteOptions options;
  options.sync = true;
  const rocksdb::Status status = impl_->db->Write(options, &batch);
  if (!status.ok()) impl_->write_failed.store(true);
  return ToStatus(status, "write");
}

absl::StatusOr<std::optional<std::string>> Database::Get(Table table, std::string_view key) const {
  std::string value;
  const rocksdb::Status status =
      impl_->db->Get(rocksdb::ReadOptions(), impl_->handle(table), ToSlice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  RETURN_IF_ERROR(ToStatus(status, "read"));
  return std::optional<std::string>(std::move(value));
}

Cursor Database::NewCursor(Table table) const {
  auto impl = std::make_unique<Cursor::Impl>();
  impl->iterator.reset(impl_->db->NewIterator(rocksdb::ReadOptions(), impl_->handle(table)));
  return Cursor(std::move(impl));
}

absl::Status Database::DropFiles(Table table, std::string_view begin, std::string_view end) {
  const rocksdb::Slice first = ToSlice(begin);
  const rocksdb::Slice last = ToSlice(end);
  return ToStatus(rocksdb::DeleteFilesInRange(impl_->db.get(), impl_->handle(table), &first, &last,
                                              /*include_end=*/false),
                  "delete files");
}

absl::Status Database::Compact(Table table, std::string_view begin, std::string_view end) {
  const rocksdb::Slice first = ToSlice(begin);
  const rocksdb::Slice last = ToSlice(end);
  rocksdb::CompactRangeOptions options;
  options.exclusive_manual_compaction = false;
  return ToStatus(impl_->db->CompactRange(options, impl_->handle(table), &first, &last), "compact");
}

absl::Status Database::Flush() {
  const std::vector<rocksdb::ColumnFamilyHandle*> handles(impl_->handles.begin(),
                                                          impl_->handles.end());
  return ToStatus(impl_->db->Flush(rocksdb::FlushOptions(), handles), "flush");
}

uint64_t Database::ApproximateBytes(Table table, std::string_view begin,
                                    std::string_view end) const {
  const rocksdb::Range range(ToSlice(begin), ToSlice(end));
  rocksdb::SizeApproximationOptions options;
  options.include_memtables = true;
  options.include_files = true;
  uint64_t bytes = 0;
  const rocksdb::Status status =
      impl_->db->GetApproximateSizes(options, impl_->handle(table), &range, 1, &bytes);
  return status.ok() ? bytes : 0;
}

uint64_t Database::DiskBytes() const {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(impl_->directory, error)) {
    struct stat info{};
    // A file may go away meanwhile. Blocks, not length: what it costs.
    if (stat(entry.path().c_str(), &info) == 0)
      bytes += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  return bytes;
}

absl::StatusOr<uint64_t> Database::FreeBytes() const {
  struct statvfs info{};
  if (statvfs(impl_->directory.c_str(), &info) != 0) {
    return base::ErrnoStatus(errno, "statvfs " + impl_->directory);
  }
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

void Database::SetUploadCutoff(int64_t unix_ms) { impl_->upload_cutoff_ms.store(unix_ms); }

}  // namespace firewatch::server
