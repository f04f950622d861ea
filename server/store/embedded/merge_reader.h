// SPDX-License-Identifier: Apache-2.0
// The exact merge of everything that a query selects. Per partition, blocks stream by and are
// summed by (stack id, label set id); then the distinct stacks are looked up once, and folded into
// sums by content hash over all partitions. Memory is bounded by distinct stacks, not by samples.
//
// Names: each partition gives the best it knows of a location, and the best of all partitions wins.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/hash.h"
#include "profile/profile.h"
#include "server/store/embedded/block.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/keys.h"
#include "server/store/embedded/partition_scan.h"
#include "server/store/embedded/rows.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

// One query, one thread.
class MergeReader {
 public:
  // Both must outlive the reader.
  MergeReader(const Database& database, const Query& query);
  absl::StatusOr<profile::Profile> Run();

 private:
  struct Sums {
    int64_t samples = 0;
    int64_t cpu_ns = 0;
  };
  struct MergedLocation {
    LocationRow row;  // `row.mapping` is a merged index + 1 here, or 0
    uint16_t score = 0;
    std::vector<NamesRow::Line> lines;  // `function` is a merged index here
  };
  // Sums of the partition at hand, by the partition's ids. Samples without labels, and those of
  // agents that send none, go to the flat array.
  struct PartitionSums {
    std::vector<Sums> by_stack;
    std::vector<bool> stack_seen;
    absl::flat_hash_map<uint64_t, Sums> by_stack_and_labels;  // stack << 32 | labels
  };
  // Partition id → merged index, for the ids that are in use.
  using IdMap = absl::flat_hash_map<uint32_t, uint32_t>;

  absl::Status MergePartition(const PartitionKey& partition);
  absl::Status SumBlocks(const PartitionKey& partition, const std::vector<SelectedSeries>& series);
  void AddRows(const std::vector<BlockRow>& rows);
  absl::Status NoteWindowTimes(const PartitionKey& partition,
                               const std::vector<SelectedSeries>& series);
  absl::Status FoldPartition(const PartitionKey& partition);
  absl::StatusOr<IdMap> FoldStacks(const PartitionKey& partition,
                                   const std::vector<uint32_t>& stacks);
  absl::StatusOr<IdMap> FoldLocations(const PartitionKey& partition,
                                      const std::vector<uint32_t>& locations);
  absl::Status FoldNames(const PartitionKey& partition, const std::vector<uint32_t>& locations,
                         const IdMap& merged);
  absl::StatusOr<IdMap> FoldMappings(const PartitionKey& partition,
                                     const std::vector<uint32_t>& mappings);
  absl::StatusOr<IdMap> FoldFunctions(const PartitionKey& partition,
                                      const std::vector<uint32_t>& functions);
  absl::StatusOr<IdMap> FoldLabelSets(const PartitionKey& partition,
                                      const std::vector<uint32_t>& label_sets);
  profile::Profile Build() const;

  const Database& database_;
  const Query& query_;
  Cursor cursor_;
  BlockDecoder decoder_;
  PartitionSums sums_;

  // Merged tables; the maps lead from content hash to index.
  absl::flat_hash_map<base::Hash128, uint32_t> stack_index_, location_index_, mapping_index_,
      function_index_, label_set_index_;
  std::vector<std::vector<uint32_t>> stacks_;
  std::vector<MergedLocation> locations_;
  std::vector<MappingRow> mappings_;
  std::vector<FunctionRow> functions_;
  std::vector<profile::LabelSet> label_sets_;
  absl::flat_hash_map<uint64_t, Sums> samples_;  // stack index << 32 | label set index + 1, or 0

  int64_t period_ns_ = 0;
  int64_t first_start_ms_ = INT64_MAX;
  int64_t last_end_ms_ = 0;
};

}  // namespace firewatch::server
