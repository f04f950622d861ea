// SPDX-License-Identifier: Apache-2.0
// Sums of what is stored, per hour: windows, losses, how stacks ended, first and last time. Kept in
// memory; rebuilt from the window rows when the store is opened.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/rows.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

// Any thread.
class StatsIndex {
 public:
  // Adds every window row that `cursor` sees. Appends that come later may be added meanwhile.
  absl::Status Load(Cursor cursor) ABSL_LOCKS_EXCLUDED(mutex_);
  void Add(int64_t start_ms, int64_t end_ms, const NamedCounts& losses,
           const NamedCounts& stack_ends) ABSL_LOCKS_EXCLUDED(mutex_);

  uint64_t WindowsUpTo(uint32_t last_hour) const ABSL_LOCKS_EXCLUDED(mutex_);
  void DropUpTo(uint32_t last_hour) ABSL_LOCKS_EXCLUDED(mutex_);

  // Fills in windows, oldest_ms, newest_ms, losses and stack_ends.
  void Fill(StoreStats* stats) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Hour {
    uint64_t windows = 0;
    int64_t oldest_ms = INT64_MAX;
    int64_t newest_ms = 0;
    std::map<std::string, uint64_t> losses, stack_ends;
  };
  mutable base::Mutex mutex_;
  std::map<uint32_t, Hour> hours_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::server
