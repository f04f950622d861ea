// SPDX-License-Identifier: Apache-2.0
// One blocking HTTP/1.1 exchange over one connection, by Boost.Beast: for the agent, which must not
// load libcurl and what it drags in (transport/http_client.h). No TLS, no redirects, no proxies, no
// content decoding: enough for our own server.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "transport/http_server.h"

namespace firewatch::transport {

struct PlainHttpUrl {
  std::string host;  // without brackets
  std::string port;
  std::string authority;  // as in the Host header
};
// "host:port", "http://host:port", "[::1]:7171", with or without a slash at the end; without a port
// it is 80. InvalidArgument: https, a path, an empty host, strange characters.
absl::StatusOr<PlainHttpUrl> ParsePlainHttpUrl(std::string_view url);

// Fills up to `capacity` bytes and returns how many; 0: that was all. An error ends the exchange
// and is its result.
using PlainBodyProducer = std::function<absl::StatusOr<size_t>(char* buffer, size_t capacity)>;

struct PlainHttpRequest {
  std::string method = "GET";
  std::string target = "/";
  std::vector<std::pair<std::string, std::string>> headers = {};
  PlainBodyProducer produce = {};  // sent chunked; empty: no body
};

struct PlainHttpOptions {
  int connect_timeout_ms = 5'000;
  int stall_timeout_ms = 120'000;  // nothing moves for so long
  size_t max_answer_bytes = size_t{256} << 10;
  // Set by another thread: ends within half a second, as Cancelled (but for name resolution).
  const std::atomic<bool>* cancel = nullptr;
};

// Any answer is OK, whatever its status code, with its header names in lower case; one that comes
// before the body is sent ends sending. Errors: DeadlineExceeded, Unavailable (no connection, a
// broken answer), ResourceExhausted (a large answer), Cancelled.
absl::StatusOr<HttpResponse> PlainHttp(const PlainHttpUrl& url, const PlainHttpRequest& request,
                                       const PlainHttpOptions& options);

}  // namespace firewatch::transport
