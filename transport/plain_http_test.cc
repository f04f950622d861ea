// SPDX-License-Identifier: Apache-2.0
#include "transport/plain_http.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/metrics.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::transport {
namespace {

using testing::HasSubstr;

TEST(PlainHttpTest, AddressesAreTakenApart) {
  const auto url = ParsePlainHttpUrl("http://[::1]:7171/");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, "7171");
  EXPECT_EQ(url->authority, "[::1]:7171");
  EXPECT_EQ(ParsePlainHttpUrl("node")->port, "80");
  for (const char* bad : {"", "https://a:1", "a:0", "a:70000", "a:x", ":1", "a/b", "[]:1", "[::1",
                          "a b", "u@a:1", "[::1]x", "http://"}) {
    EXPECT_EQ(ParsePlainHttpUrl(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

// A server that says one thing to whoever comes, and hangs up.
class OneLineServer {
 public:
  explicit OneLineServer(std::string said) {
    listener_.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    CHECK(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    CHECK(::listen(listener_.get(), 1) == 0);
    CHECK(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    url_ = *ParsePlainHttpUrl(fmt::format("127.0.0.1:{}", ntohs(address.sin_port)));
    thread_ = std::thread([this, said = std::move(said)] {
      const base::UniqueFd peer(::accept(listener_.get(), nullptr, nullptr));
      std::array<char, 4096> request{};
      (void)::recv(peer.get(), request.data(), request.size(), 0);
      (void)::send(peer.get(), said.data(), said.size(), MSG_NOSIGNAL);
      ::shutdown(peer.get(), SHUT_WR);
      (void)::recv(peer.get(), request.data(), request.size(), 0);
    });
  }
  ~OneLineServer() { thread_.join(); }
  const PlainHttpUrl& url() const { return url_; }

 private:
  base::UniqueFd listener_;
  PlainHttpUrl url_;
  std::thread thread_;
};

TEST(PlainHttpTest, AnswersThatAreNoneAreRefused) {
  for (const char* bad : {"", "\r\n\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n",
                          "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\n",
                          "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n123",
                          "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"}) {
    const OneLineServer server(bad);
    EXPECT_EQ(PlainHttp(server.url(), {}, {}).status().code(), absl::StatusCode::kUnavailable)
        << bad;
  }
  const OneLineServer head("HTTP/1.1 200 OK\r\nx: " + std::string(100'000, 'a'));
  EXPECT_EQ(PlainHttp(head.url(), {}, {}).status().code(), absl::StatusCode::kUnavailable);
  const OneLineServer body("HTTP/1.1 200 OK\r\n\r\n" + std::string(100'000, 'a'));
  EXPECT_EQ(PlainHttp(body.url(), {}, {.max_answer_bytes = 50'000}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(PlainHttpTest, ABodyMayEndWithTheConnectionOrComeInChunks) {
  for (const char* good :
       {"HTTP/1.0 404 Not Found\r\nContent-Type: a/b\r\n\r\nno\nwhere",
        "HTTP/1.1 404 Not Found\r\nContent-Type: a/b\r\n"
        "Transfer-Encoding: chunked\r\n\r\n3\r\nno\n\r\n5\r\nwhere\r\n0\r\n\r\n"}) {
    const OneLineServer server(good);
    const auto answer = PlainHttp(server.url(), {}, {});
    ASSERT_TRUE(answer.ok()) << base::ToString(answer.status());
    EXPECT_EQ(answer->status, 404);
    EXPECT_EQ(answer->body, "no\nwhere");
    EXPECT_EQ(answer->content_type, "a/b");
  }
}

TEST(PlainHttpTest, SilenceIsADeadline) {
  const base::UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const auto url = ParsePlainHttpUrl(fmt::format("127.0.0.1:{}", ntohs(address.sin_port)));
  EXPECT_EQ(PlainHttp(*url, {}, {.stall_timeout_ms = 100}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  // It never reads: the socket's buffers fill up, and then nothing moves.
  const auto endless = [](char* buffer, size_t capacity) -> absl::StatusOr<size_t> {
    std::memset(buffer, 0, capacity);
    return capacity;
  };
  EXPECT_EQ(PlainHttp(*url, {.method = "PUT", .produce = endless}, {.stall_timeout_ms = 300})
                .status()
                .code(),
            absl::StatusCode::kDeadlineExceeded);
}

class PlainHttpServerTest : public testing::Test {
 protected:
  // Counts what is streamed to it; refuses it from the start below /full.
  struct CountingSink final : BodySink {
    explicit CountingSink(size_t& counter) : bytes(counter) {}
    std::optional<HttpResponse> Take(std::string_view piece) override {
      bytes += piece.size();
      return std::nullopt;
    }
    HttpResponse Finish() override { return {.status = 201, .body = "taken"}; }
    size_t& bytes;
  };
  void SetUp() override {
    HttpServerOptions options;
    options.stream = {.path_prefix = "/in", .open = [this](const HttpRequest& request) {
                        StreamStart start;
                        if (request.path == "/in/full") {
                          start.refusal = ErrorResponse(507, "full");
                        } else {
                          start.sink = std::make_unique<CountingSink>(bytes_);
                        }
                        return start;
                      }};
    auto server = HttpServer::Start(
        options,
        [](const HttpRequest& request) {
          return HttpResponse{.body = request.method + " " + request.path};
        },
        metrics_);
    ASSERT_TRUE(server.ok());
    server_ = *std::move(server);
    url_ = *ParsePlainHttpUrl(server_->address());
  }
  PlainBodyProducer Zeros(size_t bytes) {
    return [left = bytes](char* buffer, size_t capacity) mutable -> absl::StatusOr<size_t> {
      const size_t now = std::min(left, capacity);
      std::memset(buffer, 0, now);
      left -= now;
      return now;
    };
  }
  base::MetricsRegistry metrics_;
  size_t bytes_ = 0;  // of the thread of streams, read after its answer
  std::unique_ptr<HttpServer> server_;
  PlainHttpUrl url_;
};

TEST_F(PlainHttpServerTest, OurServerAnswers) {
  const auto answer = PlainHttp(url_, {.target = "/a"}, {});
  ASSERT_TRUE(answer.ok()) << base::ToString(answer.status());
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "GET /a");
}

TEST_F(PlainHttpServerTest, ABodyOfAnySizeIsSentInPieces) {
  const auto answer =
      PlainHttp(url_, {.method = "PUT", .target = "/in/x", .produce = Zeros(size_t{5} << 20)}, {});
  ASSERT_TRUE(answer.ok()) << base::ToString(answer.status());
  EXPECT_EQ(answer->status, 201);
  EXPECT_EQ(answer->body, "taken");
  EXPECT_EQ(bytes_, size_t{5} << 20);
}

TEST_F(PlainHttpServerTest, ARefusalIsReadBeforeAllIsSent) {
  const auto answer = PlainHttp(
      url_, {.method = "PUT", .target = "/in/full", .produce = Zeros(size_t{1} << 30)}, {});
  // A reset may overtake the answer; then the exchange fails, and soon.
  if (answer.ok()) {
    EXPECT_EQ(answer->status, 507);
  } else {
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kUnavailable);
  }
}

TEST_F(PlainHttpServerTest, AProducerThatFailsAndACancellationEndIt) {
  const auto failed = PlainHttp(url_,
                                {.method = "PUT",
                                 .target = "/in/x",
                                 .produce = [](char*, size_t) -> absl::StatusOr<size_t> {
                                   return base::DataLoss("cut off");
                                 }},
                                {});
  EXPECT_THAT(std::string(base::Message(failed.status())), HasSubstr("cut off"));
  const std::atomic<bool> cancel = true;
  EXPECT_EQ(PlainHttp(url_, {}, {.cancel = &cancel}).status().code(), absl::StatusCode::kCancelled);
  server_.reset();
  EXPECT_EQ(PlainHttp(url_, {}, {}).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace firewatch::transport
