// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/partition_tables.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "server/store/embedded/rows.h"

namespace firewatch::server {
namespace {

size_t IndexOf(RowKind kind) {
  const auto index = static_cast<size_t>(kind) - 1;
  CHECK(index < PartitionTables::kInternedKinds);
  return index;
}

}  // namespace

InternedId& PartitionTables::Intern(RowKind kind, const base::Hash128& hash) {
  const size_t index = IndexOf(kind);
  const auto [entry, is_new] = maps_[index].try_emplace(hash);
  if (is_new) entry->second.id = next_id_[index]++;
  return entry->second;
}

absl::Status PartitionTables::EnsureLoaded(const Database& database) {
  if (loaded_) return absl::OkStatus();
  Cursor cursor = database.NewCursor(Table::kPartitions);
  for (const RowKind kind : {RowKind::kSeries, RowKind::kLabelSet, RowKind::kMapping,
                             RowKind::kFunction, RowKind::kLocation, RowKind::kStack}) {
    RETURN_IF_ERROR(LoadKind(cursor, kind));
  }
  RETURN_IF_ERROR(LoadNameScores(cursor));
  loaded_ = true;
  return absl::OkStatus();
}

absl::Status PartitionTables::LoadKind(Cursor& cursor, RowKind kind) {
  const size_t index = IndexOf(kind);
  maps_[index].clear();
  next_id_[index] = 0;
  const std::string prefix = KindPrefix(key_, kind);
  for (cursor.Seek(prefix); cursor.Valid() && cursor.key().starts_with(prefix); cursor.Next()) {
    const auto id = ParseId(prefix, cursor.key());
    base::Hash128 hash;
    std::string_view payload;
    if (!id || !DecodeInterned(cursor.value(), &hash, &payload)) {
      return base::DataLoss("row {} does not parse", HexKey(cursor.key()));
    }
    // Two ids for one hash cannot come from us; the first one stays.
    maps_[index].try_emplace(hash, InternedId{.id = *id, .durable = true});
    next_id_[index] = std::max(next_id_[index], *id + 1);
  }
  return cursor.status();
}

absl::Status PartitionTables::LoadNameScores(Cursor& cursor) {
  absl::flat_hash_map<uint32_t, uint16_t> scores;
  const std::string prefix = KindPrefix(key_, RowKind::kNames);
  for (cursor.Seek(prefix); cursor.Valid() && cursor.key().starts_with(prefix); cursor.Next()) {
    const auto parts = ParseNames(prefix, cursor.key());
    if (!parts) return base::DataLoss("row {} does not parse", HexKey(cursor.key()));
    scores.try_emplace(parts->location, parts->score);  // the best comes first
  }
  for (auto& [hash, entry] : maps_[IndexOf(RowKind::kLocation)]) {
    if (const auto score = scores.find(entry.id); score != scores.end()) {
      entry.name_score = score->second;
    }
  }
  return cursor.status();
}

size_t PartitionTables::entry_count() const {
  size_t count = 0;
  for (const Map& map : maps_) count += map.size();
  return count;
}

PartitionLease::PartitionLease(PartitionLease&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)), tables_(other.tables_) {}

PartitionLease::~PartitionLease() {
  if (owner_ != nullptr) owner_->Release(tables_);
}

PartitionLease OpenPartitions::Acquire(const PartitionKey& key) {
  base::MutexLock lock(mutex_);
  while (dropping_up_to_ && key.hour <= *dropping_up_to_) changed_.Wait(mutex_);
  Slot& slot = slots_[key];
  if (slot.tables == nullptr) slot.tables = std::make_unique<PartitionTables>(key);
  ++slot.leases;
  slot.last_used = ++use_;
  return {this, slot.tables.get()};
}

void OpenPartitions::Release(PartitionTables* tables) {
  size_t entries = 0;
  {
    base::MutexLock lock(tables->mutex());
    entries = tables->entry_count();
  }
  base::MutexLock lock(mutex_);
  Slot& slot = slots_[tables->key()];
  CHECK(slot.tables.get() == tables && slot.leases > 0);
  --slot.leases;
  slot.entries = entries;
  EvictBeyondBound();
  changed_.NotifyAll();
}

void OpenPartitions::EvictBeyondBound() {
  size_t total = 0;
  for (const auto& [key, slot] : slots_) total += slot.entries;
  while (total > max_entries_) {
    auto oldest = slots_.end();
    for (auto slot = slots_.begin(); slot != slots_.end(); ++slot) {
      if (slot->second.leases > 0 || slot->second.last_used == use_) continue;
      if (oldest == slots_.end() || slot->second.last_used < oldest->second.last_used)
        oldest = slot;
    }
    if (oldest == slots_.end()) return;  // the newest stays, however large it is
    total -= oldest->second.entries;
    slots_.erase(oldest);
  }
}

bool OpenPartitions::AnyLeaseUpTo(uint32_t hour) const {
  return std::ranges::any_of(slots_, [hour](const auto& entry) {
    return entry.first.hour <= hour && entry.second.leases > 0;
  });
}

void OpenPartitions::BeginDrop(uint32_t last_hour) {
  base::MutexLock lock(mutex_);
  CHECK(!dropping_up_to_);
  dropping_up_to_ = last_hour;
  while (AnyLeaseUpTo(last_hour)) changed_.Wait(mutex_);
  for (auto slot = slots_.begin(); slot != slots_.end();) {
    const auto current = slot++;
    if (current->first.hour <= last_hour) slots_.erase(current);
  }
}

void OpenPartitions::EndDrop() {
  base::MutexLock lock(mutex_);
  dropping_up_to_.reset();
  changed_.NotifyAll();
}

}  // namespace firewatch::server
