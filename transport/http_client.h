// SPDX-License-Identifier: Apache-2.0
// Blocking HTTP requests, for the command line and for tests. On libcurl (curl_api.h); the target
// is firewatch::transport_client, apart from firewatch::transport so that the agent does not load
// libcurl and what it drags in.
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

struct HttpClientOptions {
  int connect_timeout_ms = 2'000;
  int timeout_ms = 30'000;   // the whole exchange; 0: no bound
  int stall_timeout_ms = 0;  // ends an exchange in which nothing moves for so long; 0: off
  size_t max_body_bytes = size_t{1} << 30;
  bool accept_gzip = true;  // the body is decoded
  std::vector<std::pair<std::string, std::string>> headers = {};
  int max_redirects = 0;  // to http and https only
  // Set by another thread: the exchange ends within a second, as Cancelled.
  const std::atomic<bool>* cancel = nullptr;
};

// Any answer of a server is OK, whatever its status code; response headers have lower-case names.
// Errors: InvalidArgument (the URL; only http and https are taken), DeadlineExceeded, Unavailable
// (no connection, a broken answer), ResourceExhausted (a body over max_body_bytes), Cancelled.
// Redirects are not followed unless told so. Proxies of the environment are used, except for
// loopback hosts.
absl::StatusOr<HttpResponse> HttpGet(const std::string& url, const HttpClientOptions& options = {});
absl::StatusOr<HttpResponse> HttpPost(const std::string& url, std::string_view body,
                                      std::string_view content_type,
                                      const HttpClientOptions& options = {});

absl::StatusOr<HttpResponse> HttpDelete(const std::string& url,
                                        const HttpClientOptions& options = {});

// Fills up to `capacity` bytes and returns how many; 0: that was all. An error ends the exchange
// and is its result.
using BodyProducer = std::function<absl::StatusOr<size_t>(char* buffer, size_t capacity)>;
// PUT with a body of unknown length, which is never in memory as a whole.
absl::StatusOr<HttpResponse> HttpPut(const std::string& url, const BodyProducer& produce,
                                     std::string_view content_type,
                                     const HttpClientOptions& options = {});

// An error ends the exchange and is its result.
using BodyConsumer = std::function<absl::Status(std::string_view piece)>;
// GET; the body of an answer with status 200 goes to `consume` in pieces (max_body_bytes bounds
// their sum), that of any other answer is dropped.
absl::StatusOr<HttpResponse> HttpDownload(const std::string& url, const BodyConsumer& consume,
                                          const HttpClientOptions& options = {});

}  // namespace firewatch::transport
