// SPDX-License-Identifier: Apache-2.0
// Reading is under way from the beginning, beside sending: a server may refuse a body before all of
// it has been sent. The operations are asynchronous for their deadlines' sake; this thread runs
// them in slices and looks at the cancellation in between.
#include "transport/plain_http.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <utility>

#include "base/status.h"
#include "transport/address.h"

namespace firewatch::transport {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kSlice{200};  // how late a cancellation may be seen
constexpr size_t kChunkBytes = size_t{64} << 10;
constexpr size_t kMaxHeadBytes = size_t{32} << 10;

// One home thread, the caller's. Its handlers never outlive it: the destructor runs what is left.
class Exchange {
 public:
  Exchange(const PlainHttpUrl& url, const PlainHttpOptions& options)
      : url_(url), options_(options) {
    parser_.header_limit(kMaxHeadBytes);
    parser_.body_limit(options.max_answer_bytes);
  }
  ~Exchange() {
    Close();
    io_.restart();
    io_.run();
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  absl::Status Connect() {
    tcp::resolver resolver(io_);
    error_code error;
    const auto addresses = resolver.resolve(url_.host, url_.port, error);
    if (error) return base::Unavailable("{}: {}", url_.host, error.message());
    bool done = false;
    asio::async_connect(socket_, addresses, [&](const error_code& result, const tcp::endpoint&) {
      error = result;
      done = true;
    });
    RETURN_IF_ERROR(RunUntil(done, options_.connect_timeout_ms));
    if (error) return base::Unavailable("connect to {}: {}", url_.authority, error.message());
    ReadOn();
    return absl::OkStatus();
  }

  absl::Status SendHead(const PlainHttpRequest& given) {
    http::request<http::empty_body> request;
    request.method_string(given.method);
    request.target(given.target);
    request.version(11);
    request.set(http::field::host, url_.authority);
    request.keep_alive(false);
    for (const auto& [name, value] : given.headers) request.set(name, value);
    if (given.produce != nullptr) request.chunked(true);
    http::request_serializer<http::empty_body> serializer(request);
    bool done = false;
    http::async_write_header(socket_, serializer,
                             [&](const error_code& error, size_t) { Sent(error, &done); });
    return RunUntilSent(done);
  }

  absl::Status SendBody(const PlainBodyProducer& produce) {
    std::string buffer(kChunkBytes, '\0');
    for (size_t bytes = 1; bytes != 0 && !sending_ended();) {
      ASSIGN_OR_RETURN(bytes, produce(buffer.data(), buffer.size()));
      bool done = false;
      const auto sent = [&](const error_code& error, size_t) { Sent(error, &done); };
      if (bytes != 0) {
        asio::async_write(socket_, http::make_chunk(asio::const_buffer(buffer.data(), bytes)),
                          sent);
      } else {
        asio::async_write(socket_, http::make_chunk_last(), sent);
      }
      RETURN_IF_ERROR(RunUntilSent(done));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<HttpResponse> Receive() {
    RETURN_IF_ERROR(RunUntil(read_done_, options_.stall_timeout_ms));
    if (read_error_ == http::error::body_limit) {
      return base::ResourceExhausted("{}: the answer is too large", url_.authority);
    }
    if (read_error_ == http::error::end_of_stream || read_error_ == http::error::partial_message) {
      return base::Unavailable("{} has closed the connection", url_.authority);
    }
    if (read_error_) {
      return base::Unavailable("receive from {}: {}", url_.authority, read_error_.message());
    }
    auto message = parser_.release();
    HttpResponse out;
    out.status = static_cast<int>(message.result_int());
    for (const auto& field : message) {
      std::string name(field.name_string());
      std::ranges::transform(name, name.begin(), [](char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
      });
      if (name == "content-type") out.content_type = std::string(field.value());
      out.headers.emplace_back(std::move(name), std::string(field.value()));
    }
    out.body = std::move(message.body());
    return out;
  }

 private:
  // The answer is there, or the connection is of no more use for sending: perhaps it told why.
  bool sending_ended() const { return read_done_ || send_failed_; }

  void Close() {
    error_code ignored;
    socket_.close(ignored);
  }

  void ReadOn() {
    http::async_read_some(socket_, buffer_, parser_, [this](const error_code& error, size_t bytes) {
      moved_ = true;
      read_error_ = error;
      read_done_ = static_cast<bool>(error) || parser_.is_done() || bytes == 0;
      if (!read_done_) ReadOn();
    });
  }

  void Sent(const error_code& error, bool* done) {
    moved_ = true;
    *done = true;
    if (error) send_failed_ = true;
  }

  // Until `done`, or the answer is there: an operation that still hangs then is ended.
  absl::Status RunUntilSent(bool& done) {
    moved_at_ = Clock::now();
    absl::Status status = absl::OkStatus();
    while (status.ok() && !done && !read_done_) {
      status = RunSlice(options_.stall_timeout_ms);
    }
    if (!done) {
      Close();
      io_.restart();
      io_.run();  // its handler refers to the caller's variables
    }
    return status;
  }

  absl::Status RunUntil(bool& done, int timeout_ms) {
    moved_at_ = Clock::now();
    absl::Status status = absl::OkStatus();
    while (status.ok() && !done) status = RunSlice(timeout_ms);
    if (!done) {
      Close();
      io_.restart();
      io_.run();
    }
    return status;
  }

  absl::Status RunSlice(int timeout_ms) {
    if (options_.cancel != nullptr && *options_.cancel) return absl::CancelledError("stopped");
    if (std::exchange(moved_, false)) moved_at_ = Clock::now();
    if (Clock::now() - moved_at_ >= std::chrono::milliseconds(timeout_ms)) {
      return absl::DeadlineExceededError(url_.authority + " does not answer");
    }
    io_.restart();
    io_.run_one_for(kSlice);
    return absl::OkStatus();
  }

  const PlainHttpUrl& url_;
  const PlainHttpOptions& options_;
  asio::io_context io_;
  tcp::socket socket_{io_};
  boost::beast::flat_buffer buffer_;
  http::response_parser<http::string_body> parser_;
  error_code read_error_;
  bool read_done_ = false;
  bool send_failed_ = false;
  bool moved_ = true;
  Clock::time_point moved_at_ = Clock::now();
};

}  // namespace

absl::StatusOr<PlainHttpUrl> ParsePlainHttpUrl(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  std::string_view rest = url;
  if (rest.starts_with(kScheme)) rest.remove_prefix(kScheme.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const auto address = ParseHostPort(rest);
  if (!address.ok() || address->port == 0) {
    return base::InvalidArgument("\"{}\" is not HOST:PORT or http://HOST:PORT", url);
  }
  return PlainHttpUrl{.host = address->host,
                      .port = std::to_string(address->port.value_or(80)),
                      .authority = std::string(rest)};
}

absl::StatusOr<HttpResponse> PlainHttp(const PlainHttpUrl& url, const PlainHttpRequest& request,
                                       const PlainHttpOptions& options) {
  Exchange exchange(url, options);
  RETURN_IF_ERROR(exchange.Connect());
  RETURN_IF_ERROR(exchange.SendHead(request));
  if (request.produce != nullptr) RETURN_IF_ERROR(exchange.SendBody(request.produce));
  return exchange.Receive();
}

}  // namespace firewatch::transport
