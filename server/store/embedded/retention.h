// SPDX-License-Identifier: Apache-2.0
// Drops whole hours, oldest first: those past the age, then as many as the bound on bytes asks for.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/partition_tables.h"
#include "server/store/embedded/stats_index.h"

namespace firewatch::server {

// How many windows retention has dropped since the store was made, durable.
inline constexpr std::string_view kDroppedWindowsKey = "dropped_windows";

struct RetentionLimits {
  int64_t hours = 0;   // 0: for ever
  uint64_t bytes = 0;  // 0: no bound
};

// Any thread; one Apply at a time, others wait.
class Retention {
 public:
  // All must outlive it.
  Retention(Database& database, OpenPartitions& partitions, StatsIndex& stats,
            RetentionLimits limits, base::MetricsRegistry& metrics);

  absl::Status Apply(int64_t now_ms) ABSL_LOCKS_EXCLUDED(mutex_);
  bool OverBytes() const { return limits_.bytes != 0 && database_.DiskBytes() > limits_.bytes; }

 private:
  absl::Status ApplyAge(int64_t now_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ApplyBytes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The oldest stored hour.
  absl::StatusOr<std::optional<uint32_t>> OldestHour() const;
  // The newest of the hours that must go for `excess` bytes to be freed; none when that would be
  // the newest hour of all, unless it takes more than the bound by itself.
  absl::StatusOr<std::optional<uint32_t>> ChooseLastHour(uint64_t excess) const;
  // Every tenant's partitions up to and including `last_hour`.
  absl::Status DropUpTo(uint32_t last_hour, std::string_view why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Database& database_;
  OpenPartitions& partitions_;
  StatsIndex& stats_;
  const RetentionLimits limits_;
  base::Counter& dropped_windows_;
  base::Mutex mutex_;
};

// Windows that retention has dropped, as stored.
absl::StatusOr<uint64_t> ReadDroppedWindows(const Database& database);

}  // namespace firewatch::server
