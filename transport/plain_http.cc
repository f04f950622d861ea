// SPDX-License-Identifier: Apache-2.0
#include "transport/plain_http.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>

#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::transport {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kSliceMs = 200;  // how late a cancellation may be seen
constexpr size_t kChunkBytes = size_t{64} << 10;
constexpr size_t kMaxHeadBytes = size_t{32} << 10;

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<uint64_t> Number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

class Exchange {
 public:
  Exchange(const PlainHttpUrl& url, const PlainHttpOptions& options)
      : url_(url), options_(options) {}

  absl::Status Connect() {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    const int failed = ::getaddrinfo(url_.host.c_str(), url_.port.c_str(), &hints, &list);
    if (failed != 0) return base::Unavailable("{}: {}", url_.host, ::gai_strerror(failed));
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
    absl::Status status = base::Unavailable("{}: no address", url_.host);
    for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
      status = ConnectTo(*one);
      if (status.ok() || status.code() == absl::StatusCode::kCancelled) break;
    }
    return status;
  }

  // True when the peer has something to say first.
  absl::StatusOr<bool> Send(std::string_view bytes) {
    while (!bytes.empty()) {
      ASSIGN_OR_RETURN(const short ready, Wait(POLLOUT | POLLIN, options_.stall_timeout_ms));
      if ((ready & POLLIN) != 0) return true;
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return true;  // perhaps it told why
      if (sent < 0) return base::Unavailable("send to {}: {}", url_.authority, Error());
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return false;
  }

  absl::StatusOr<HttpResponse> Receive() {
    std::string bytes;
    std::optional<PlainHttpHead> head;
    std::optional<uint64_t> length;
    std::string piece(kChunkBytes, '\0');
    while (true) {
      if (!head.has_value()) {
        auto parsed = ParsePlainHttpHead(bytes);
        if (!parsed.ok() && parsed.status().code() != absl::StatusCode::kNotFound) {
          return base::Unavailable("{}: {}", url_.authority, base::Message(parsed.status()));
        }
        if (parsed.ok() && parsed->response.status >= 200) {
          head = *std::move(parsed);
          for (const auto& [name, value] : head->response.headers) {
            if (name == "content-length") length = Number(value);
          }
        } else if (parsed.ok()) {
          bytes.erase(0, parsed->body_at);  // "100 Continue"
          continue;
        }
      }
      if (head.has_value() && length.has_value() && bytes.size() - head->body_at >= *length) break;
      if (bytes.size() > options_.max_answer_bytes) {
        return base::ResourceExhausted("{}: the answer is too large", url_.authority);
      }
      ASSIGN_OR_RETURN(const short ready, Wait(POLLIN, options_.stall_timeout_ms));
      (void)ready;
      const ssize_t got = ::recv(fd_.get(), piece.data(), piece.size(), 0);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got < 0) return base::Unavailable("receive from {}: {}", url_.authority, Error());
      if (got == 0) {
        if (head.has_value() && !length.has_value()) break;
        return base::Unavailable("{} has closed the connection", url_.authority);
      }
      bytes.append(piece.data(), static_cast<size_t>(got));
    }
    head->response.body = bytes.substr(head->body_at);
    return std::move(head->response);
  }

 private:
  static std::string Error() { return std::strerror(errno); }

  absl::Status ConnectTo(const addrinfo& address) {
    fd_.Reset(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd_.valid()) return base::Unavailable("socket: {}", Error());
    if (::connect(fd_.get(), address.ai_addr, address.ai_addrlen) == 0) return absl::OkStatus();
    if (errno != EINPROGRESS) {
      return base::Unavailable("connect to {}: {}", url_.authority, Error());
    }
    RETURN_IF_ERROR(Wait(POLLOUT, options_.connect_timeout_ms).status());
    int error = 0;
    socklen_t size = sizeof(error);
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
      return base::Unavailable("connect to {}: {}", url_.authority, std::strerror(error));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<short> Wait(int events, int timeout_ms) {
    const auto deadline = Clock::now() + std::chrono::milliseconds(timeout_ms);
    while (true) {
      if (options_.cancel != nullptr && *options_.cancel) return absl::CancelledError("stopped");
      pollfd one = {.fd = fd_.get(), .events = static_cast<short>(events), .revents = 0};
      const int ready = ::poll(&one, 1, kSliceMs);
      if (ready > 0) return one.revents;
      if (ready < 0 && errno != EINTR) return base::Unavailable("poll: {}", Error());
      if (Clock::now() >= deadline) {
        return absl::DeadlineExceededError(url_.authority + " does not answer");
      }
    }
  }

  const PlainHttpUrl& url_;
  const PlainHttpOptions& options_;
  base::UniqueFd fd_;
};

