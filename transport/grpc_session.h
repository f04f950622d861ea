// SPDX-License-Identifier: Apache-2.0
// The client's side of one gRPC connection (unary calls, one at a time) as bytes in and bytes out:
// HTTP/2 by nghttp2, gRPC's few rules on top (PROTOCOL-HTTP2.md of the gRPC project). No sockets
// and no clock, so that any bytes of a server can be tried on it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::transport {

class GrpcSession {
 public:
  struct Options {
    std::string authority;  // "host:port"
    std::string user_agent = "firewatch";
    size_t max_answer_bytes = size_t{1} << 20;
  };
  static absl::StatusOr<std::unique_ptr<GrpcSession>> Create(Options options);
  virtual ~GrpcSession() = default;

  // What came from the server. An error ends the connection: Unavailable, with what is wrong.
  virtual absl::Status Feed(std::string_view bytes) = 0;

  // What the server should be sent next, "" when nothing; valid until the next TakeOutput. Given
  // once only: all of it is to be sent. Unavailable: the server broke HTTP/2, nothing will come.
  virtual absl::StatusOr<std::string_view> TakeOutput() = 0;

  // Begins a call of `method`, "/package.Service/Method". `message` is read until the call is done.
  // Only while no call is under way.
  virtual absl::Status Begin(std::string_view method, std::string_view message, int timeout_ms) = 0;

  // The call that was begun last has its result, OK or not. Also true before the first one.
  virtual bool done() const = 0;

  // The answer of the call that is done: its message, or the status that the server gave (its codes
  // have Abseil's numbers). Unavailable: the server ended it without one. Internal: no gRPC.
  // ResourceExhausted also: more than max_answer_bytes.
  virtual absl::StatusOr<std::string> TakeResult() = 0;

  // Another call may be begun: the server has not said goodbye.
  virtual bool usable() const = 0;
};

// "no%20room" -> "no room"; a broken escape stays as it is (gRPC asks for that).
std::string DecodeGrpcMessage(std::string_view text);

}  // namespace firewatch::transport
