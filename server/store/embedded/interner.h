// SPDX-License-Identifier: Apache-2.0
// Turns the tables of a Profile into ids of a partition, adding to a write set the rows that the
// partition does not have on disk yet, and names that are better than the stored ones.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/hash.h"
#include "profile/profile.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/partition_tables.h"

namespace firewatch::server {

// Content hashes of what a profile's samples use: computed before any lock is taken.
struct ProfileHashes {
  std::vector<bool> stack_used;
  std::vector<base::Hash128> locations;  // of locations in used stacks
  std::vector<base::Hash128> stacks;     // of used stacks
};
ProfileHashes HashProfile(const profile::Profile& profile);

// One append. Used under the partition's lock, but for MarkDurable.
class Interner {
 public:
  // All must outlive the interner.
  Interner(PartitionTables& tables, WriteSet& rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tables.mutex());

  uint32_t InternSeries(const profile::LabelSet& labels) {
    return InternLabels(RowKind::kSeries, labels);
  }

  // What a profile's ids are called in the partition; entries of unused rows mean nothing.
  struct ProfileIds {
    std::vector<uint32_t> stacks;
    std::vector<uint32_t> label_sets;  // 0: the empty set, else id + 1
  };
  ProfileIds InternProfile(const profile::Profile& profile, const ProfileHashes& hashes);

  // After the write set is on disk.
  void MarkDurable() ABSL_LOCKS_EXCLUDED(tables_.mutex());

 private:
  struct Memo;
  // The id; when its row is not durable, the payload is made and added to the write set.
  template <typename MakePayload>
  uint32_t InternRow(RowKind kind, const base::Hash128& hash, const MakePayload& make);
  uint32_t InternLabels(RowKind kind, const profile::LabelSet& labels);
  uint32_t InternMapping(const profile::Profile& profile, profile::MappingId id, Memo& memo);
  uint32_t InternFunction(const profile::Profile& profile, profile::FunctionId id, Memo& memo);
  uint32_t InternLocation(const profile::Profile& profile, profile::LocationId id,
                          const base::Hash128& hash, Memo& memo);
  void WriteNamesIfBetter(const profile::Profile& profile, const profile::Location& location,
                          const base::Hash128& hash, uint32_t id, Memo& memo);

  PartitionTables& tables_;
  WriteSet& rows_;
  const uint32_t append_;
  std::vector<std::string> prefixes_;  // by RowKind
  std::vector<std::pair<RowKind, base::Hash128>> written_;
  absl::flat_hash_map<base::Hash128, uint16_t> names_written_;  // by location
};

}  // namespace firewatch::server
