// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/window_request.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "profile/labels.h"
#include "profile/pprof_codec.h"
#include "profile/utf8.h"
#include "server/store/tenant.h"

namespace firewatch::server {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;
constexpr uint32_t kMaxHz = 100'000;
constexpr size_t kMaxCounterNameBytes = 64;
static_assert(static_cast<int>(ConnectionRole::kConnect) == ingest::CONNECTION_ROLE_CONNECT);
static_assert(static_cast<int>(ConnectionRole::kAccept) == ingest::CONNECTION_ROLE_ACCEPT);
constexpr std::string_view kZstdMagic("\x28\xb5\x2f\xfd", 4);

bool HasControlCharacter(std::string_view text) {
  return std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

// What an error may show of a stranger's text.
std::string Shown(std::string_view text) {
  if (!profile::IsValidUtf8(text) || HasControlCharacter(text)) return "(not printable)";
  return std::string(profile::Utf8Prefix(text, 64));
}

absl::Status CheckTimes(const ingest::UploadWindowRequest& request, const WindowLimits& limits,
                        base::WallTime now, TimeRange* window, Refusal* refusal) {
  *refusal = Refusal::kTime;
  if (request.start_unix_ns() < 0 || request.end_unix_ns() <= request.start_unix_ns()) {
    return base::InvalidArgument("window from {} to {} ns is no time range",
                                 request.start_unix_ns(), request.end_unix_ns());
  }
  *window = {
      .from_ms = request.start_unix_ns() / kNsPerMs,
      .to_ms = request.end_unix_ns() / kNsPerMs + (request.end_unix_ns() % kNsPerMs != 0 ? 1 : 0)};
  if (window->to_ms - window->from_ms > limits.max_window_ms) {
    return base::InvalidArgument("window lasts {} ms, {} are allowed",
                                 window->to_ms - window->from_ms, limits.max_window_ms);
  }
  if (request.sample_hz() > kMaxHz) {
    return base::InvalidArgument("{} samples per second make no sense", request.sample_hz());
  }
  *refusal = Refusal::kFuture;
  if (window->from_ms > now.unix_ms() + limits.max_future_ms) {
    return base::InvalidArgument(
        "window starts {} s in the future of this server: are both clocks right?",
        (window->from_ms - now.unix_ms()) / 1000);
  }
  *refusal = Refusal::kTooOld;
  if (limits.retention_hours > 0 &&
      window->from_ms < now.unix_ms() - limits.retention_hours * 3'600'000) {
    return base::InvalidArgument("window is {} hours old, this server keeps {}",
                                 (now.unix_ms() - window->from_ms) / 3'600'000,
                                 limits.retention_hours);
  }
  return absl::OkStatus();
}

template <typename Counters, typename NameOf>
absl::Status TakeCounters(const Counters& counters, int max_counters, const NameOf& name_of,
                          std::vector<std::pair<std::string, uint64_t>>* taken, Refusal* refusal) {
  *refusal = Refusal::kTooMany;
  if (counters.size() > max_counters) {
    return base::InvalidArgument("{} counters, {} are allowed", counters.size(), max_counters);
  }
  *refusal = Refusal::kCounters;
  for (const auto& counter : counters) {
    const std::string& name = name_of(counter);
    if (name.size() > kMaxCounterNameBytes || !profile::IsValidLabelName(name)) {
      return base::InvalidArgument("\"{}\" is no name of a counter", Shown(name));
    }
    if (counter.count() > INT64_MAX) {
      return base::InvalidArgument("counter {} is past 2^63", Shown(name));
    }
    taken->emplace_back(name, counter.count());
  }
  return absl::OkStatus();
}

using WireLabels = google::protobuf::RepeatedPtrField<ingest::LabelPair>;

absl::StatusOr<profile::LabelSet> TakeLabels(const WireLabels& labels) {
  if (labels.size() > static_cast<int>(profile::kMaxLabelsPerSet)) {
    return base::InvalidArgument("{} labels, {} are allowed", labels.size(),
                                 profile::kMaxLabelsPerSet);
  }
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const ingest::LabelPair& label : labels) {
    if (label.name().size() > profile::kMaxLabelNameBytes ||
        !profile::IsValidLabelName(label.name())) {
      return base::InvalidArgument("\"{}\" is no name of a label", Shown(label.name()));
    }
    if (label.value().size() > profile::kMaxLabelValueBytes ||
        !profile::IsValidUtf8(label.value())) {
      return base::InvalidArgument("label {} has a value that is not UTF-8 of up to {} bytes",
                                   label.name(), profile::kMaxLabelValueBytes);
    }
    pairs.emplace_back(label.name(), label.value());
  }
  std::ranges::sort(pairs);
  const auto doubled = std::ranges::adjacent_find(
      pairs, [](const auto& a, const auto& b) { return a.first == b.first; });
  if (doubled != pairs.end()) {
    return base::InvalidArgument("label {} is there twice", doubled->first);
  }
  return profile::LabelSet(std::move(pairs));
}

// What the profiles that are still to come may take.
struct Budget {
  size_t bytes = 0;
  size_t samples = 0;
};

absl::StatusOr<profile::Profile> TakeProfile(const std::string& pprof_zstd, Budget& budget) {
  if (!std::string_view(pprof_zstd).starts_with(kZstdMagic)) {
    return base::InvalidArgument("not a zstd frame");
  }
  ASSIGN_OR_RETURN(const std::string pprof, profile::Decompress(pprof_zstd, budget.bytes));
  budget.bytes -= pprof.size();
  // What is inside must be a plain pprof: a container in the container would not fit.
  ASSIGN_OR_RETURN(profile::Profile profile,
                   profile::ReadPprof(pprof, {.max_decompressed_bytes = pprof.size(),
                                              .max_samples = budget.samples,
                                              .max_stack_depth = 4'096}));
  budget.samples -= std::min(budget.samples, profile.samples.size());
  return profile;
}

absl::Status TakeProfiles(const ingest::UploadWindowRequest& request, const WindowLimits& limits,
                          WindowBatch* batch, Refusal* refusal) {
  *refusal = Refusal::kTooMany;
  if (request.profiles_size() > limits.max_profiles) {
    return base::InvalidArgument("{} profiles in one window, {} are allowed",
                                 request.profiles_size(), limits.max_profiles);
  }
  Budget budget{.bytes = limits.max_decompressed_bytes, .samples = limits.max_samples};
  for (int i = 0; i < request.profiles_size(); ++i) {
    const ingest::ServiceProfile& service = request.profiles(i);
    SeriesProfile series;
    *refusal = Refusal::kLabels;
    auto labels = TakeLabels(service.labels());
    if (!labels.ok()) return base::Annotate(labels.status(), fmt::format("profile {}", i));
    series.labels = *std::move(labels);
    *refusal = Refusal::kProfile;
    auto profile = TakeProfile(service.pprof_zstd(), budget);
    if (!profile.ok()) return base::Annotate(profile.status(), fmt::format("profile {}", i));
    series.profile = *std::move(profile);
    batch->series.push_back(std::move(series));
  }
  return absl::OkStatus();
}

// A mapped address is the IPv4 one: a peer has one name.
std::string TakeAddress(std::string_view bytes) {
  constexpr std::string_view kMapped("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
  if (bytes.size() == 16 && bytes.starts_with(kMapped)) bytes.remove_prefix(kMapped.size());
  return std::string(bytes);
}

absl::StatusOr<ConnectionEdge> TakeEdge(const ingest::ConnectionEdge& wire) {
  if (wire.role() != ingest::CONNECTION_ROLE_CONNECT &&
      wire.role() != ingest::CONNECTION_ROLE_ACCEPT) {
    return base::InvalidArgument("{} is no role", static_cast<int>(wire.role()));
  }
  const size_t size = wire.remote_address().size();
  if (size != 0 && size != 4 && size != 16) {
    return base::InvalidArgument("an address of {} bytes, not 4 or 16", size);
  }
  if (wire.port() > UINT16_MAX || (size == 0 && wire.port() != 0)) {
    return base::InvalidArgument("port {} {}", wire.port(),
                                 size == 0 ? "without an address" : "is past 65535");
  }
  ConnectionEdge edge{.role = static_cast<ConnectionRole>(wire.role()),
                      .remote = TakeAddress(wire.remote_address()),
                      .port = static_cast<uint16_t>(wire.port())};
  edge.counts = {.opened = wire.opened(),
                 .closed = wire.closed(),
                 .failed = wire.failed(),
                 .resets_sent = wire.resets_sent(),
                 .resets_received = wire.resets_received(),
                 .retransmits = wire.retransmits(),
                 .syn_retransmits = wire.syn_retransmits(),
                 .bytes_sent = wire.bytes_sent(),
                 .bytes_received = wire.bytes_received(),
                 .segments_sent = wire.segments_sent(),
                 .segments_received = wire.segments_received(),
                 .duration_us = wire.duration_us(),
                 .rtt_us = wire.rtt_us(),
                 .rtt_count = wire.rtt_count()};
  edge.living = wire.living();
  // All else was checked above.
  if (!IsValidEdge(edge)) return base::InvalidArgument("a count is past 2^63");
  return edge;
}

absl::Status TakeConnections(const ingest::UploadWindowRequest& request, const WindowLimits& limits,
                             WindowBatch* batch, Refusal* refusal) {
  *refusal = Refusal::kTooMany;
  if (request.connections_size() > limits.max_profiles) {
    return base::InvalidArgument("connections of {} sets of labels in one window, {} are allowed",
                                 request.connections_size(), limits.max_profiles);
  }
  int edges = 0;
  for (const ingest::ServiceConnections& service : request.connections()) {
    if (service.edges_size() > limits.max_edges - edges) {
      return base::InvalidArgument("more than {} sums of connections in one window",
                                   limits.max_edges);
    }
    edges += service.edges_size();
  }
  for (int i = 0; i < request.connections_size(); ++i) {
    const ingest::ServiceConnections& service = request.connections(i);
    SeriesConnections series;
    *refusal = Refusal::kLabels;
    auto labels = TakeLabels(service.labels());
    if (!labels.ok()) return base::Annotate(labels.status(), fmt::format("connections {}", i));
    series.labels = *std::move(labels);
    *refusal = Refusal::kConnections;
    for (const ingest::ConnectionEdge& wire : service.edges()) {
      auto edge = TakeEdge(wire);
      if (!edge.ok()) return base::Annotate(edge.status(), fmt::format("connections {}", i));
      series.edges.push_back(*std::move(edge));
    }
    if (!series.edges.empty()) batch->connections.push_back(std::move(series));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsValidNode(std::string_view node) {
  return !node.empty() && node.size() <= 255 && profile::IsValidUtf8(node) &&
         !HasControlCharacter(node);
}

absl::Status CheckProtocol(uint32_t peer_version, std::string_view peer) {
  if (peer_version >= kMinProtocolVersion && peer_version <= kMaxProtocolVersion) {
    return absl::OkStatus();
  }
  return base::FailedPrecondition(
      "{} speaks protocol {}, this server speaks {} to {}: upgrade the {}",
      peer.empty() ? "the agent" : fmt::format("agent \"{}\"", Shown(peer)), peer_version,
      kMinProtocolVersion, kMaxProtocolVersion,
      peer_version > kMaxProtocolVersion ? "server" : "agent");
}

absl::Status TranslateWindow(const ingest::UploadWindowRequest& request, const WindowLimits& limits,
                             base::WallTime now, WindowBatch* batch, Refusal* refusal) {
  *refusal = Refusal::kProtocol;
  RETURN_IF_ERROR(CheckProtocol(request.protocol_version(), request.node()));
  *refusal = Refusal::kTenant;
  if (!request.tenant().empty()) batch->tenant.value = request.tenant();
  if (!IsValidTenant(batch->tenant.value)) {
    return base::InvalidArgument("tenant \"{}\" is not 1 to 64 of [A-Za-z0-9_.-]",
                                 Shown(request.tenant()));
  }
  *refusal = Refusal::kAgentId;
  if (request.agent_id().size() != 16) {
    return base::InvalidArgument("agent id has {} bytes, not 16", request.agent_id().size());
  }
  batch->upload = {.agent_id = request.agent_id(), .sequence = request.sequence()};
  *refusal = Refusal::kNode;
  if (!IsValidNode(request.node())) {
    return base::InvalidArgument("node name is not 1 to 255 bytes of printable UTF-8");
  }
  batch->node = request.node();
  RETURN_IF_ERROR(CheckTimes(request, limits, now, &batch->window, refusal));
  RETURN_IF_ERROR(TakeCounters(
      request.losses(), limits.max_counters,
      [](const ingest::LossCounter& loss) -> const std::string& { return loss.name(); },
      &batch->losses, refusal));
  RETURN_IF_ERROR(TakeCounters(
      request.stack_ends(), limits.max_counters,
      [](const ingest::StackEnd& end) -> const std::string& { return end.reason(); },
      &batch->stack_ends, refusal));
  RETURN_IF_ERROR(TakeConnections(request, limits, batch, refusal));
  return TakeProfiles(request, limits, batch, refusal);
}

}  // namespace firewatch::server
