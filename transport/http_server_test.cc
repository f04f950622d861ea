// SPDX-License-Identifier: Apache-2.0
// The server over real sockets: good clients are served, whatever the bad ones do.
#include "transport/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "transport/http_client.h"

namespace firewatch::transport {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::HasSubstr;
using ::testing::StartsWith;

uint16_t PortOf(const std::string& address) {
  return static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

base::UniqueFd Connect(const std::string& address) {
  base::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(PortOf(address));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  return fd;
}

void Send(const base::UniqueFd& fd, std::string_view bytes) {
  // A refused peer may be cut off while it is still sending: that is no error of the test.
  (void)::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

// What arrives until the peer closes or `timeout` passes.
std::string ReadAll(const base::UniqueFd& fd, milliseconds timeout = milliseconds(10'000)) {
  const auto deadline = steady_clock::now() + timeout;
  std::string all;
  while (true) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now());
    pollfd poll{.fd = fd.get(), .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || ::poll(&poll, 1, static_cast<int>(left.count())) <= 0) return all;
    char buffer[4096];
    const ssize_t count = ::recv(fd.get(), buffer, sizeof(buffer), 0);
    if (count <= 0) return all;
    all.append(buffer, static_cast<size_t>(count));
  }
}

// True when the peer closes within `timeout`.
bool IsClosedWithin(const base::UniqueFd& fd, milliseconds timeout) {
  pollfd poll{.fd = fd.get(), .events = POLLIN, .revents = 0};
  char byte;
  return ::poll(&poll, 1, static_cast<int>(timeout.count())) == 1 &&
         ::recv(fd.get(), &byte, 1, 0) <= 0;
}

// Echoes what it understood; /slow waits for `gate`.
class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    auto server = HttpServer::Start(
        std::move(options), [this](const HttpRequest& request) { return Handle(request); },
        metrics_);
    ASSERT_TRUE(server.ok()) << base::ToString(server.status());
    server_ = *std::move(server);
  }

