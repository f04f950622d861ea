// SPDX-License-Identifier: Apache-2.0
// What the ingest RPCs do, without gRPC: check, translate, store, count. grpc_server.h carries the
// calls here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "proto/ingest.pb.h"
#include "server/ingest/node_registry.h"
#include "server/ingest/window_request.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

struct IngestOptions {
  WindowLimits limits;
  std::string server_version = "dev";
  // Gets what a stored window tells of its binaries, on the caller's thread; may be empty.
  std::function<void(const google::protobuf::RepeatedPtrField<ingest::BinaryInfo>&)> on_binaries =
      {};
};

// Any thread.
class IngestService {
 public:
  // `store`, `clock` and `metrics` must outlive the service.
  IngestService(IngestOptions options, ProfileStore& store, const base::Clock& clock,
                base::MetricsRegistry& metrics);

  // FailedPrecondition: another protocol version; the text names both sides.
  absl::Status Hello(const ingest::HelloRequest& request, ingest::HelloResponse* response);

  // OK: the window is on disk. InvalidArgument and FailedPrecondition: refused for good.
  // ResourceExhausted and Unavailable: to be sent again later.
  absl::Status UploadWindow(const ingest::UploadWindowRequest& request,
                            ingest::UploadWindowResponse* response);

  std::vector<NodeStatus> Nodes() const { return nodes_.Nodes(clock_.Now().unix_ms()); }

 private:
  absl::Status Refuse(Refusal refusal, absl::Status status);

  const IngestOptions options_;
  ProfileStore& store_;
  const base::Clock& clock_;
  NodeRegistry nodes_;
  base::Counter &windows_, &profiles_, &connections_, &duplicates_, &bytes_;
  base::Gauge& node_count_;
  std::vector<base::Counter*> refused_;      // by Refusal
  std::vector<base::Counter*> bare_frames_;  // by NameReason
};

}  // namespace firewatch::server
