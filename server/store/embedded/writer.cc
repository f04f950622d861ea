// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/writer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/store/embedded/block.h"
#include "server/store/embedded/bytes.h"
#include "server/store/embedded/connections_row.h"
#include "server/store/embedded/interner.h"
#include "server/store/embedded/rows.h"
#include "server/store/tenant.h"

namespace firewatch::server {
namespace {

// A series' rows, gathered from every profile of the window that carries its labels.
struct SeriesRows {
  std::vector<BlockRow> rows;
  int64_t period_ns = 0;
};

// Where our two sample types stand in a profile; -1: absent, counted as 0.
struct TypeIndex {
  int samples = -1;
  int cpu = -1;
};

struct PreparedProfile {
  TypeIndex types;
  int64_t period_ns = 0;
  ProfileHashes hashes;
};

absl::Status CheckBatch(const WindowBatch& batch) {
  if (!IsValidTenant(batch.tenant.value)) {
    return base::InvalidArgument("tenant name is not 1 to 64 of [A-Za-z0-9_.-]");
  }
  if (batch.upload.agent_id.size() != 16) {
    return base::InvalidArgument("agent id has {} bytes, not 16", batch.upload.agent_id.size());
  }
  if (batch.window.from_ms < 0 || batch.window.to_ms < batch.window.from_ms) {
    return base::InvalidArgument("window from {} to {} ms is no time range", batch.window.from_ms,
                                 batch.window.to_ms);
  }
  for (const SeriesConnections& series : batch.connections) {
    if (!std::ranges::all_of(series.edges, IsValidEdge)) {
      return base::InvalidArgument(
          "a connection has no role, or an address or counts that make "
          "no sense");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSamples(const profile::Profile& profile) {
  for (const profile::Sample& sample : profile.samples) {
    if (sample.stack.index() >= profile.stacks.size() ||
        sample.labels.index() >= profile.label_sets.size() ||
        sample.values.size() != profile.sample_types.size()) {
      return base::InvalidArgument("a sample points outside of its profile");
    }
    for (const int64_t value : sample.values) {
      if (value < 0) return base::InvalidArgument("a sample has the negative value {}", value);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<PreparedProfile> Prepare(const profile::Profile& profile) {
  RETURN_IF_ERROR(CheckSamples(profile));
  PreparedProfile prepared;
  prepared.types = {.samples = profile.FindSampleType("samples"),
                    .cpu = profile.FindSampleType("cpu")};
  if (prepared.types.samples < 0 && prepared.types.cpu < 0) {
    return base::InvalidArgument("profile has neither of the sample types samples and cpu");
  }
  if (profile.period_type.unit == "nanoseconds" && profile.period > 0) {
    prepared.period_ns = profile.period;
  }
  prepared.hashes = HashProfile(profile);
  return prepared;
}

void GatherRows(const profile::Profile& profile, const PreparedProfile& prepared,
                const Interner::ProfileIds& ids, SeriesRows& series) {
  series.period_ns = std::max(series.period_ns, prepared.period_ns);
  series.rows.reserve(series.rows.size() + profile.samples.size());
  const auto value = [](const profile::Sample& sample, int index) {
    return index < 0 ? 0 : sample.values[static_cast<size_t>(index)];
  };
  for (const profile::Sample& sample : profile.samples) {
    series.rows.push_back({.stack = ids.stacks[sample.stack.index()],
                           .labels = ids.label_sets[sample.labels.index()],
                           .samples = value(sample, prepared.types.samples),
                           .cpu_ns = value(sample, prepared.types.cpu)});
  }
}

void WriteConnections(const WindowBatch& batch, const PartitionKey& partition,
                      const std::string& upload_key, EdgesBySeries& connections, WriteSet& rows,
                      AppendResult* result) {
  if (connections.empty()) return;
  for (auto& [series, edges] : connections) {
    NormalizeEdges(edges);
    result->edges += edges.size();
  }
  rows.Put(Table::kPartitions,
           WindowKey(KindPrefix(partition, RowKind::kConnections), batch.window.from_ms,
                     base::Hash64(upload_key)),
           EncodeConnections(connections));
}

// Blocks and the window row. Without any lock: this is where the time goes (sorting, zstd).
absl::Status WriteBlocks(const WindowBatch& batch, const PartitionKey& partition,
                         const std::string& upload_key, std::map<uint32_t, SeriesRows>& series,
                         WriteSet& rows, AppendResult* result) {
  const uint64_t upload_hash = base::Hash64(upload_key);
  const std::string block_prefix = KindPrefix(partition, RowKind::kBlock);
  BlockEncoder encoder;
  WindowRow window;
  window.end_ms = batch.window.to_ms;
  window.node = batch.node;
  window.losses = batch.losses;
  window.stack_ends = batch.stack_ends;
  for (auto& [id, data] : series) {
    if (!NormalizeRows(data.rows)) return base::InvalidArgument("the values add up past 2^63");
    WindowRow::SeriesTotal total{.series = id};
    for (const BlockRow& row : data.rows) {
      total.samples += row.samples;
      total.cpu_ns += row.cpu_ns;
    }
    window.totals.push_back(total);
    result->samples += data.rows.size();
    rows.Put(Table::kPartitions, BlockKey(block_prefix, id, batch.window.from_ms, upload_hash),
             encoder.Encode(data.rows, data.period_ns));
  }
  rows.Put(Table::kPartitions,
           WindowKey(KindPrefix(partition, RowKind::kWindow), batch.window.from_ms, upload_hash),
           window.Encode(batch.window.from_ms));
  return absl::OkStatus();
}

}  // namespace

absl::Status Writer::Append(const WindowBatch& batch, AppendResult* result) {
  *result = {};
  RETURN_IF_ERROR(CheckBatch(batch));
  const std::string upload_key = UploadKey(batch.tenant, batch.upload);
  {
    // A retry may overtake the first try, which is still waiting for the disk.
    base::MutexLock lock(mutex_);
    while (in_flight_.contains(upload_key)) upload_done_.Wait(mutex_);
    in_flight_.insert(upload_key);
  }
  const absl::Status status = AppendNew(batch, upload_key, result);
  {
    base::MutexLock lock(mutex_);
    in_flight_.erase(upload_key);
  }
  upload_done_.NotifyAll();
  return status;
}

absl::Status Writer::AppendNew(const WindowBatch& batch, const std::string& upload_key,
                               AppendResult* result) {
  ASSIGN_OR_RETURN(const std::optional<std::string> known,
                   database_.Get(Table::kUploads, upload_key));
  if (known) {
    result->duplicate = true;
    return absl::OkStatus();
  }
  std::vector<PreparedProfile> prepared;
  for (const SeriesProfile& series : batch.series) {
    ASSIGN_OR_RETURN(PreparedProfile one, Prepare(series.profile));
    prepared.push_back(std::move(one));
  }

  const PartitionKey partition{.hour = HourOf(batch.window.from_ms), .tenant = batch.tenant.value};
  const PartitionLease lease = partitions_.Acquire(partition);
  PartitionTables& tables = *lease;
  WriteSet rows;
  std::map<uint32_t, SeriesRows> by_series;
  EdgesBySeries connections;
  std::optional<Interner> interner;
  {
    base::MutexLock lock(tables.mutex());
    RETURN_IF_ERROR(tables.EnsureLoaded(database_));
    interner.emplace(tables, rows);
    for (size_t i = 0; i < batch.series.size(); ++i) {
      const profile::Profile& profile = batch.series[i].profile;
      const auto ids = interner->InternProfile(profile, prepared[i].hashes);
      SeriesRows& series = by_series[interner->InternSeries(batch.series[i].labels)];
      GatherRows(profile, prepared[i], ids, series);
    }
    for (const SeriesConnections& series : batch.connections) {
      if (series.edges.empty()) continue;
      auto& edges = connections[interner->InternSeries(series.labels)];
      edges.insert(edges.end(), series.edges.begin(), series.edges.end());
    }
  }
  RETURN_IF_ERROR(WriteBlocks(batch, partition, upload_key, by_series, rows, result));
  WriteConnections(batch, partition, upload_key, connections, rows, result);
  std::string received;
  PutBigEndian(received, static_cast<uint64_t>(clock_.Now().unix_ms()));
  rows.Put(Table::kUploads, upload_key, received);
  RETURN_IF_ERROR(database_.Write(rows));
  interner->MarkDurable();
  stats_.Add(batch.window.from_ms, batch.window.to_ms, batch.losses, batch.stack_ends);
  return absl::OkStatus();
}

}  // namespace firewatch::server
