// SPDX-License-Identifier: Apache-2.0
// Content hash → dense 32-bit id, per table of a partition, for the partitions that are being
// written. Rebuilt from the rows when a partition is met again (after a restart, or for late data).
//
// An id may be used by several appends at once before the row that defines it is on disk, so an
// entry knows whether its row is durable: every append that uses one that is not writes the row
// again. The rows are equal, so their order does not matter, and no stored block ever points to a
// row that is not stored.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/hash.h"
#include "base/mutex.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/keys.h"

namespace firewatch::server {

struct InternedId {
  uint32_t id = 0;
  // The last append that put the row into its write set: one row per append, not one per use.
  uint32_t append = 0;
  uint16_t name_score = 0;  // locations only: the best names that are durable
  bool durable = false;
};

// The tables of one partition. Its own lock; any thread.
class PartitionTables {
 public:
  static constexpr size_t kInternedKinds = 6;  // kSeries … kStack

  explicit PartitionTables(PartitionKey key) : key_(std::move(key)) {}

  const PartitionKey& key() const { return key_; }
  base::Mutex& mutex() const ABSL_LOCK_RETURNED(mutex_) { return mutex_; }

  // Finds or makes the entry. The reference is valid until the next call or the unlock.
  InternedId& Intern(RowKind kind, const base::Hash128& hash) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A number that names an append within this partition.
  uint32_t BeginAppend() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ++last_append_; }
  // Reads the partition's rows unless done before. DataLoss names the damaged key.
  absl::Status EnsureLoaded(const Database& database) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t entry_count() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

 private:
  using Map = absl::flat_hash_map<base::Hash128, InternedId>;
  absl::Status LoadKind(Cursor& cursor, RowKind kind) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status LoadNameScores(Cursor& cursor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const PartitionKey key_;
  mutable base::Mutex mutex_;
  bool loaded_ ABSL_GUARDED_BY(mutex_) = false;
  uint32_t last_append_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<Map, kInternedKinds> maps_ ABSL_GUARDED_BY(mutex_);
  std::array<uint32_t, kInternedKinds> next_id_ ABSL_GUARDED_BY(mutex_) = {};
};

class OpenPartitions;

// Keeps a partition from being evicted or dropped while an append works on it. Movable.
class PartitionLease {
 public:
  PartitionLease(PartitionLease&& other) noexcept;
  PartitionLease& operator=(PartitionLease&&) = delete;
  ~PartitionLease();
  PartitionTables& operator*() const { return *tables_; }

 private:
  friend class OpenPartitions;
  PartitionLease(OpenPartitions* owner, PartitionTables* tables) : owner_(owner), tables_(tables) {}
  OpenPartitions* owner_;
  PartitionTables* tables_;
};

// The partitions in memory, least recently used out first once they hold more than `max_entries`
// together (some 40 bytes each). Any thread; outlives its leases.
class OpenPartitions {
 public:
  explicit OpenPartitions(size_t max_entries) : max_entries_(max_entries) {}

  // Waits while the partition is being dropped.
  PartitionLease Acquire(const PartitionKey& key) ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until nobody works on partitions up to `last_hour`, forgets them, and keeps new leases
  // for them waiting until EndDrop. One dropper at a time.
  void BeginDrop(uint32_t last_hour) ABSL_LOCKS_EXCLUDED(mutex_);
  void EndDrop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class PartitionLease;
  struct Slot {
    std::unique_ptr<PartitionTables> tables;
    int leases = 0;
    uint64_t last_used = 0;
    size_t entries = 0;  // as of the last release
  };
  void Release(PartitionTables* tables) ABSL_LOCKS_EXCLUDED(mutex_);
  void EvictBeyondBound() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AnyLeaseUpTo(uint32_t hour) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_entries_;
  base::Mutex mutex_;
  base::CondVar changed_;
  absl::flat_hash_map<PartitionKey, Slot> slots_ ABSL_GUARDED_BY(mutex_);
  std::optional<uint32_t> dropping_up_to_ ABSL_GUARDED_BY(mutex_);
  uint64_t use_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace firewatch::server
