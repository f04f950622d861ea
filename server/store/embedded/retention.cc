// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/retention.h"

#include <algorithm>
#include <string>

#include "base/logging.h"
#include "base/status.h"
#include "server/store/embedded/bytes.h"
#include "server/store/embedded/keys.h"

namespace firewatch::server {
namespace {

constexpr int64_t kDayMs = 24 * kPartitionMs;
// An agent's spool holds days at most; its ids are kept for two weeks in any case.
constexpr int64_t kMinUploadIdMs = 14 * kDayMs;

}  // namespace

absl::StatusOr<uint64_t> ReadDroppedWindows(const Database& database) {
  ASSIGN_OR_RETURN(const std::optional<std::string> value,
                   database.Get(Table::kMeta, kDroppedWindowsKey));
  if (!value) return 0;
  ByteReader reader(*value);
  const uint64_t windows = reader.Varint();
  if (!reader.Complete()) return base::DataLoss("row {} does not parse", kDroppedWindowsKey);
  return windows;
}

Retention::Retention(Database& database, OpenPartitions& partitions, StatsIndex& stats,
                     RetentionLimits limits, base::MetricsRegistry& metrics)
    : database_(database),
      partitions_(partitions),
      stats_(stats),
      limits_(limits),
      dropped_windows_(metrics.AddCounter("firewatch_store_retention_dropped_windows_total",
                                          "windows that retention dropped, by age or by bytes")) {}

absl::Status Retention::Apply(int64_t now_ms) {
  base::MutexLock lock(mutex_);
  if (limits_.hours > 0) {
    const int64_t keep_ms = std::max(limits_.hours * kPartitionMs + kDayMs, kMinUploadIdMs);
    database_.SetUploadCutoff(now_ms - keep_ms);
    RETURN_IF_ERROR(ApplyAge(now_ms));
  }
  return ApplyBytes();
}

absl::Status Retention::ApplyAge(int64_t now_ms) {
  const int64_t cutoff_ms = now_ms - limits_.hours * kPartitionMs;
  if (cutoff_ms < kPartitionMs) return absl::OkStatus();
  const uint32_t last_hour = HourOf(cutoff_ms) - 1;  // the last one that ended before the cutoff
  ASSIGN_OR_RETURN(const std::optional<uint32_t> oldest, OldestHour());
  if (!oldest || *oldest > last_hour) return absl::OkStatus();
  return DropUpTo(last_hour, "age");
}

absl::Status Retention::ApplyBytes() {
  if (limits_.bytes == 0 || database_.DiskBytes() <= limits_.bytes) return absl::OkStatus();
  // The log holds again what is in memory; written out, it goes away.
  RETURN_IF_ERROR(database_.Flush());
  for (uint64_t disk_bytes = database_.DiskBytes(); disk_bytes > limits_.bytes;
       disk_bytes = database_.DiskBytes()) {
    ASSIGN_OR_RETURN(const std::optional<uint32_t> last_hour,
                     ChooseLastHour(disk_bytes - limits_.bytes));
    if (!last_hour) break;
    RETURN_IF_ERROR(DropUpTo(*last_hour, "bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<uint32_t>> Retention::ChooseLastHour(uint64_t excess) const {
  std::optional<uint32_t> chosen;
  uint64_t freed = 0;
  Cursor cursor = database_.NewCursor(Table::kPartitions);
  for (cursor.Seek(HourPrefix(0)); cursor.Valid() && freed < excess;) {
    const auto partition = ParsePartition(cursor.key());
    if (!partition) return base::DataLoss("row {} does not parse", HexKey(cursor.key()));
    const uint32_t hour = partition->hour;
    const std::string next = HourPrefix(hour + 1);
    const uint64_t bytes = database_.ApproximateBytes(Table::kPartitions, HourPrefix(hour), next);
    cursor.Seek(next);
    // Some of what the directory takes is not profiles (logs, upload ids): the newest hour is not
    // given up for that.
    if (!cursor.Valid() && bytes <= limits_.bytes) break;
    chosen = hour;
    freed += bytes;
  }
  RETURN_IF_ERROR(cursor.status());
  return chosen;
}

absl::StatusOr<std::optional<uint32_t>> Retention::OldestHour() const {
  Cursor cursor = database_.NewCursor(Table::kPartitions);
  cursor.Seek(HourPrefix(0));
  RETURN_IF_ERROR(cursor.status());
  if (!cursor.Valid()) return std::optional<uint32_t>();
  const auto partition = ParsePartition(cursor.key());
  if (!partition) return base::DataLoss("row {} does not parse", HexKey(cursor.key()));
  return std::optional<uint32_t>(partition->hour);
}

absl::Status Retention::DropUpTo(uint32_t last_hour, std::string_view why) {
  const std::string begin = HourPrefix(0);
  const std::string end = HourPrefix(last_hour + 1);
  partitions_.BeginDrop(last_hour);
  const uint64_t windows = stats_.WindowsUpTo(last_hour);
  absl::StatusOr<uint64_t> before = ReadDroppedWindows(database_);
  absl::Status status = before.status();
  if (status.ok()) {
    WriteSet rows;
    std::string count;
    PutVarint(count, *before + windows);
    rows.DeleteRange(Table::kPartitions, begin, end);
    rows.Put(Table::kMeta, kDroppedWindowsKey, count);
    status = database_.Write(rows);
  }
  if (status.ok()) {
    stats_.DropUpTo(last_hour);
    // Before anybody may write there again (late windows, after a drop by bytes).
    status = database_.DropFiles(Table::kPartitions, begin, end);
  }
  partitions_.EndDrop();
  RETURN_IF_ERROR(base::Annotate(status, "retention"));
  dropped_windows_.Add(windows);
  spdlog::info("retention by {} dropped {} windows up to hour {}", why, windows, last_hour);
  return base::Annotate(database_.Compact(Table::kPartitions, begin, end), "retention");
}

}  // namespace firewatch::server