  HttpResponse Handle(const HttpRequest& request) {
    ++handled_;
    if (request.path == "/slow") gate_.get_future().wait();
    if (request.path == "/throw") throw std::bad_alloc();
    if (request.path == "/large") return {.body = std::string(3 << 20, 'y')};
    if (request.path == "/healthz") return {.body = "ok"};
    if (request.path == "/held") return {.status = 429, .body = "later", .hold_ms = 1'000};
    return {.body = request.method + " " + request.path + " " + request.body};
  }

  absl::StatusOr<HttpResponse> Get(const std::string& path, const HttpClientOptions& options = {}) {
    return HttpGet("http://" + server_->address() + path, options);
  }

  // One raw exchange with "Host: localhost" and "Connection: close" added.
  std::string Exchange(std::string_view request_line, std::string_view headers = "") {
    const base::UniqueFd fd = Connect(server_->address());
    Send(fd, std::string(request_line) + "\r\nHost: localhost\r\nConnection: close\r\n" +
                 std::string(headers) + "\r\n");
    return ReadAll(fd);
  }

  // Within some seconds: a client may see the end of a connection before the server has counted it.
  bool MetricIs(const std::string& name_and_labels, int value) {
    const std::string line = "\n" + name_and_labels + " " + std::to_string(value) + "\n";
    const auto deadline = steady_clock::now() + milliseconds(10'000);
    while (metrics_.Expose().find(line) == std::string::npos) {
      if (steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return true;
  }

  base::MetricsRegistry metrics_;
  std::promise<void> gate_;
  std::atomic<int> handled_{0};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, ServesGetAndPost) {
  Start();
  EXPECT_THAT(server_->address(), StartsWith("127.0.0.1:"));
  const auto got = Get("/a%20b?x=1");
  ASSERT_TRUE(got.ok()) << base::ToString(got.status());
  EXPECT_EQ(got->body, "GET /a b ");
  const auto posted =
      HttpPost("http://" + server_->address() + "/p", std::string(300'000, 'z'), "text/plain");
  ASSERT_TRUE(posted.ok());
  EXPECT_EQ(posted->body, "POST /p " + std::string(300'000, 'z'));
  EXPECT_TRUE(MetricIs("firewatch_http_requests_total{code=\"200\"}", 2));
}

TEST_F(HttpServerTest, ServesIpv6) {
  auto server = HttpServer::Start(
      {.address = "[::1]:0"}, [](const HttpRequest&) { return HttpResponse{.body = "six"}; },
      metrics_);
  if (!server.ok()) GTEST_SKIP() << "no IPv6 loopback here: " << base::ToString(server.status());
  EXPECT_THAT((*server)->address(), StartsWith("[::1]:"));
  const auto got = HttpGet("http://" + (*server)->address() + "/");
  ASSERT_TRUE(got.ok()) << base::ToString(got.status());
  EXPECT_EQ(got->body, "six");
}

TEST_F(HttpServerTest, SilentConnectionsDoNotDelayOthers) {
  Start();
  std::vector<base::UniqueFd> silent;
  for (int i = 0; i < 200; ++i) silent.push_back(Connect(server_->address()));
  std::vector<double> took_ms;
  for (int i = 0; i < 21; ++i) {
    const auto start = steady_clock::now();
    const auto got = Get("/healthz");
    took_ms.push_back(
        std::chrono::duration<double, std::milli>(steady_clock::now() - start).count());
    ASSERT_TRUE(got.ok()) << base::ToString(got.status());
    ASSERT_EQ(got->body, "ok");
  }
  std::sort(took_ms.begin(), took_ms.end());
  std::printf("GET /healthz beside 200 silent connections: median %.2f ms, worst %.2f ms\n",
              took_ms[10], took_ms.back());
  // The promise is 100 ms; a sanitized binary on a crowded machine gets ten times that.
  EXPECT_LT(took_ms.back(), 1'000);
}

TEST_F(HttpServerTest, ClosesConnectionsThatNeverFinishTheirHeaders) {
  Start({.header_timeout_ms = 300});
  const base::UniqueFd silent = Connect(server_->address());
  const base::UniqueFd half = Connect(server_->address());
  Send(half, "GET / HT");
  const base::UniqueFd slow = Connect(server_->address());
  const auto start = steady_clock::now();
  bool slow_closed = false;
  for (int i = 0; i < 200 && !slow_closed; ++i) {  // a byte each 50 ms would go on for 10 s
    Send(slow, "a");
    slow_closed = IsClosedWithin(slow, milliseconds(50));
  }
  EXPECT_TRUE(slow_closed);
  EXPECT_LT(steady_clock::now() - start, milliseconds(5'000));
  EXPECT_TRUE(IsClosedWithin(silent, milliseconds(5'000)));
  EXPECT_TRUE(IsClosedWithin(half, milliseconds(5'000)));
  EXPECT_TRUE(MetricIs("firewatch_http_timeouts_total", 3));
  EXPECT_EQ(handled_, 0);
}

TEST_F(HttpServerTest, ClosesIdleKeepAliveAndSlowBodies) {
  Start({.header_timeout_ms = 300, .body_timeout_ms = 300});
  const base::UniqueFd idle = Connect(server_->address());
  Send(idle, "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(ReadAll(idle, milliseconds(5'000)), HasSubstr("GET /a"));  // returns at the close
  EXPECT_TRUE(IsClosedWithin(idle, milliseconds(5'000)));
  const base::UniqueFd body = Connect(server_->address());
  Send(body, "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_TRUE(IsClosedWithin(body, milliseconds(5'000)));
  EXPECT_EQ(handled_, 1);
}

// Counts what it is given; "stop" in a piece is refused there and then.
struct SinkLog {
  std::atomic<size_t> bytes{0};
  std::atomic<size_t> largest_piece{0};
  std::atomic<int> opened{0}, finished{0}, destroyed{0};
};
class LogSink final : public BodySink {
 public:
  explicit LogSink(SinkLog& log) : log_(log) { ++log_.opened; }
  ~LogSink() override { ++log_.destroyed; }
  std::optional<HttpResponse> Take(std::string_view piece) override {
    log_.bytes += piece.size();
    log_.largest_piece = std::max<size_t>(log_.largest_piece, piece.size());
    if (piece.starts_with("stop")) return ErrorResponse(422, "stopped");
    return std::nullopt;
  }
  HttpResponse Finish() override {
    ++log_.finished;
    return {.status = 201, .body = std::to_string(log_.bytes)};
  }

 private:
  SinkLog& log_;
};

class HttpStreamTest : public HttpServerTest {
 protected:
  void StartStreams(HttpServerOptions options = {}) {
    options.stream.path_prefix = "/up/";
    options.stream.open = [this](const HttpRequest& request) -> StreamStart {
      if (request.path == "/up/no") return {.sink = nullptr, .refusal = ErrorResponse(409, "no")};
      return {.sink = std::make_unique<LogSink>(log_), .refusal = {}};
    };
    Start(std::move(options));
  }
  absl::StatusOr<HttpResponse> Put(const std::string& path, size_t bytes,
                                   const std::string& start = "") {
    size_t sent = 0;
    return HttpPut(
        "http://" + server_->address() + path,
        [&](char* buffer, size_t capacity) -> absl::StatusOr<size_t> {
          const size_t count = std::min(capacity, bytes - sent);
          std::fill_n(buffer, count, 'x');
          if (sent == 0) start.copy(buffer, count);
          sent += count;
          return count;
        },
        "application/octet-stream");
  }
  bool Becomes(const std::atomic<int>& value, int expected) {
    for (int i = 0; i < 500 && value != expected; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
    return value == expected;
  }

  SinkLog log_;
};

TEST_F(HttpStreamTest, LargeBodiesPassInPieces) {
  StartStreams({.max_body_bytes = 1000});
  const auto got = Put("/up/a", 20 << 20);
  ASSERT_TRUE(got.ok()) << base::ToString(got.status());
  EXPECT_EQ(got->status, 201);
  EXPECT_EQ(got->body, std::to_string(20 << 20));
  EXPECT_LE(log_.largest_piece, size_t{256} << 10);
  EXPECT_TRUE(Becomes(log_.destroyed, 1));
  EXPECT_EQ(handled_, 0);
  // The small bound holds for everything else.
  EXPECT_EQ(
      HttpPost("http://" + server_->address() + "/p", std::string(1001, 'z'), "text/plain")->status,
      413);
  const std::string empty = Exchange("PUT /up/a HTTP/1.1", "Content-Length: 0\r\n");
  EXPECT_THAT(empty, StartsWith("HTTP/1.1 201 Created"));
}

TEST_F(HttpStreamTest, RefusalsComeBeforeOrWithinTheBody) {
  StartStreams({.stream = {.max_body_bytes = 4 << 20}});
  EXPECT_EQ(Put("/up/no", 1 << 20)->status, 409);
  EXPECT_EQ(log_.opened, 0);
  EXPECT_EQ(Put("/up/a", 100, "stop")->status, 422);
  EXPECT_EQ(log_.finished, 0);
  EXPECT_TRUE(Becomes(log_.destroyed, 1));
  // The length is told: refused by it. In chunks: refused where the bound is met.
  EXPECT_THAT(Exchange("PUT /up/a HTTP/1.1", "Content-Length: 4194305\r\n"), HasSubstr(" 413 "));
  EXPECT_EQ(log_.opened, 1);
  const auto chunked = Put("/up/a", 6 << 20);
  if (chunked.ok()) EXPECT_EQ(chunked->status, 413);  // else cut off while it was sending
  EXPECT_TRUE(Becomes(log_.destroyed, 2));
  EXPECT_EQ(log_.finished, 0);
  EXPECT_THAT(Exchange("PUT /up/a HTTP/1.1",
                       "Origin: http://evil.example\r\nContent-Length: 4\r\n\r\nabcd"),
              HasSubstr(" 403 "));
  EXPECT_EQ(log_.opened, 2);
}

TEST_F(HttpStreamTest, SlowAndVanishedSendersLeaveNothing) {
  StartStreams({.body_timeout_ms = 300, .stream = {.max_streams = 2}});
  const std::string head =
      "PUT /up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nab";
  base::UniqueFd slow = Connect(server_->address());
  Send(slow, head);
  base::UniqueFd gone = Connect(server_->address());
  Send(gone, head);
  EXPECT_TRUE(Becomes(log_.opened, 2));
  EXPECT_THAT(Exchange("PUT /up/a HTTP/1.1", "Content-Length: 2\r\n\r\nab"), HasSubstr(" 503 "));
  gone.Reset();
  EXPECT_TRUE(IsClosedWithin(slow, milliseconds(5'000)));
  EXPECT_TRUE(Becomes(log_.destroyed, 2));
  EXPECT_EQ(log_.finished, 0);
  EXPECT_EQ(Put("/up/a", 1000)->status, 201);  // their places are free again
}

TEST_F(HttpStreamTest, StopsInTheMiddleOfABody) {
  StartStreams();
  const base::UniqueFd fd = Connect(server_->address());
  Send(fd, "PUT /up/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nab");
  EXPECT_TRUE(Becomes(log_.opened, 1));
  server_.reset();
  EXPECT_EQ(log_.destroyed, 1);
  EXPECT_EQ(log_.finished, 0);
}

TEST_F(HttpStreamTest, DownloadsPassInPiecesToo) {
  Start();
  size_t bytes = 0;
  const auto take = [&](std::string_view piece) -> absl::Status {
    bytes += piece.size();
    return absl::OkStatus();
  };
  const std::string url = "http://" + server_->address();
  EXPECT_EQ(HttpDownload(url + "/large", take)->status, 200);
  EXPECT_EQ(bytes, size_t{3} << 20);
  EXPECT_EQ(HttpDownload(url + "/large", take, {.max_body_bytes = 1 << 20}).status().code(),
            absl::StatusCode::kResourceExhausted);
  const auto full = [](std::string_view) { return base::ResourceExhausted("disk full"); };
  EXPECT_EQ(base::Message(HttpDownload(url + "/large", full).status()), "disk full");
  std::atomic<bool> cancel{true};
  EXPECT_EQ(HttpDownload(url + "/slow", take, {.cancel = &cancel}).status().code(),
            absl::StatusCode::kCancelled);
  gate_.set_value();
}

TEST_F(HttpServerTest, AnswersGarbageWithBadRequest) {
  Start();
  for (const std::string& garbage :
       {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
        std::string("\r\n\r\nfoo\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("GET\0/ HTTP/1.1\r\n\r\n", 18),
        std::string("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n"),
        std::string("GET / HTTP/1.1\r\nHost localhost\r\n\r\n")}) {
    const base::UniqueFd fd = Connect(server_->address());
    Send(fd, garbage);
    ::shutdown(fd.get(), SHUT_WR);
    EXPECT_THAT(ReadAll(fd), StartsWith("HTTP/1.1 400 ")) << garbage;
  }
  EXPECT_EQ(handled_, 0);
  EXPECT_TRUE(MetricIs("firewatch_http_malformed_total", 6));
  EXPECT_EQ(Get("/healthz")->body, "ok");
}

TEST_F(HttpServerTest, RefusesLargeBodiesBeforeReadingThem) {
  Start({.max_body_bytes = 1000});
  EXPECT_THAT(Exchange("POST / HTTP/1.1", "Content-Length: 4294967296\r\n"),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Exchange("POST / HTTP/1.1", "Content-Length: 18446744073709551615\r\n"),
              StartsWith("HTTP/1.1 413 "));
  // Chunks tell their size late.
  const base::UniqueFd fd = Connect(server_->address());
  Send(fd, "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" +
               std::string(2000, 'x') + "\r\n0\r\n\r\n");
  EXPECT_THAT(ReadAll(fd), StartsWith("HTTP/1.1 413 "));
  EXPECT_EQ(handled_, 0);
  EXPECT_TRUE(MetricIs("firewatch_http_requests_total{code=\"413\"}", 3));
}

TEST_F(HttpServerTest, RefusesLargeHeaders) {
  Start();
  EXPECT_THAT(Exchange("GET / HTTP/1.1", "X: " + std::string(40'000, 'x') + "\r\n"),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Exchange("GET /" + std::string(200'000, 'x') + " HTTP/1.1"),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Exchange("GET / HTTP/1.1", "X: " + std::string(20'000, 'x') + "\r\n"),
              StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, RefusesPathsThatLeaveOrLie) {
  Start();
  for (const char* path : {"/a%00b", "/../x", "/a/%2e%2e/x", "/%zz", "http://localhost/x"}) {
    EXPECT_THAT(Exchange(std::string("GET ") + path + " HTTP/1.1"), StartsWith("HTTP/1.1 400 "))
        << path;
  }
  EXPECT_EQ(handled_, 0);
}

TEST_F(HttpServerTest, RefusesForeignHostsAndOriginsBeforeAnyHandler) {
  Start({.allowed_hosts = {"profiles.example"}});
  const auto with = [&](std::string_view headers) {
    const base::UniqueFd fd = Connect(server_->address());
    Send(fd, "GET /x HTTP/1.1\r\nConnection: close\r\n" + std::string(headers) + "\r\n");
    return ReadAll(fd);
  };
  EXPECT_THAT(with("Host: evil.example\r\n"), StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(with("Host: localhost:7171\r\nOrigin: http://evil.example\r\n"),
              StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(with("Host: localhost\r\nHost: evil.example\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(with(""), StartsWith("HTTP/1.1 400 "));
  EXPECT_EQ(handled_, 0);
  EXPECT_THAT(with("Host: profiles.example\r\n"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(with("Host: localhost:7171\r\nOrigin: http://localhost:7171\r\n"),
              StartsWith("HTTP/1.1 200 "));
  EXPECT_TRUE(MetricIs("firewatch_http_forbidden_total{reason=\"host\"}", 1));
  EXPECT_TRUE(MetricIs("firewatch_http_forbidden_total{reason=\"origin\"}", 1));
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  Start();
  const base::UniqueFd fd = Connect(server_->address());
  std::string requests;
  for (int i = 0; i < 20; ++i) {
    requests += "POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n#" +
                std::to_string(i + 10);
  }
  Send(fd, requests + "GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const std::string answers = ReadAll(fd);
  size_t at = 0;
  for (int i = 0; i < 20; ++i) {
    at = answers.find("POST /p #" + std::to_string(i + 10), at);
    ASSERT_NE(at, std::string::npos) << i;
  }
  EXPECT_NE(answers.find("GET /last", at), std::string::npos);
}

TEST_F(HttpServerTest, HeadHasLengthButNoBody) {
  Start();
  const std::string answer = Exchange("HEAD /healthz HTTP/1.1");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 2\r\n"));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, SendsLargeAnswersWhole) {
  Start();
  const auto got = Get("/large");
  ASSERT_TRUE(got.ok()) << base::ToString(got.status());
  EXPECT_EQ(got->body, std::string(3 << 20, 'y'));
  const auto plain = Get("/large", {.accept_gzip = false});
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->body, std::string(3 << 20, 'y'));
}

TEST_F(HttpServerTest, CutsOffPeersThatDoNotRead) {
  Start({.write_timeout_ms = 300});
  const base::UniqueFd fd = Connect(server_->address());
  const int small = 4096;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
  for (int i = 0; i < 10; ++i) Send(fd, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(MetricIs("firewatch_http_timeouts_total", 1));
}

TEST_F(HttpServerTest, AThrowingHandlerFailsOneRequestOnly) {
  Start();
  EXPECT_EQ(Get("/throw")->status, 500);
  EXPECT_EQ(Get("/healthz")->status, 200);
}

TEST_F(HttpServerTest, AFullQueueIsAnsweredAtOnceAndExpressPathsPassIt) {
  Start({.workers = 1, .max_queued_requests = 2});
  const std::string request = "GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  const base::UniqueFd running = Connect(server_->address());
  Send(running, request);
  while (handled_ == 0) std::this_thread::sleep_for(milliseconds(1));
  std::vector<base::UniqueFd> waiting;
  for (int i = 0; i < 2; ++i) {
    waiting.push_back(Connect(server_->address()));
    Send(waiting.back(), "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  }
  // Both are queued once a third is refused; until then a probe may itself take their place.
  std::string refused;
  const auto deadline = steady_clock::now() + milliseconds(10'000);
  while (!refused.starts_with("HTTP/1.1 503 ") && steady_clock::now() < deadline) {
    const base::UniqueFd probe = Connect(server_->address());
    Send(probe, "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    refused = ReadAll(probe, milliseconds(200));
  }
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(refused, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_EQ(Get("/healthz")->body, "ok");
  gate_.set_value();
  EXPECT_THAT(ReadAll(running), HasSubstr("GET /slow"));
}

TEST_F(HttpServerTest, EvictsTheLongestIdleConnectionAtTheLimit) {
  Start({.max_connections = 3});
  std::vector<base::UniqueFd> silent;
  for (int i = 0; i < 3; ++i) {
    silent.push_back(Connect(server_->address()));
    std::this_thread::sleep_for(milliseconds(20));  // so that their order is known
  }
  EXPECT_EQ(Get("/healthz")->body, "ok");
  EXPECT_TRUE(IsClosedWithin(silent[0], milliseconds(10'000)));
  EXPECT_FALSE(IsClosedWithin(silent[2], milliseconds(50)));
  EXPECT_TRUE(MetricIs("firewatch_http_connections_evicted_total", 1));
}

TEST_F(HttpServerTest, RefusesNewcomersWhenEveryConnectionIsBusy) {
  Start({.max_connections = 1});
  const base::UniqueFd busy = Connect(server_->address());
  Send(busy, "GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  while (handled_ == 0) std::this_thread::sleep_for(milliseconds(1));
  const base::UniqueFd newcomer = Connect(server_->address());
  EXPECT_TRUE(IsClosedWithin(newcomer, milliseconds(5'000)));
  EXPECT_TRUE(MetricIs("firewatch_http_connections_refused_total", 1));
  gate_.set_value();
  EXPECT_THAT(ReadAll(busy), HasSubstr("GET /slow"));
}

TEST_F(HttpServerTest, StoppingLetsARunningRequestFinish) {
  Start();
  const base::UniqueFd fd = Connect(server_->address());
  Send(fd, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
  while (handled_ == 0) std::this_thread::sleep_for(milliseconds(1));
  const base::UniqueFd silent = Connect(server_->address());
  std::thread opener([this] {
    std::this_thread::sleep_for(milliseconds(100));
    gate_.set_value();
  });
  server_.reset();
  opener.join();
  EXPECT_THAT(ReadAll(fd), HasSubstr("GET /slow"));
  EXPECT_TRUE(IsClosedWithin(silent, milliseconds(10'000)));
}

// An answer that is held back holds up nobody else, and is whole when it comes.
TEST_F(HttpServerTest, HoldsAnAnswerBackWithoutAWorker) {
  Start({.workers = 1});
  std::vector<base::UniqueFd> held;
  for (int i = 0; i < 80; ++i) {
    held.push_back(Connect(server_->address()));
    Send(held.back(), "GET /held HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  }
  // Of 80, 64 wait; the others have their answer at once.
  const auto start = steady_clock::now();
  EXPECT_THAT(Exchange("GET /echo HTTP/1.1"), StartsWith("HTTP/1.1 200"));
  EXPECT_LT(steady_clock::now() - start, milliseconds(1'000));
  size_t early = 0;
  for (const base::UniqueFd& fd : held) {
    pollfd poll{.fd = fd.get(), .events = POLLIN, .revents = 0};
    early += ::poll(&poll, 1, 0) == 1 ? 1 : 0;
  }
  EXPECT_LT(early, held.size());
  for (const base::UniqueFd& fd : held) EXPECT_THAT(ReadAll(fd), StartsWith("HTTP/1.1 429"));
}

// The peer goes away meanwhile, and the server does: nothing hangs.
TEST_F(HttpServerTest, StopsWhileAnAnswerIsHeldBack) {
  Start();
  for (int i = 0; i < 4; ++i) {
    const base::UniqueFd gone = Connect(server_->address());
    Send(gone, "GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }
  const base::UniqueFd stays = Connect(server_->address());
  Send(stays, "GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(Exchange("GET /echo HTTP/1.1"), StartsWith("HTTP/1.1 200"));
  server_.reset();
}

TEST_F(HttpServerTest, ContinuesWhenAClientWaitsForPermission) {
  Start();
  const base::UniqueFd fd = Connect(server_->address());
  Send(fd,
       "POST /p HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
       "Connection: close\r\n\r\n");
  std::string permission;
  const auto deadline = steady_clock::now() + milliseconds(10'000);
  while (permission.empty() && steady_clock::now() < deadline) {
    permission = ReadAll(fd, milliseconds(200));
  }
  EXPECT_EQ(permission, "HTTP/1.1 100 Continue\r\n\r\n");
  Send(fd, "hi");
  EXPECT_THAT(ReadAll(fd), HasSubstr("POST /p hi"));
}

TEST_F(HttpServerTest, SaysWhyItCannotListen) {
  Start();
  const auto start = [&](std::string address) {
    return HttpServer::Start(
               {.address = std::move(address)}, [](const HttpRequest&) { return HttpResponse{}; },
               metrics_)
        .status();
  };
  const absl::Status taken = start(server_->address());
  EXPECT_THAT(base::ToString(taken),
              HasSubstr("listen on " + server_->address() + ": Address already in use"));
  EXPECT_EQ(start("0.0.0.0:0").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(start("nonsense").code(), absl::StatusCode::kInvalidArgument);
}

TEST(HttpClientTest, TellsItsErrorsApart) {
  EXPECT_EQ(HttpGet("file:///etc/hostname").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HttpGet("http://[").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HttpGet("http://127.0.0.1:1/").status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(HttpServerTest, TheClientBoundsTimeAndSize) {
  Start();
  EXPECT_EQ(Get("/slow", {.timeout_ms = 200}).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Get("/large", {.max_body_bytes = 1000}).status().code(),
            absl::StatusCode::kResourceExhausted);
  gate_.set_value();
}

}  // namespace
}  // namespace firewatch::transport
