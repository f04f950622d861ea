// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/stats_index.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "base/status.h"
#include "server/store/embedded/keys.h"

namespace firewatch::server {
namespace {

NamedCounts ToCounts(const std::map<std::string, uint64_t>& sums) {
  return {sums.begin(), sums.end()};
}

}  // namespace

absl::Status StatsIndex::Load(Cursor cursor) {
  cursor.Seek(HourPrefix(0));
  while (cursor.Valid()) {
    const std::optional<PartitionKey> partition = ParsePartition(cursor.key());
    if (!partition) break;
    const std::string prefix = KindPrefix(*partition, RowKind::kWindow);
    for (cursor.Seek(prefix); cursor.Valid() && cursor.key().starts_with(prefix); cursor.Next()) {
      const std::optional<int64_t> start_ms = ParseWindow(prefix, cursor.key());
      WindowRow row;
      if (!start_ms || !row.Decode(*start_ms, cursor.value())) {
        return base::DataLoss("row {} does not parse", HexKey(cursor.key()));
      }
      Add(*start_ms, row.end_ms, row.losses, row.stack_ends);
    }
    // Over the blocks, to the next partition: its prefix ends in a zero byte, this is the next one.
    std::string next = PartitionPrefix(*partition);
    next.back() = '\1';
    cursor.Seek(next);
  }
  return cursor.status();
}

void StatsIndex::Add(int64_t start_ms, int64_t end_ms, const NamedCounts& losses,
                     const NamedCounts& stack_ends) {
  base::MutexLock lock(mutex_);
  Hour& hour = hours_[HourOf(start_ms)];
  ++hour.windows;
  hour.oldest_ms = std::min(hour.oldest_ms, start_ms);
  hour.newest_ms = std::max(hour.newest_ms, end_ms);
  for (const auto& [name, count] : losses) hour.losses[name] += count;
  for (const auto& [name, count] : stack_ends) hour.stack_ends[name] += count;
}

uint64_t StatsIndex::WindowsUpTo(uint32_t last_hour) const {
  base::MutexLock lock(mutex_);
  uint64_t windows = 0;
  for (auto hour = hours_.begin(); hour != hours_.end() && hour->first <= last_hour; ++hour) {
    windows += hour->second.windows;
  }
  return windows;
}

void StatsIndex::DropUpTo(uint32_t last_hour) {
  base::MutexLock lock(mutex_);
  hours_.erase(hours_.begin(), hours_.upper_bound(last_hour));
}

void StatsIndex::Fill(StoreStats* stats) const {
  base::MutexLock lock(mutex_);
  std::map<std::string, uint64_t> losses;
  std::map<std::string, uint64_t> stack_ends;
  stats->windows = 0;
  for (const auto& [number, hour] : hours_) {
    stats->windows += hour.windows;
    for (const auto& [name, count] : hour.losses) losses[name] += count;
    for (const auto& [name, count] : hour.stack_ends) stack_ends[name] += count;
    stats->newest_ms = std::max(stats->newest_ms, hour.newest_ms);
  }
  stats->oldest_ms = hours_.empty() ? 0 : hours_.begin()->second.oldest_ms;
  stats->losses = ToCounts(losses);
  stats->stack_ends = ToCounts(stack_ends);
}

}  // namespace firewatch::server
