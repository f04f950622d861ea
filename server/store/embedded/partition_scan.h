// SPDX-License-Identifier: Apache-2.0
// How queries walk: partitions of a tenant in a time range, the series that match there, the
// series that have data in the range, and rows of a table by id.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "profile/labels.h"
#include "server/store/embedded/connections_row.h"
#include "server/store/embedded/database.h"
#include "server/store/embedded/keys.h"
#include "server/store/embedded/rows.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

// InvalidArgument: tenant name, a range that ends before it starts, an unknown sample type.
absl::Status CheckQuery(const Query& query);

// Oldest first; partitions that are not stored are skipped. Stops at the first error. `visit` may
// move the same cursor, and so sees every partition as of one moment.
absl::Status ForEachPartition(Cursor& cursor, const Query& query,
                              const std::function<absl::Status(const PartitionKey&)>& visit);

// True when every window of the partition lies in the range.
bool CoversPartition(const TimeRange& range, const PartitionKey& partition);

struct SelectedSeries {
  uint32_t id = 0;
  profile::LabelSet labels;
};
// Ascending by id.
absl::StatusOr<std::vector<SelectedSeries>> SelectSeries(Cursor& cursor,
                                                         const PartitionKey& partition,
                                                         const profile::Selector& selector);

// Every window row of the partition that starts in the range, by time.
absl::Status ForEachWindow(Cursor& cursor, const PartitionKey& partition, const TimeRange& range,
                           const std::function<void(int64_t start_ms, const WindowRow&)>& visit);

// Every connections row of the partition whose window starts in the range, by time. DataLoss names
// the key of one that `visit` calls damaged by returning false.
absl::Status ForEachConnectionsRow(
    Cursor& cursor, const PartitionKey& partition, const TimeRange& range,
    const std::function<bool(int64_t start_ms, std::string_view value)>& visit);

// The series of the partition that match and have something in the range: samples or connections.
absl::StatusOr<std::vector<SelectedSeries>> SelectActiveSeries(Cursor& cursor,
                                                               const PartitionKey& partition,
                                                               const Query& query);

// The interned rows with these ids (ascending, unique). DataLoss names the key of a missing row,
// or of one that `visit` calls damaged by returning false.
absl::Status FetchRows(Cursor& cursor, const PartitionKey& partition, RowKind kind,
                       std::span<const uint32_t> ids,
                       const std::function<bool(uint32_t id, const base::Hash128& hash,
                                                std::string_view payload)>& visit);

// The best names of these locations (ascending, unique); bare ones are left out.
absl::Status FetchNames(
    Cursor& cursor, const PartitionKey& partition, std::span<const uint32_t> locations,
    const std::function<void(uint32_t location, uint16_t score, const NamesRow& names)>& visit);

}  // namespace firewatch::server
