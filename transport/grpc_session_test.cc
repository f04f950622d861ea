// SPDX-License-Identifier: Apache-2.0
// Against a server of nghttp2's in memory, which says what real servers and proxies may say.
#include "transport/grpc_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <map>
#include <utility>
#include <vector>

#include "base/status.h"

namespace firewatch::transport {
namespace {

using ::testing::HasSubstr;
using Headers = std::vector<std::pair<std::string, std::string>>;

const Headers kOkHeaders = {{":status", "200"}, {"content-type", "application/grpc"}};

std::string Framed(std::string_view message, char flag = 0) {
  std::string out(1, flag);
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(message.size() >> shift);
  return out + std::string(message);
}

std::vector<nghttp2_nv> Pairs(const Headers& headers) {
  std::vector<nghttp2_nv> out;
  for (const auto& [name, value] : headers) {
    out.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                   reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(),
                   value.size(), NGHTTP2_NV_FLAG_NONE});
  }
  return out;
}

class Server {
 public:
  Server() {
    nghttp2_session_callbacks* callbacks = nullptr;
    ::nghttp2_session_callbacks_new(&callbacks);
    ::nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t, void* self) {
          static_cast<Server*>(self)
              ->request[std::string(reinterpret_cast<const char*>(name), name_size)] =
              std::string(reinterpret_cast<const char*>(value), value_size);
          return 0;
        });
    ::nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks,
        [](nghttp2_session*, uint8_t, int32_t, const uint8_t* data, size_t size, void* self) {
          static_cast<Server*>(self)->body.append(reinterpret_cast<const char*>(data), size);
          return 0;
        });
    ::nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          if (frame->hd.type == NGHTTP2_DATA && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
            static_cast<Server*>(self)->stream = frame->hd.stream_id;
          }
          return 0;
        });
    ::nghttp2_session_server_new(&session, callbacks, this);
    ::nghttp2_session_callbacks_del(callbacks);
    ::nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, nullptr, 0);
  }
  ~Server() { ::nghttp2_session_del(session); }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Headers, then `data`, then `trailers`.
  void Answer(const Headers& headers, std::string data, Headers trailers) {
    answer_ = std::move(data);
    trailers_ = std::move(trailers);
    nghttp2_data_provider provider{};
    provider.source.ptr = this;
    provider.read_callback = [](nghttp2_session* inner, int32_t id, uint8_t* out, size_t capacity,
                                uint32_t* flags, nghttp2_data_source* source, void*) {
      auto& self = *static_cast<Server*>(source->ptr);
      const size_t size = std::min(capacity, self.answer_.size());
      std::copy_n(self.answer_.begin(), size, out);
      self.answer_.erase(0, size);
      if (self.answer_.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (!self.trailers_.empty()) {
          *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
          const auto pairs = Pairs(self.trailers_);
          ::nghttp2_submit_trailer(inner, id, pairs.data(), pairs.size());
        }
      }
      return static_cast<ssize_t>(size);
    };
    const auto pairs = Pairs(headers);
    ::nghttp2_submit_response(session, stream, pairs.data(), pairs.size(), &provider);
  }
  void AnswerHeadersOnly(const Headers& headers) {
    const auto pairs = Pairs(headers);
    ::nghttp2_submit_response(session, stream, pairs.data(), pairs.size(), nullptr);
  }

  nghttp2_session* session = nullptr;
  std::map<std::string, std::string> request;
  std::string body;
  int32_t stream = 0;  // of the last request that is whole

 private:
  std::string answer_;
  Headers trailers_;
};

class GrpcSessionTest : public ::testing::Test {
 protected:
  GrpcSessionTest()
      : client_(*GrpcSession::Create(
            {.authority = "node:7070", .user_agent = "test/1", .max_answer_bytes = 100})) {}

