// SPDX-License-Identifier: Apache-2.0
// Carries the ingest RPCs from the network to an IngestService. Bounded in threads, memory, message
// size and streams; refuses a non-loopback address unless told otherwise.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/ingest/ingest_service.h"

namespace firewatch::server {

struct GrpcServerOptions {
  std::string address = "127.0.0.1:7070";  // port 0: chosen by the system
  bool insecure = false;                   // allow a non-loopback address without TLS
  int max_threads = 32;                    // calls at work or waiting for the disk; more get
                                           // RESOURCE_EXHAUSTED and come back
  int max_message_bytes = 64 << 20;
  int max_streams_per_connection = 16;
  size_t max_transport_bytes = size_t{256} << 20;  // gRPC's own buffers, all connections
};

// Serves until the destructor, which lets running calls finish for up to five seconds.
class GrpcServer {
 public:
  virtual ~GrpcServer() = default;
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;
  // "127.0.0.1:7070", with the port that was bound.
  virtual std::string address() const = 0;

 protected:
  GrpcServer() = default;
};

// PermissionDenied: not loopback and not `insecure`. Unavailable: the address cannot be bound.
// `ingest` must outlive the server.
absl::StatusOr<std::unique_ptr<GrpcServer>> StartGrpcServer(const GrpcServerOptions& options,
                                                            IngestService& ingest);

}  // namespace firewatch::server
