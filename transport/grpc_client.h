// SPDX-License-Identifier: Apache-2.0
// Unary gRPC calls over one plain connection, blocking, without a thread or a timer of its own: for
// the agent, which makes one call in ten seconds and must cost nothing in between. (gRPC's own
// client keeps two threads that wake three times a second, a quarter of what the agent used at
// 19 Hz: docs/benchmarks.md.) No TLS, proxies, load balancing or retries.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::transport {

struct GrpcClientOptions {
  std::string server;  // "host:port"
  std::string user_agent = "firewatch";
  // From the start of Connect or Call to its end. Name resolution may take longer.
  int timeout_ms = 15'000;
  size_t max_answer_bytes = size_t{1} << 20;
};

// One thread calls; Cancel comes from any other.
class GrpcClient {
 public:
  static std::unique_ptr<GrpcClient> Create(GrpcClientOptions options);
  virtual ~GrpcClient() = default;

  // There is a connection, and the server has not ended it. Reads what came since the last call;
  // does not block.
  virtual bool Ready() = 0;

  // A new connection in place of the old one. InvalidArgument: the server's text. Unavailable,
  // DeadlineExceeded, Cancelled.
  virtual absl::Status Connect() = 0;

  // The answer's message, or the status that the server gave. The connection ends with any of
  // Unavailable (also: none), DeadlineExceeded and Cancelled that is not the server's.
  virtual absl::StatusOr<std::string> Call(std::string_view method, std::string_view message) = 0;

  virtual void Disconnect() = 0;

  // Ends a call that is under way, and every later one at once.
  virtual void Cancel() = 0;
};

}  // namespace firewatch::transport
