// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/partition_scan.h"
#include "server/store/tenant.h"

#include <algorithm>
#include <string>

#include "base/status.h"

namespace firewatch::server {
namespace {

// A seek costs as much as some ten steps, so a near row is walked to.
constexpr int kStepsBeforeSeek = 8;

absl::Status Damaged(std::string_view key) {
  return base::DataLoss("row {} does not parse", HexKey(key));
}

void AdvanceTo(Cursor& cursor, std::string_view target, bool positioned) {
  if (positioned) {
    for (int step = 0; step < kStepsBeforeSeek && cursor.Valid(); ++step) {
      if (cursor.key() >= target) return;
      cursor.Next();
    }
    if (!cursor.Valid() || cursor.key() >= target) return;
  }
  cursor.Seek(target);
}

int64_t ClampedEnd(const TimeRange& range) { return std::max<int64_t>(range.to_ms, 0); }

}  // namespace

absl::Status CheckQuery(const Query& query) {
  if (!IsValidTenant(query.tenant.value)) {
    return base::InvalidArgument("tenant name is not 1 to 64 of [A-Za-z0-9_.-]");
  }
  if (query.range.to_ms < query.range.from_ms) {
    return base::InvalidArgument("the range ends ({} ms) before it starts ({} ms)",
                                 query.range.to_ms, query.range.from_ms);
  }
  if (query.sample_type != "samples" && query.sample_type != "cpu") {
    return base::InvalidArgument("unknown sample type \"{}\": this store has samples and cpu",
                                 query.sample_type.substr(0, 64));
  }
  return absl::OkStatus();
}

absl::Status ForEachPartition(Cursor& cursor, const Query& query,
                              const std::function<absl::Status(const PartitionKey&)>& visit) {
  if (ClampedEnd(query.range) <= std::max<int64_t>(query.range.from_ms, 0)) return absl::OkStatus();
  PartitionKey wanted{.hour = HourOf(query.range.from_ms), .tenant = query.tenant.value};
  const uint32_t last_hour = HourOf(query.range.to_ms - 1);
  while (wanted.hour <= last_hour) {
    cursor.Seek(PartitionPrefix(wanted));
    if (!cursor.Valid()) return cursor.status();
    const std::optional<PartitionKey> found = ParsePartition(cursor.key());
    if (!found) return Damaged(cursor.key());
    if (*found == wanted) RETURN_IF_ERROR(visit(wanted));
    if (found->hour > wanted.hour) {
      wanted.hour = found->hour;  // over a gap
    } else if (wanted.hour++ == UINT32_MAX) {
      break;
    }
  }
  return absl::OkStatus();
}

bool CoversPartition(const TimeRange& range, const PartitionKey& partition) {
  const int64_t start = int64_t{partition.hour} * kPartitionMs;
  return range.from_ms <= start && range.to_ms >= start + kPartitionMs;
}

absl::StatusOr<std::vector<SelectedSeries>> SelectSeries(Cursor& cursor,
                                                         const PartitionKey& partition,
                                                         const profile::Selector& selector) {
  std::vector<SelectedSeries> selected;
  const std::string prefix = KindPrefix(partition, RowKind::kSeries);
  for (cursor.Seek(prefix); cursor.Valid() && cursor.key().starts_with(prefix); cursor.Next()) {
    const std::optional<uint32_t> id = ParseId(prefix, cursor.key());
    base::Hash128 hash;
    std::string_view payload;
    if (!id || !DecodeInterned(cursor.value(), &hash, &payload)) return Damaged(cursor.key());
    absl::StatusOr<profile::LabelSet> labels = profile::LabelSet::Decode(payload);
    if (!labels.ok()) return Damaged(cursor.key());
    if (selector.Matches(*labels)) selected.push_back({*id, *std::move(labels)});
  }
  RETURN_IF_ERROR(cursor.status());
  return selected;
}

absl::Status ForEachWindow(Cursor& cursor, const PartitionKey& partition, const TimeRange& range,
                           const std::function<void(int64_t start_ms, const WindowRow&)>& visit) {
  const std::string prefix = KindPrefix(partition, RowKind::kWindow);
  WindowRow row;
  for (cursor.Seek(WindowKey(prefix, std::max<int64_t>(range.from_ms, 0), 0));
       cursor.Valid() && cursor.key().starts_with(prefix); cursor.Next()) {
    const std::optional<int64_t> start_ms = ParseWindow(prefix, cursor.key());
    if (!start_ms) return Damaged(cursor.key());
    if (*start_ms >= range.to_ms) break;
    if (!row.Decode(*start_ms, cursor.value())) return Damaged(cursor.key());
    visit(*start_ms, row);
  }
  return cursor.status();
}

absl::Status ForEachConnectionsRow(
    Cursor& cursor, const PartitionKey& partition, const TimeRange& range,
    const std::function<bool(int64_t start_ms, std::string_view value)>& visit) {
  const std::string prefix = KindPrefix(partition, RowKind::kConnections);
  for (cursor.Seek(WindowKey(prefix, std::max<int64_t>(range.from_ms, 0), 0));
       cursor.Valid() && cursor.key().starts_with(prefix); cursor.Next()) {
    const std::optional<int64_t> start_ms = ParseWindow(prefix, cursor.key());
    if (!start_ms) return Damaged(cursor.key());
    if (*start_ms >= range.to_ms) break;
    if (!visit(*start_ms, cursor.value())) return Damaged(cursor.key());
  }
  return cursor.status();
}

absl::StatusOr<std::vector<SelectedSeries>> SelectActiveSeries(Cursor& cursor,
                                                               const PartitionKey& partition,
                                                               const Query& query) {
  ASSIGN_OR_RETURN(std::vector<SelectedSeries> selected,
                   SelectSeries(cursor, partition, query.selector));
  if (selected.empty() || CoversPartition(query.range, partition)) return selected;
  absl::flat_hash_set<uint32_t> active;
  RETURN_IF_ERROR(ForEachWindow(cursor, partition, query.range,
                                [&active](int64_t /*start_ms*/, const WindowRow& row) {
                                  for (const auto& total : row.totals) active.insert(total.series);
                                }));
  RETURN_IF_ERROR(ForEachConnectionsRow(
      cursor, partition, query.range, [&active](int64_t /*start_ms*/, std::string_view value) {
        const auto note = [&active](uint32_t series) {
          active.insert(series);
          return false;  // who has edges is all that is asked for
        };
        return DecodeConnections(value, note, [](uint32_t, const ConnectionEdge&) {});
      }));
  std::erase_if(selected, [&active](const auto& series) { return !active.contains(series.id); });
  return selected;
}

absl::Status FetchRows(Cursor& cursor, const PartitionKey& partition, RowKind kind,
                       std::span<const uint32_t> ids,
                       const std::function<bool(uint32_t id, const base::Hash128& hash,
                                                std::string_view payload)>& visit) {
  const std::string prefix = KindPrefix(partition, kind);
  bool positioned = false;
  for (const uint32_t id : ids) {
    const std::string key = IdKey(prefix, id);
    AdvanceTo(cursor, key, positioned);
    positioned = true;
    if (!cursor.Valid() || cursor.key() != key) {
      RETURN_IF_ERROR(cursor.status());
      return base::DataLoss("row {} is missing", HexKey(key));
    }
    base::Hash128 hash;
    std::string_view payload;
    if (!DecodeInterned(cursor.value(), &hash, &payload) || !visit(id, hash, payload)) {
      return Damaged(key);
    }
  }
  return absl::OkStatus();
}

absl::Status FetchNames(
    Cursor& cursor, const PartitionKey& partition, std::span<const uint32_t> locations,
    const std::function<void(uint32_t location, uint16_t score, const NamesRow& names)>& visit) {
  const std::string prefix = KindPrefix(partition, RowKind::kNames);
  bool positioned = false;
  NamesRow names;
  for (const uint32_t location : locations) {
    AdvanceTo(cursor, NamesKey(prefix, location, UINT16_MAX), positioned);
    positioned = true;
    if (!cursor.Valid()) break;
    const std::optional<NamesKeyParts> parts = ParseNames(prefix, cursor.key());
    if (!parts && cursor.key().starts_with(prefix)) return Damaged(cursor.key());
    if (!parts || parts->location != location) continue;
    if (!names.Decode(cursor.value())) return Damaged(cursor.key());
    visit(location, parts->score, names);
  }
  return cursor.status();
}

}  // namespace firewatch::server
