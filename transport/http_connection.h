// SPDX-License-Identifier: Apache-2.0
// One connection of the HTTP server: a loop of read header, check, read body, hand over, write.
// Private to this folder: it includes Beast, which takes seconds to compile.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "transport/host_policy.h"
#include "transport/http_message.h"
#include "transport/http_metrics.h"
#include "transport/http_server.h"

namespace firewatch::transport {

class Connection;

// What a connection needs of its server. Everything runs on the I/O thread.
class ConnectionHost {
 public:
  ConnectionHost(HttpServerOptions server_options, base::MetricsRegistry& registry)
      : options(std::move(server_options)), policy(options.allowed_hosts), metrics(registry) {}
  virtual ~ConnectionHost() = default;

  // Hands a request to a worker, which leads to Respond(). False, with the request untouched: too
  // many are waiting.
  virtual bool Dispatch(Connection& connection, HttpRequest&& request, bool keep_alive) = 0;
  // Has the stream thread open a sink, which leads to StartStream() or Respond(). False: too many.
  virtual bool OpenStream(Connection& connection, HttpRequest&& request, bool keep_alive) = 0;
  // Has the stream thread take a piece, which leads to ReadPiece() or Respond(). Sink and piece are
  // the connection's and stay untouched until then. False: the server is stopping.
  virtual bool PassPiece(Connection& connection, BodySink& sink, std::string_view piece, bool last,
                         bool keep_alive) = 0;
  // Destroys it on the stream thread: deleting a large file takes its time.
  virtual void DropSink(std::unique_ptr<BodySink> sink) = 0;
  // Idle: waiting for a request, so it may be evicted.
  virtual void OnIdle(Connection& connection) = 0;
  virtual void OnBusy(Connection& connection) = 0;
  // The last call: the connection is destroyed in it.
  virtual void OnClosed(Connection& connection) = 0;

  const HttpServerOptions options;
  const HostPolicy policy;
  HttpMetrics metrics;
  int streams = 0;  // open sinks, and those that are asked for
  int held = 0;     // answers that wait
};

// Home: the I/O thread. At any time it has either one pending operation of Beast (with a deadline),
// an answer that is held back, or one job at a worker; that is why handlers may hold a plain
// pointer to it: it ends only in its own completion handlers, and after the workers are gone.
class Connection {
 public:
  Connection(boost::asio::ip::tcp::socket socket, ConnectionHost& host);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  ~Connection();

  void Start() { ReadHeader(); }
  // The stream thread's answers.
  void StartStream(std::unique_ptr<BodySink> sink);
  void ReadPiece();
  // The worker's answer.
  void Respond(WireResponse response);
  // Only while idle: the pending read ends with an error and the connection closes.
  void Evict() { stream_.close(); }

  // Position in the server's list of idle connections; the server's alone.
  std::optional<std::list<Connection*>::iterator> idle_position;

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using StreamParser = boost::beast::http::request_parser<boost::beast::http::buffer_body>;
  using ErrorCode = boost::beast::error_code;

  void ReadHeader();
  void OnHeader(ErrorCode error);
  // Decides on the header alone, before a byte of body is read. True: go on.
  bool CheckHeader();
  bool IsStreamed() const;
  // Content-Length against what such a request may have.
  bool CheckLength(uint64_t limit);
  void BeginStream();
  void OnPiece(ErrorCode error);
  void EndStream();
  void SendContinue();
  void ReadBody();
  void OnBody(ErrorCode error);
  void OnReadError(ErrorCode error);
  HttpRequest TakeRequest();
  // Answers without a handler, then closes: what follows in the stream cannot be trusted.
  void Refuse(int status, std::string_view message);
  void Hold();
  void WriteSome();
  void OnWritten(ErrorCode error, size_t bytes);
  void Linger();
  void OnLingerRead(ErrorCode error, size_t bytes);

  ConnectionHost& host_;
  boost::beast::tcp_stream stream_;
  const std::string local_address_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;  // a new one per request
  std::optional<HttpRequest> request_;
  bool streaming_ = false;  // counted in host_.streams
  std::optional<StreamParser> stream_parser_;
  std::unique_ptr<BodySink> sink_;
  std::vector<char> piece_;
  bool is_head_ = false;
  WireResponse response_;
  std::unique_ptr<boost::asio::steady_timer> hold_;  // while the answer waits
  size_t written_ = 0;                               // of head and body together
  size_t discarded_ = 0;                             // while lingering
};

}  // namespace firewatch::transport
