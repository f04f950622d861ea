// SPDX-License-Identifier: Apache-2.0
// Append: a window becomes one write set that holds the upload's id, the rows that its partition
// lacks, one block per series, a window row and a
// row of connections. Either all of it is on disk or nothing is, so a
// retry, or a replay after kill -9, counts once.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mutex.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/partition_tables.h"
#include "server/store/embedded/stats_index.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

struct AppendResult {
  bool duplicate = false;
  uint64_t samples = 0;  // rows stored
  uint64_t edges = 0;    // of connections, stored
};

// Any thread; concurrent appends share the log's sync.
class Writer {
 public:
  // All must outlive the writer.
  Writer(Database& database, OpenPartitions& partitions, StatsIndex& stats,
         const base::Clock& clock)
      : database_(database), partitions_(partitions), stats_(stats), clock_(clock) {}

  // InvalidArgument: nothing was stored and a retry cannot help.
  absl::Status Append(const WindowBatch& batch, AppendResult* result) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status AppendNew(const WindowBatch& batch, const std::string& upload_key,
                         AppendResult* result);

  Database& database_;
  OpenPartitions& partitions_;
  StatsIndex& stats_;
  const base::Clock& clock_;
  base::Mutex mutex_;
  base::CondVar upload_done_;
  base::StringSet in_flight_ ABSL_GUARDED_BY(mutex_);  // upload keys
};

}  // namespace firewatch::server
