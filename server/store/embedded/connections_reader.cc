// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/connections_reader.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "server/store/embedded/partition_scan.h"

namespace firewatch::server {

absl::StatusOr<ConnectionReport> ReadConnections(const Database& database, const Query& query) {
  RETURN_IF_ERROR(CheckQuery(query));
  ConnectionReport report;
  ConnectionMerger merger(kMaxConnectionRows);
  Cursor cursor = database.NewCursor(Table::kPartitions);
  const auto add_partition = [&](const PartitionKey& partition) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SelectedSeries> selected,
                     SelectSeries(cursor, partition, query.selector));
    if (selected.empty()) return absl::OkStatus();
    // Labels get a handle when something has them: most series have profiles alone.
    struct Wanted {
      const profile::LabelSet* labels = nullptr;
      size_t handle = 0;
      bool has_handle = false;
    };
    absl::flat_hash_map<uint32_t, Wanted> wanted;
    for (const SelectedSeries& series : selected) wanted[series.id].labels = &series.labels;
    return ForEachConnectionsRow(
        cursor, partition, query.range, [&](int64_t start_ms, std::string_view value) {
          bool matched = false;
          const bool parsed = DecodeConnections(
              value, [&](uint32_t series) { return wanted.contains(series); },
              [&](uint32_t series, const ConnectionEdge& edge) {
                Wanted& one = wanted[series];
                if (!one.has_handle) one.handle = merger.AddLabels(*one.labels);
                one.has_handle = true;
                merger.Add(one.handle, start_ms, edge);
                matched = true;
              });
          if (matched) ++report.windows;
          return parsed;
        });
  };
  RETURN_IF_ERROR(ForEachPartition(cursor, query, add_partition));
  report.rows = std::move(merger).Finish();
  return report;
}

}  // namespace firewatch::server
