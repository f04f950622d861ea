// SPDX-License-Identifier: Apache-2.0
// From the bytes of strangers to a WindowBatch. Everything that a store takes on trust is checked
// here: names, labels, counts, times, and the profiles themselves.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "base/clock.h"
#include "proto/ingest.pb.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

inline constexpr uint32_t kMinProtocolVersion = 1;
inline constexpr uint32_t kMaxProtocolVersion = 1;

struct WindowLimits {
  int max_profiles = 10'000;
  // Of one request, all profiles together: bounds the memory that one call can take.
  size_t max_decompressed_bytes = size_t{128} << 20;
  size_t max_samples = 2'000'000;
  int max_counters = 1'000;  // losses, and stack ends
  int max_edges = 16'384;    // of connections, all labels together; agents send 4,096 at most
  int64_t max_future_ms = 10 * 60'000;
  int64_t max_window_ms = 3'600'000;
  int64_t retention_hours = 0;  // older windows are refused; 0: none is too old
};

// Why a window was refused: the label of firewatch_ingest_refused_total.
#define FIREWATCH_INGEST_REFUSALS(X)                                                \
  X(kProtocol, "protocol", "another protocol version")                              \
  X(kTenant, "tenant", "tenant name")                                               \
  X(kAgentId, "agent_id", "agent id is not 16 bytes")                               \
  X(kNode, "node", "node name")                                                     \
  X(kTime, "time", "start, end or rate that make no sense")                         \
  X(kFuture, "future", "starts in the future")                                      \
  X(kTooOld, "too_old", "older than retention")                                     \
  X(kTooMany, "too_many", "more profiles, counters or connections than is allowed") \
  X(kLabels, "labels", "labels of a profile")                                       \
  X(kCounters, "counters", "loss or stack end counters")                            \
  X(kProfile, "profile", "a profile does not parse")                                \
  X(kConnections, "connections", "connections that make no sense")                  \
  X(kStoreFull, "store_full", "the disk is full")                                   \
  X(kStoreError, "store_error", "the store failed")

enum class Refusal {
#define FIREWATCH_INGEST_REFUSAL(constant, name, text) constant,
  FIREWATCH_INGEST_REFUSALS(FIREWATCH_INGEST_REFUSAL)
#undef FIREWATCH_INGEST_REFUSAL
};

// FailedPrecondition (protocol version) or InvalidArgument; then `*refusal` says which. The message
// never carries more than a short, printable piece of the request.
absl::Status TranslateWindow(const ingest::UploadWindowRequest& request, const WindowLimits& limits,
                             base::WallTime now, WindowBatch* batch, Refusal* refusal);

// OK, or FailedPrecondition with a text that names both sides and what to upgrade.
absl::Status CheckProtocol(uint32_t peer_version, std::string_view peer);

// 1 to 255 bytes of UTF-8 without control characters.
bool IsValidNode(std::string_view node);

}  // namespace firewatch::server
