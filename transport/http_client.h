// SPDX-License-Identifier: Apache-2.0
// Blocking HTTP requests, for the command line and for tests. On libcurl; the target is
// firewatch::transport_client, apart from firewatch::transport so that the agent does not load
// libcurl and what it drags in.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "transport/http_server.h"

namespace firewatch::transport {

struct HttpClientOptions {
  int connect_timeout_ms = 2'000;
  int timeout_ms = 30'000;  // the whole exchange
  size_t max_body_bytes = size_t{1} << 30;
  bool accept_gzip = true;  // the body is decoded
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// Any answer of a server is OK, whatever its status code; response headers have lower-case names.
// Errors: InvalidArgument (the URL; only http and https are taken), DeadlineExceeded, Unavailable
// (no connection, a broken answer), ResourceExhausted (a body over max_body_bytes). Redirects are
// not followed. Proxies of the environment are used, except for loopback hosts.
absl::StatusOr<HttpResponse> HttpGet(const std::string& url, const HttpClientOptions& options = {});
absl::StatusOr<HttpResponse> HttpPost(const std::string& url, std::string_view body,
                                      std::string_view content_type,
                                      const HttpClientOptions& options = {});

}  // namespace firewatch::transport