  // Bytes both ways until nobody has any; the client gets them in pieces.
  absl::Status Exchange(size_t piece = 1'000'000) {
    for (bool moved = true; moved;) {
      moved = false;
      for (;;) {
        const auto output = client_->TakeOutput();
        if (!output.ok()) return output.status();
        if (output->empty()) break;
        moved = true;
        EXPECT_GE(
            ::nghttp2_session_mem_recv(
                server_.session, reinterpret_cast<const uint8_t*>(output->data()), output->size()),
            0);
      }
      const uint8_t* data = nullptr;
      ssize_t size = 0;
      while ((size = ::nghttp2_session_mem_send(server_.session, &data)) > 0) {
        moved = true;
        std::string_view bytes(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
        for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size()))) {
          if (absl::Status fed = client_->Feed(bytes.substr(0, piece)); !fed.ok()) return fed;
        }
      }
    }
    return absl::OkStatus();
  }
  // A call up to where the server has all of it.
  void Ask(std::string_view message) {
    message_ = message;
    ASSERT_TRUE(client_->Begin("/p.S/M", message_, 1500).ok());
    ASSERT_TRUE(Exchange().ok());
    ASSERT_NE(server_.stream, 0);
  }

  Server server_;
  std::unique_ptr<GrpcSession> client_;
  std::string message_;
};

TEST_F(GrpcSessionTest, CallAndAnswer) {
  Ask("question");
  EXPECT_EQ(server_.body, Framed("question"));
  EXPECT_EQ(server_.request[":path"], "/p.S/M");
  EXPECT_EQ(server_.request[":authority"], "node:7070");
  EXPECT_EQ(server_.request["te"], "trailers");
  EXPECT_EQ(server_.request["content-type"], "application/grpc");
  EXPECT_EQ(server_.request["grpc-timeout"], "1500m");
  EXPECT_EQ(server_.request["user-agent"], "test/1");
  EXPECT_FALSE(client_->done());
  server_.Answer(kOkHeaders, Framed("answer"), {{"grpc-status", "0"}});
  ASSERT_TRUE(Exchange(/*piece=*/1).ok());
  ASSERT_TRUE(client_->done());
  const auto result = client_->TakeResult();
  ASSERT_TRUE(result.ok()) << base::ToString(result.status());
  EXPECT_EQ(*result, "answer");
  EXPECT_TRUE(client_->usable());
}

TEST_F(GrpcSessionTest, LargeMessagesAreSentWholeAndCallsFollowEachOther) {
  for (const size_t size : std::vector<size_t>{0, 1, 16'384, 16'379, 3'000'000}) {
    server_.body.clear();
    server_.stream = 0;
    const std::string message(size, 'x');
    Ask(message);
    EXPECT_EQ(server_.body, Framed(message)) << size;
    server_.Answer(kOkHeaders, Framed(""), {{"grpc-status", "0"}});
    ASSERT_TRUE(Exchange().ok());
    ASSERT_TRUE(client_->done());
    ASSERT_TRUE(client_->TakeResult().ok());
  }
}

TEST_F(GrpcSessionTest, StatusOfTheServer) {
  Ask("q");
  server_.AnswerHeadersOnly({{":status", "200"},
                             {"content-type", "application/grpc"},
                             {"grpc-status", "8"},
                             {"grpc-message", "no%20room, 100% full"}});
  ASSERT_TRUE(Exchange().ok());
  ASSERT_TRUE(client_->done());
  const auto result = client_->TakeResult();
  EXPECT_TRUE(absl::IsResourceExhausted(result.status()));
  EXPECT_EQ(base::Message(result.status()), "no room, 100% full");
}

TEST_F(GrpcSessionTest, ErrorAfterData) {
  Ask("q");
  server_.Answer(kOkHeaders, Framed("half an answer"),
                 {{"grpc-status", "13"}, {"grpc-message", "late"}});
  ASSERT_TRUE(Exchange().ok());
  const auto result = client_->TakeResult();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(base::Message(result.status()), "late");
}

TEST_F(GrpcSessionTest, StrangeStatusesAreUnknown) {
  for (const char* status : {"17", "-1", "x", ""}) {
    Ask("q");
    server_.AnswerHeadersOnly({{":status", "200"}, {"grpc-status", status}});
    ASSERT_TRUE(Exchange().ok());
    ASSERT_TRUE(client_->done());
    EXPECT_EQ(client_->TakeResult().status().code(), absl::StatusCode::kUnknown) << status;
  }
}

