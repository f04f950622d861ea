// SPDX-License-Identifier: Apache-2.0
#include "transport/grpc_client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "transport/address.h"
#include "transport/grpc_session.h"

namespace firewatch::transport {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kReadBytes = size_t{16} << 10;
// More than a server has to say between two calls.
constexpr int kMaxIdleReads = 64;

struct AddressesFree {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, AddressesFree>;

absl::StatusOr<Addresses> Resolve(const std::string& server) {
  ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(server));
  if (!address.port) return base::InvalidArgument("\"{}\" names no port", server);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error =
      ::getaddrinfo(address.host.c_str(), std::to_string(*address.port).c_str(), &hints, &list);
  if (error != 0) {
    return base::Unavailable("{}: {}", address.host,
                             error == EAI_SYSTEM ? ::strerror(errno) : ::gai_strerror(error));
  }
  return Addresses(list);
}

class SocketGrpcClient final : public GrpcClient {
 public:
  explicit SocketGrpcClient(GrpcClientOptions options)
      : options_(std::move(options)), cancel_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    CHECK(cancel_event_.valid());
  }

  bool Ready() override;
  absl::Status Connect() override;
  absl::StatusOr<std::string> Call(std::string_view method, std::string_view message) override;
  void Disconnect() override {
    session_.reset();
    socket_.Reset();
    unsent_ = {};
  }
  void Cancel() override {
    cancelled_ = true;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(cancel_event_.get(), &one, sizeof(one));
  }

 private:
  // Until `socket` can do one of `events`, the deadline, or Cancel.
  absl::Status Wait(int socket, short events, Clock::time_point deadline) const;
  absl::Status ConnectTo(const addrinfo& address, Clock::time_point deadline);
  // Sends what the session has to say, as far as the socket takes it.
  absl::Status Send();
  // Reads what is there. False: nothing more at the moment.
  absl::StatusOr<bool> Receive();
  absl::Status RunCall(Clock::time_point deadline);
  Clock::time_point DeadlineFromNow() const {
    return Clock::now() + std::chrono::milliseconds(options_.timeout_ms);
  }

  const GrpcClientOptions options_;
  const base::UniqueFd cancel_event_;
  std::atomic<bool> cancelled_{false};
  base::UniqueFd socket_;
  std::unique_ptr<GrpcSession> session_;
  std::string_view unsent_;  // of the session's last output
};

absl::Status SocketGrpcClient::Wait(int socket, short events, Clock::time_point deadline) const {
  std::array<pollfd, 2> fds = {{{.fd = socket, .events = events, .revents = 0},
                                {.fd = cancel_event_.get(), .events = POLLIN, .revents = 0}}};
  for (;;) {
    if (cancelled_) return base::MakeStatus(absl::StatusCode::kCancelled, "cancelled");
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) {
      return base::MakeStatus(absl::StatusCode::kDeadlineExceeded,
                              fmt::format("no answer within {} ms", options_.timeout_ms));
    }
    const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return base::ErrnoStatus(errno, "poll");
    if (ready > 0 && fds[0].revents != 0) return absl::OkStatus();
  }
}

absl::Status SocketGrpcClient::ConnectTo(const addrinfo& address, Clock::time_point deadline) {
  base::UniqueFd socket(::socket(
      address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol));
  if (!socket.valid()) return base::ErrnoStatus(errno, "socket");
  const int on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return base::Unavailable("{}", ::strerror(errno));
    RETURN_IF_ERROR(Wait(socket.get(), POLLOUT, deadline));
    int error = 0;
    socklen_t size = sizeof(error);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return base::Unavailable("{}", ::strerror(error));
  }
  socket_ = std::move(socket);
  return absl::OkStatus();
}

absl::Status SocketGrpcClient::Connect() {
  Disconnect();
  const Clock::time_point deadline = DeadlineFromNow();
  ASSIGN_OR_RETURN(const Addresses addresses, Resolve(options_.server));
  absl::Status status = base::Unavailable("{} has no address", options_.server);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    status = ConnectTo(*address, deadline);
    if (status.ok() || absl::IsCancelled(status)) break;
  }
  RETURN_IF_ERROR(status);
  auto session = GrpcSession::Create({.authority = options_.server,
                                      .user_agent = options_.user_agent,
                                      .max_answer_bytes = options_.max_answer_bytes});
  if (!session.ok()) {
    Disconnect();
    return session.status();
  }
  session_ = *std::move(session);
  return absl::OkStatus();
}

absl::Status SocketGrpcClient::Send() {
  for (;;) {
    if (unsent_.empty()) {
      ASSIGN_OR_RETURN(unsent_, session_->TakeOutput());
      if (unsent_.empty()) return absl::OkStatus();
    }
    const ssize_t sent = ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return absl::OkStatus();
      return base::Unavailable("the connection broke: {}", ::strerror(errno));
    }
    unsent_.remove_prefix(static_cast<size_t>(sent));
  }
}

absl::StatusOr<bool> SocketGrpcClient::Receive() {
  std::array<char, kReadBytes> buffer;
  const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (got < 0) {
    if (errno == EINTR) return true;
    if (errno == EAGAIN) return false;
    return base::Unavailable("the connection broke: {}", ::strerror(errno));
  }
  if (got == 0) return base::Unavailable("the server closed the connection");
  RETURN_IF_ERROR(session_->Feed({buffer.data(), static_cast<size_t>(got)}));
  return true;
}

bool SocketGrpcClient::Ready() {
  if (session_ == nullptr) return false;
  absl::StatusOr<bool> more = true;
  for (int i = 0; i < kMaxIdleReads && more.ok() && *more; ++i) more = Receive();
  if (more.ok() && !*more && session_->usable() && Send().ok()) return true;
  Disconnect();
  return false;
}

absl::Status SocketGrpcClient::RunCall(Clock::time_point deadline) {
  for (;;) {
    RETURN_IF_ERROR(Send());
    if (session_->done()) return absl::OkStatus();
    const short events = static_cast<short>(POLLIN | (unsent_.empty() ? 0 : POLLOUT));
    RETURN_IF_ERROR(Wait(socket_.get(), events, deadline));
    absl::StatusOr<bool> more = true;
    while (more.ok() && *more && !session_->done()) more = Receive();
    // What came before the end may have been the result.
    if (session_->done()) return absl::OkStatus();
    RETURN_IF_ERROR(more.status());
  }
}

absl::StatusOr<std::string> SocketGrpcClient::Call(std::string_view method,
                                                   std::string_view message) {
  if (session_ == nullptr) return base::Unavailable("not connected");
  absl::Status status = session_->Begin(method, message, options_.timeout_ms);
  if (status.ok()) status = RunCall(DeadlineFromNow());
  if (!status.ok()) {
    Disconnect();
    return status;
  }
  return session_->TakeResult();
}

}  // namespace

std::unique_ptr<GrpcClient> GrpcClient::Create(GrpcClientOptions options) {
  return std::make_unique<SocketGrpcClient>(std::move(options));
}

}  // namespace firewatch::transport
