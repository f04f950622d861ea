// SPDX-License-Identifier: Apache-2.0
// A small HTTP/1.1 server on Boost.Beast. Connections that say nothing, or speak slowly, cost a
// timer and a buffer and never a worker: reading and writing are asynchronous on one I/O thread,
// handlers run on a bounded pool of workers (200 silent connections leave /healthz under 100 ms).
//
// A handler may leave HEAD to the server: the body is dropped, Content-Length stays. Bodies over
// 1 KiB of a compressible type are sent as gzip to clients that accept it, unless the handler has
// set Content-Encoding itself. A handler that throws gives 500.
//
// Requests with a foreign Host or Origin are refused with 403 before any handler sees them: that is
// what keeps a web page elsewhere from reading a server on loopback (DNS rebinding, CSRF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/metrics.h"

namespace firewatch::transport {

struct HttpRequest {
  std::string method;                                        // "GET", "HEAD", "POST", …
  std::string path;                                          // percent-decoded, without the query
  std::vector<std::pair<std::string, std::string>> query;    // decoded, in order
  std::vector<std::pair<std::string, std::string>> headers;  // names lower-case
  std::string body;

  // First value of a query parameter; empty optional when absent.
  std::optional<std::string_view> Query(std::string_view name) const;
  // "" when absent. `name` lower-case.
  std::string_view Header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};  // beside Content-Type and -Length
  // Sent only after so long: who asks too often waits, and costs no worker meanwhile. At most 64
  // answers wait at the same time; more are sent at once.
  uint32_t hold_ms = 0;
};

// {"error":"message"} as application/json.
HttpResponse ErrorResponse(int status, std::string_view message);

// Where a body goes that is too large for memory: one piece at a time, never more than one in
// memory. Calls come in order, from the thread for streams. Destroyed without Finish: the peer went
// away, was too slow or sent too much; undo what was done.
class BodySink {
 public:
  virtual ~BodySink() = default;
  // An answer in return ends the request here; the rest of the body is not read.
  virtual std::optional<HttpResponse> Take(std::string_view piece) = 0;
  virtual HttpResponse Finish() = 0;
};

// A sink, or (none) the answer that refuses the request before its body is sent.
struct StreamStart {
  std::unique_ptr<BodySink> sink;
  HttpResponse refusal;
};

// Requests with `method` and a path below `path_prefix` are streamed: `open` gets the request
// without its body. Nothing of it runs on the socket thread or on a worker of queries: there is one
// thread for all streams, because disks do not get faster by more.
struct StreamOptions {
  std::string method = "PUT";
  std::string path_prefix = {};  // "": nothing is streamed
  std::function<StreamStart(const HttpRequest&)> open = {};
  uint64_t max_body_bytes = uint64_t{4} << 30;
  int max_streams = 4;  // at the same time; beyond it 503
};

struct HttpServerOptions {
  std::string address = "127.0.0.1:0";  // "host:port", "[::1]:port"; port 0: chosen by the system
  bool insecure = false;                // allow a non-loopback address without TLS
  int workers = 2;
  int max_connections = 1024;     // beyond it the oldest idle one is closed
  int header_timeout_ms = 5'000;  // from accept, or from the end of the last response
  int body_timeout_ms = 30'000;
  int write_timeout_ms = 30'000;
  size_t max_header_bytes = 32 * 1024;
  size_t max_body_bytes = size_t{64} << 20;
  int max_queued_requests = 256;                // beyond it 503, at once
  std::vector<std::string> allowed_hosts = {};  // beside localhost, loopback addresses, own address
  // Exact paths that are served by one worker of their own, so that heavy requests that hold every
  // other worker cannot delay them. Only for handlers that answer quickly.
  std::vector<std::string> express_paths = {"/healthz", "/metrics"};
  // Every 256 KiB of a streamed body have body_timeout_ms.
  StreamOptions stream = {};
};

class HttpServer {
 public:
  using Handler = std::function<HttpResponse(const HttpRequest&)>;

  // Binds, starts the threads and serves until the destructor. `handler` is called from several
  // threads at once. Errors: an address that does not parse, a bind failure, and (PermissionDenied)
  // a non-loopback address without `insecure`. `metrics` must outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options,
                                                           Handler handler,
                                                           base::MetricsRegistry& metrics);
  virtual ~HttpServer() = default;
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // "127.0.0.1:7171", with the port that was bound.
  virtual std::string address() const = 0;

 protected:
  HttpServer() = default;
};

// True when "host:port" names loopback only (127.0.0.0/8, ::1, localhost). InvalidArgument when it
// does not parse. The one listener policy of HTTP and gRPC.
absl::StatusOr<bool> IsLoopbackAddress(std::string_view address);
// OK, or PermissionDenied with the sentence that tells the user about --insecure.
absl::Status CheckListenerPolicy(std::string_view address, bool insecure);

}  // namespace firewatch::transport