TEST_F(GrpcSessionTest, ProxyThatAnswersForTheServer) {
  const std::map<std::string, absl::StatusCode> wanted = {
      {"400", absl::StatusCode::kInternal},         {"401", absl::StatusCode::kUnauthenticated},
      {"403", absl::StatusCode::kPermissionDenied}, {"404", absl::StatusCode::kUnimplemented},
      {"429", absl::StatusCode::kUnavailable},      {"503", absl::StatusCode::kUnavailable},
      {"302", absl::StatusCode::kUnknown}};
  for (const auto& [http, code] : wanted) {
    Ask("q");
    server_.Answer({{":status", http}, {"content-type", "text/html"}}, "<html>", {});
    ASSERT_TRUE(Exchange().ok());
    ASSERT_TRUE(client_->done());
    const auto result = client_->TakeResult();
    EXPECT_EQ(result.status().code(), code);
    EXPECT_THAT(std::string(base::Message(result.status())), HasSubstr(http));
  }
}

TEST_F(GrpcSessionTest, AnswersThatAreNone) {
  const std::vector<std::string> bodies = {"", "abc", Framed("x", 1), Framed("x") + "y",
                                           Framed("xyz").substr(0, 6)};
  for (const std::string& body : bodies) {
    Ask("q");
    server_.Answer(kOkHeaders, body, {{"grpc-status", "0"}});
    ASSERT_TRUE(Exchange().ok());
    ASSERT_TRUE(client_->done());
    EXPECT_EQ(client_->TakeResult().status().code(), absl::StatusCode::kInternal) << body;
  }
}

TEST_F(GrpcSessionTest, AnswerThatIsTooLarge) {
  Ask("q");
  server_.Answer(kOkHeaders, Framed(std::string(101, 'x')), {{"grpc-status", "0"}});
  ASSERT_TRUE(Exchange().ok());
  ASSERT_TRUE(client_->done());
  EXPECT_TRUE(absl::IsResourceExhausted(client_->TakeResult().status()));
  // The connection is as good as before.
  EXPECT_TRUE(client_->usable());
  server_.stream = 0;
  Ask("q");
  server_.Answer(kOkHeaders, Framed(std::string(100, 'x')), {{"grpc-status", "0"}});
  ASSERT_TRUE(Exchange().ok());
  ASSERT_TRUE(client_->done());
  EXPECT_TRUE(client_->TakeResult().ok());
}

TEST_F(GrpcSessionTest, StreamThatIsReset) {
  Ask("q");
  ::nghttp2_submit_rst_stream(server_.session, NGHTTP2_FLAG_NONE, server_.stream,
                              NGHTTP2_REFUSED_STREAM);
  ASSERT_TRUE(Exchange().ok());
  ASSERT_TRUE(client_->done());
  const auto result = client_->TakeResult();
  EXPECT_TRUE(absl::IsUnavailable(result.status()));
  EXPECT_THAT(std::string(base::Message(result.status())), HasSubstr("REFUSED_STREAM"));
}

TEST_F(GrpcSessionTest, GoodbyeLetsTheCallEndAndNoOtherBegin) {
  Ask("q");
  ::nghttp2_submit_goaway(server_.session, NGHTTP2_FLAG_NONE, server_.stream, NGHTTP2_NO_ERROR,
                          nullptr, 0);
  ASSERT_TRUE(Exchange().ok());
  EXPECT_FALSE(client_->usable());
  EXPECT_FALSE(client_->done());
  server_.Answer(kOkHeaders, Framed("a"), {{"grpc-status", "0"}});
  ASSERT_TRUE(Exchange().ok());
  ASSERT_TRUE(client_->done());
  EXPECT_TRUE(client_->TakeResult().ok());
}

TEST(GrpcSessionBytesTest, ServerThatSpeaksHttp1) {
  const auto client = *GrpcSession::Create({.authority = "a:1"});
  ASSERT_TRUE(client->Begin("/p.S/M", "m", 1000).ok());
  ASSERT_TRUE(client->TakeOutput().ok());
  absl::Status status = client->Feed("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  for (int i = 0; i < 20 && status.ok(); ++i) status = client->TakeOutput().status();
  // What was not sent yet ends without having been.
  if (status.ok() && client->done()) status = client->TakeResult().status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << base::ToString(status);
}

TEST(DecodeGrpcMessageTest, BrokenEscapesStay) {
  EXPECT_EQ(DecodeGrpcMessage("a%20b%zz%4"), "a b%zz%4");
  EXPECT_EQ(DecodeGrpcMessage("%C3%A4%"), "ä%");
}

}  // namespace
}  // namespace firewatch::transport
