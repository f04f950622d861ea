// SPDX-License-Identifier: Apache-2.0
#include "transport/plain_http.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>

#include "base/metrics.h"
#include "base/status.h"

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

TEST(PlainHttpTest, HeadsThatAreNoneAreRefused) {
  EXPECT_EQ(ParsePlainHttpHead("HTTP/1.1 200 OK\r\n").status().code(), absl::StatusCode::kNotFound);
  for (const char* bad : {"\r\n\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n",
                          "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"}) {
    EXPECT_EQ(ParsePlainHttpHead(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(ParsePlainHttpHead(std::string(100'000, 'a')).status().code(),
            absl::StatusCode::kInvalidArgument);
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
