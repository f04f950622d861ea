// SPDX-License-Identifier: Apache-2.0
// What the server asks of a store, and nothing more: append a node's window durably and exactly
// once, list labels, sum series over time, merge stacks. Engines stand behind it (embedded/ on
// RocksDB; others later).
//
// A stored sample is (tenant, series = label set, sample type, window, stack, sample label set) →
// value. The stack is named by content hash (profile::IdentityOf), so equal stacks of all nodes are
// stored once; names are a separate, versioned table in which the best known wins at query time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "profile/labels.h"
#include "profile/profile.h"
#include "server/store/connections.h"

namespace firewatch::server {

// "default" when a client names none.
struct TenantId {
  std::string value = "default";
  friend auto operator<=>(const TenantId&, const TenantId&) = default;
};

// Half-open, milliseconds since the Unix epoch. A window belongs to a range when its start does.
struct TimeRange {
  int64_t from_ms = 0;
  int64_t to_ms = 0;
};

// Names an upload for ever: a second Append with the same id changes nothing.
struct UploadId {
  std::string agent_id;  // 16 bytes
  uint64_t sequence = 0;
};

struct SeriesProfile {
  profile::LabelSet labels;
  profile::Profile profile;  // validated; sample labels inside
};

struct WindowBatch {
  TenantId tenant;
  UploadId upload;
  TimeRange window;
  std::vector<SeriesProfile> series;
  std::vector<SeriesConnections> connections;                // of the network probe
  std::vector<std::pair<std::string, uint64_t>> losses;      // by name, this window
  std::vector<std::pair<std::string, uint64_t>> stack_ends;  // by reason, this window
  std::string node;
};

struct Query {
  TenantId tenant;
  profile::Selector selector;
  TimeRange range;
  std::string sample_type = "cpu";  // "samples" or "cpu"
};

// Sums per series and per step, without touching stacks.
struct SeriesPoints {
  profile::LabelSet labels;
  std::vector<std::pair<int64_t, int64_t>>
      points;  // (step start ms, sum), ascending, gaps left out
  int64_t total = 0;
};

struct StoreStats {
  uint64_t disk_bytes = 0;
  uint64_t windows = 0;  // acknowledged since the store was made
  uint64_t duplicates = 0;
  int64_t oldest_ms = 0;  // 0 when empty
  int64_t newest_ms = 0;
  std::vector<std::pair<std::string, uint64_t>> losses;  // summed over what is stored
  std::vector<std::pair<std::string, uint64_t>> stack_ends;
};

// Thread-safe. Errors: InvalidArgument (the query), ResourceExhausted (disk full: reads still
// work), DataLoss (damaged data; says which key), Unavailable.
class ProfileStore {
 public:
  virtual ~ProfileStore() = default;

  // Durable on return (log synced, shared with concurrent callers). `*duplicate` is true when the
  // upload was there already.
  virtual absl::Status Append(const WindowBatch& batch, bool* duplicate) = 0;

  virtual absl::StatusOr<std::vector<std::string>> LabelNames(const Query& query) = 0;
  virtual absl::StatusOr<std::vector<std::string>> LabelValues(const Query& query,
                                                               std::string_view name) = 0;
  // step_ms > 0. Series without a point in the range are left out.
  virtual absl::StatusOr<std::vector<SeriesPoints>> Series(const Query& query, int64_t step_ms) = 0;
  // Exact merge of everything that matches; both sample types are in the result.
  virtual absl::StatusOr<profile::Profile> Merge(const Query& query) = 0;
  // Sums of everything that matches, whatever the sample type, per labels, role, peer and port; at
  // most kMaxConnectionRows, what does not fit is in the "other" of its labels.
  virtual absl::StatusOr<ConnectionReport> Connections(const Query& query) = 0;

  virtual absl::StatusOr<StoreStats> Stats() = 0;
  // Writes and reads a key: what /healthz asks.
  virtual absl::Status CheckHealth() = 0;
  // Applies retention by age and by bytes now; also runs by itself.
  virtual absl::Status ApplyRetention(int64_t now_ms) = 0;
};

}  // namespace firewatch::server