// True when the peer answers before all of it was sent.
absl::StatusOr<bool> SendBody(Exchange& exchange, const PlainBodyProducer& produce) {
  std::string buffer(kChunkBytes, '\0');
  while (true) {
    ASSIGN_OR_RETURN(const size_t bytes, produce(buffer.data(), buffer.size()));
    std::string chunk = fmt::format("{:x}\r\n", bytes);
    chunk.append(buffer.data(), bytes).append("\r\n");
    ASSIGN_OR_RETURN(const bool answered, exchange.Send(chunk));
    if (answered || bytes == 0) return answered;
  }
}

}  // namespace

absl::StatusOr<PlainHttpUrl> ParsePlainHttpUrl(std::string_view url) {
  const auto bad = [url](std::string_view why) {
    return base::InvalidArgument("\"{}\": {}; HOST:PORT or http://HOST:PORT is expected", url, why);
  };
  std::string_view rest = url;
  if (const size_t scheme = rest.find("://"); scheme != std::string_view::npos) {
    if (rest.substr(0, scheme) != "http") return bad("only http is spoken");
    rest.remove_prefix(scheme + 3);
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const bool strange = std::ranges::any_of(
      rest, [](char c) { return c <= ' ' || c >= 127 || std::strchr("/?#@\\%\"", c) != nullptr; });
  if (rest.empty() || strange) return bad("not an address");
  PlainHttpUrl out = {.host = {}, .port = "80", .authority = std::string(rest)};
  size_t host_end = rest.find(':');
  if (rest.front() == '[') {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos || close == 1) return bad("not an address");
    out.host = rest.substr(1, close - 1);
    host_end = close + 1;
  } else {
    out.host = rest.substr(0, host_end);
  }
  if (out.host.empty()) return bad("there is no host");
  if (host_end < rest.size()) {
    const auto port = Number(rest.substr(host_end + 1));
    if (rest[host_end] != ':' || !port || *port == 0 || *port > 65535) return bad("not a port");
    out.port = std::to_string(*port);
  }
  return out;
}

absl::StatusOr<PlainHttpHead> ParsePlainHttpHead(std::string_view bytes) {
  const size_t end = bytes.find("\r\n\r\n");
  if (end == std::string_view::npos) {
    if (bytes.size() > kMaxHeadBytes) return base::InvalidArgument("the head is too large");
    return base::NotFound("not whole");
  }
  if (end > kMaxHeadBytes) return base::InvalidArgument("the head is too large");
  PlainHttpHead head;
  head.body_at = end + 4;
  std::string_view rest = bytes.substr(0, end + 2);
  for (bool first = true; !rest.empty(); first = false) {
    const size_t line_end = rest.find("\r\n");
    const std::string_view line = rest.substr(0, line_end);
    rest.remove_prefix(line_end + 2);
    if (first) {  // "HTTP/1.1 201 Created"
      const auto status = line.size() < 12 ? std::nullopt : Number(line.substr(9, 3));
      if (!line.starts_with("HTTP/1.") || line[8] != ' ' || !status || *status < 100) {
        return base::InvalidArgument("not an answer of an HTTP server");
      }
      head.response.status = static_cast<int>(*status);
      continue;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return base::InvalidArgument("a header without a colon");
    head.response.headers.emplace_back(Lower(line.substr(0, colon)),
                                       std::string(Trim(line.substr(colon + 1))));
    if (head.response.headers.back().first == "content-type") {
      head.response.content_type = head.response.headers.back().second;
    }
  }
  return head;
}

absl::StatusOr<HttpResponse> PlainHttp(const PlainHttpUrl& url, const PlainHttpRequest& request,
                                       const PlainHttpOptions& options) {
  Exchange exchange(url, options);
  RETURN_IF_ERROR(exchange.Connect());
  std::string head = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
                                 request.method, request.target, url.authority);
  for (const auto& [name, value] : request.headers) head += name + ": " + value + "\r\n";
  if (request.produce != nullptr) head += "Transfer-Encoding: chunked\r\n";
  ASSIGN_OR_RETURN(bool answered, exchange.Send(head + "\r\n"));
  if (!answered && request.produce != nullptr) {
    ASSIGN_OR_RETURN(answered, SendBody(exchange, request.produce));
  }
  return exchange.Receive();
}

}  // namespace firewatch::transport
