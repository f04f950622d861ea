// SPDX-License-Identifier: Apache-2.0
// The agent's calls to the server, over transport/grpc_client.h.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "proto/ingest.pb.h"

namespace firewatch::agent {

struct IngestClientOptions {
  std::string server;
  int rpc_timeout_ms = 15'000;
};

inline constexpr uint32_t kProtocolVersion = 1;
// Both directions; the server is built with the same limit.
inline constexpr int kMaxMessageBytes = 64 << 20;

// One thread calls; Cancel comes from any other.
class IngestClient {
 public:
  static std::unique_ptr<IngestClient> Create(IngestClientOptions options);
  virtual ~IngestClient() = default;

  // Sends one window, after Hello where the connection is new. FailedPrecondition: no common
  // protocol version, the text names both sides. InvalidArgument: the server refuses this window
  // for good. Anything else may pass.
  virtual absl::Status Upload(const ingest::UploadWindowRequest& window) = 0;

  // True while the last connection is usable.
  virtual bool connected() const = 0;

  // Ends a call that is under way, and every later one at once.
  virtual void Cancel() = 0;
};

}  // namespace firewatch::agent
