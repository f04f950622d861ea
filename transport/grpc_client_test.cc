// SPDX-License-Identifier: Apache-2.0
// What goes wrong below gRPC: servers that refuse, hang up, are silent or speak something else.
// That a real gRPC server understands us is shown by agent/upload/uploader_test.cc.
#include "transport/grpc_client.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::transport {
namespace {

using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// A listener on loopback. What a connection is told is up to the test.
class Listener {
 public:
  Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(socket_.get(), 8), 0);
    EXPECT_EQ(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  base::UniqueFd Accept() const {
    return base::UniqueFd(::accept(socket_.get(), nullptr, nullptr));
  }
  std::string server() const { return "127.0.0.1:" + std::to_string(port_); }
  void Close() { socket_.Reset(); }

 private:
  base::UniqueFd socket_;
  int port_ = 0;
};

// Answers every method with what it was asked; "/p.S/Refuse" with a status.
class EchoServer {
 public:
  EchoServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
  }
  ~EchoServer() { Stop(); }
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;
  void Stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  std::string server() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    explicit Reactor(std::string method) : method_(std::move(method)) { StartRead(&message_); }
    void OnReadDone(bool ok) override {
      if (!ok) return Finish(grpc::Status(grpc::StatusCode::INTERNAL, "no message"));
      if (method_ == "/p.S/Refuse") {
        return Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "not ünderstood"));
      }
      StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
    }
    void OnDone() override { delete this; }

   private:
    const std::string method_;
    grpc::ByteBuffer message_;
  };
  class Service final : public grpc::CallbackGenericService {
    grpc::ServerGenericBidiReactor* CreateReactor(
        grpc::GenericCallbackServerContext* context) override {
      return new Reactor(context->method());  // gRPC's callbacks end it
    }
  };

  Service service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

std::unique_ptr<GrpcClient> Client(const std::string& server, int timeout_ms = 5'000) {
  return GrpcClient::Create(
      {.server = server, .timeout_ms = timeout_ms, .max_answer_bytes = size_t{8} << 20});
}

TEST(GrpcClientTest, RealServer) {
  EchoServer server;
  const auto client = Client(server.server());
  EXPECT_FALSE(client->Ready());
  ASSERT_TRUE(client->Connect().ok());
  for (const size_t size : std::vector<size_t>{0, 10, 100'000, 3'000'000}) {
    EXPECT_TRUE(client->Ready());
    const std::string message(size, 'm');
    const auto answer = client->Call("/p.S/Echo", message);
    ASSERT_TRUE(answer.ok()) << base::ToString(answer.status());
    EXPECT_EQ(*answer, message);
  }
  const auto refused = client->Call("/p.S/Refuse", "x");
  EXPECT_TRUE(absl::IsInvalidArgument(refused.status()));
  EXPECT_EQ(base::Message(refused.status()), "not ünderstood");
  EXPECT_TRUE(client->Ready()) << "a refusal is an answer";
  server.Stop();
  EXPECT_FALSE(client->Ready()) << "seen without a call";
  EXPECT_TRUE(absl::IsUnavailable(client->Call("/p.S/Echo", "x").status()));
  const absl::Status again = client->Connect();
  EXPECT_TRUE(absl::IsUnavailable(again));
  EXPECT_THAT(std::string(base::Message(again)), HasSubstr("refused"));
}

TEST(GrpcClientTest, HttpOneServerIsNamed) {
  Listener listener;
  std::thread server([&] {
    const base::UniqueFd connection = listener.Accept();
    const std::string_view text = "HTTP/1.1 400 Bad Request\r\n\r\n";
    EXPECT_EQ(::send(connection.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
    char byte = 0;
    while (::recv(connection.get(), &byte, 1, 0) > 0) {
    }
  });
  const auto client = Client(listener.server());
  ASSERT_TRUE(client->Connect().ok());
  const auto answer = client->Call("/p.S/M", "x");
  EXPECT_TRUE(absl::IsUnavailable(answer.status()));
  EXPECT_THAT(std::string(base::Message(answer.status())), HasSubstr("no HTTP/2"));
  EXPECT_FALSE(client->Ready());
  server.join();
}

TEST(GrpcClientTest, ServerThatHangsUp) {
  Listener listener;
  std::thread server([&] { listener.Accept(); });
  const auto client = Client(listener.server());
  ASSERT_TRUE(client->Connect().ok());
  const auto answer = client->Call("/p.S/M", std::string(1'000'000, 'x'));
  EXPECT_TRUE(absl::IsUnavailable(answer.status())) << base::ToString(answer.status());
  server.join();
}

TEST(GrpcClientTest, SilentServerMeetsTheDeadline) {
  const Listener listener;
  const auto client = Client(listener.server(), /*timeout_ms=*/100);
  ASSERT_TRUE(client->Connect().ok());
  const auto answer = client->Call("/p.S/M", "x");
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status()));
  EXPECT_THAT(std::string(base::Message(answer.status())), HasSubstr("100 ms"));
  EXPECT_FALSE(client->Ready());
}

TEST(GrpcClientTest, CancelEndsACallAndAllLaterOnes) {
  const Listener listener;
  const auto client = Client(listener.server(), /*timeout_ms=*/60'000);
  ASSERT_TRUE(client->Connect().ok());
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    client->Cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(client->Call("/p.S/M", "x").status()));
  other.join();
  const absl::Status again = client->Connect();
  EXPECT_TRUE(again.ok() || absl::IsCancelled(again));
  EXPECT_FALSE(client->Call("/p.S/M", "x").ok());
}

TEST(GrpcClientTest, AddressesThatAreNone) {
  EXPECT_TRUE(absl::IsInvalidArgument(Client("127.0.0.1")->Connect()));
  EXPECT_TRUE(absl::IsInvalidArgument(Client("a b:1")->Connect()));
  EXPECT_TRUE(absl::IsUnavailable(Client("does-not-exist.invalid:1")->Connect()));
}

}  // namespace
}  // namespace firewatch::transport
