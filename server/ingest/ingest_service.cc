// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/ingest_service.h"

#include <utility>

#include "base/logging.h"
#include "base/status.h"

namespace firewatch::server {
namespace {

constexpr size_t kMaxVersionBytes = 64;
// As ingest.proto promises; a window with more is stored without what it tells of binaries.
constexpr int kMaxBinaries = 4'096;

// "NAME_REASON_NO_FILE": "no_file".
std::string ReasonLabel(int reason) {
  std::string label = ingest::NameReason_Name(reason).substr(sizeof("NAME_REASON_") - 1);
  for (char& c : label) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return label;
}

// What the store says, as the agent has to act on it.
Refusal RefusalOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return Refusal::kProfile;
    case absl::StatusCode::kResourceExhausted:
      return Refusal::kStoreFull;
    default:
      return Refusal::kStoreError;
  }
}

absl::Status ForAgent(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kResourceExhausted:
      return status;
    default:
      // Damage is the server's to mend; the agent keeps its window and tries again.
      return base::Unavailable("store: {}", base::Message(status));
  }
}

std::vector<NodeModule> ModulesOf(const ingest::UploadWindowRequest& request) {
  std::vector<NodeModule> modules;
  for (const ingest::ModuleState& module : request.modules()) {
    modules.push_back({module.name(), module.state(), module.why()});
    if (modules.size() == 32) break;
  }
  return modules;
}

}  // namespace

IngestService::IngestService(IngestOptions options, ProfileStore& store, const base::Clock& clock,
                             base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      store_(store),
      clock_(clock),
      windows_(metrics.AddCounter("firewatch_ingest_windows_total", "windows acknowledged")),
      profiles_(metrics.AddCounter("firewatch_ingest_profiles_total", "profiles acknowledged")),
      connections_(metrics.AddCounter(
          "firewatch_ingest_connections_total",
          "sums of connections acknowledged, one per labels, peer and port of a window")),
      duplicates_(metrics.AddCounter("firewatch_ingest_duplicates_total",
                                     "windows acknowledged that were stored before")),
      bytes_(metrics.AddCounter("firewatch_ingest_bytes_total",
                                "compressed profile bytes of acknowledged windows")),
      node_count_(metrics.AddGauge("firewatch_ingest_nodes", "nodes heard since the start")) {
#define FIREWATCH_INGEST_REFUSAL(constant, name, text)                                        \
  refused_.push_back(&metrics.AddCounter("firewatch_ingest_refused_total", "windows refused", \
                                         {{"reason", name}}));
  FIREWATCH_INGEST_REFUSALS(FIREWATCH_INGEST_REFUSAL)
#undef FIREWATCH_INGEST_REFUSAL
  for (int reason = 0; reason < ingest::NameReason_ARRAYSIZE; ++reason) {
    bare_frames_.push_back(
        &metrics.AddCounter("firewatch_ingest_bare_frames_total",
                            "frames without a name, times samples, of acknowledged windows",
                            {{"reason", ReasonLabel(reason)}}));
  }
}

absl::Status IngestService::Refuse(Refusal refusal, absl::Status status) {
  refused_[static_cast<size_t>(refusal)]->Add();
  spdlog::debug("window refused: {}", base::ToString(status));
  return status;
}

absl::Status IngestService::Hello(const ingest::HelloRequest& request,
                                  ingest::HelloResponse* response) {
  if (absl::Status status = CheckProtocol(request.protocol_version(), request.node());
      !status.ok()) {
    return Refuse(Refusal::kProtocol, std::move(status));
  }
  if (!IsValidNode(request.node())) {
    return Refuse(Refusal::kNode,
                  base::InvalidArgument("node name is not 1 to 255 bytes of printable UTF-8"));
  }
  nodes_.NoteHello(request.node(), request.agent_version().substr(0, kMaxVersionBytes),
                   clock_.Now().unix_ms());
  response->set_min_protocol_version(kMinProtocolVersion);
  response->set_max_protocol_version(kMaxProtocolVersion);
  response->set_server_version(options_.server_version);
  return absl::OkStatus();
}

absl::Status IngestService::UploadWindow(const ingest::UploadWindowRequest& request,
                                         ingest::UploadWindowResponse* response) {
  WindowBatch batch;
  Refusal refusal = Refusal::kProtocol;
  absl::Status status = TranslateWindow(request, options_.limits, clock_.Now(), &batch, &refusal);
  if (!status.ok()) return Refuse(refusal, std::move(status));

  bool duplicate = false;
  status = store_.Append(batch, &duplicate);
  if (!status.ok()) return Refuse(RefusalOf(status), ForAgent(status));

  response->set_duplicate(duplicate);
  nodes_.NoteWindow(batch, request.sample_hz(), duplicate, clock_.Now().unix_ms());
  if (request.sample_hz() != 0) {
    nodes_.NoteSampler(batch, request.sampler(), request.sampler_note());
  }
  if (request.modules_size() != 0) nodes_.NoteModules(batch, ModulesOf(request));
  node_count_.Set(static_cast<double>(nodes_.size()));
  // Also of a window that was stored before: the answer to the first try may have been lost before
  // this line.
  if (options_.on_binaries && request.binaries_size() <= kMaxBinaries) {
    options_.on_binaries(request.binaries());
  }
  if (duplicate) {
    duplicates_.Add();
    return absl::OkStatus();
  }
  windows_.Add();
  profiles_.Add(batch.series.size());
  for (const SeriesConnections& one : batch.connections) connections_.Add(one.edges.size());
  for (const auto& service : request.profiles()) bytes_.Add(service.pprof_zstd().size());
  for (const auto& bare : request.bare_frames()) {
    if (ingest::NameReason_IsValid(bare.reason())) {
      bare_frames_[static_cast<size_t>(bare.reason())]->Add(bare.count());
    }
  }
  return absl::OkStatus();
}

}  // namespace firewatch::server
