// SPDX-License-Identifier: Apache-2.0
// A channel is used for one connection and then thrown away: gRPC would otherwise reconnect behind
// our back, without a Hello and by a backoff of its own beside the uploader's.
#include "agent/upload/ingest_client.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "proto/ingest.grpc.pb.h"

namespace firewatch::agent {
namespace {

// gRPC's codes have the numbers of Abseil's.
absl::Status FromGrpc(const grpc::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  return base::MakeStatus(static_cast<absl::StatusCode>(status.error_code()),
                          fmt::format("{}: {}", what, status.error_message()));
}

grpc::ChannelArguments Arguments(int rpc_timeout_ms) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Nothing is shared with the channel that failed before, in particular not its backoff.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Between our own attempts a channel does not exist; while one does it tries once.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, rpc_timeout_ms);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, rpc_timeout_ms);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, rpc_timeout_ms);
  // Profiles do not leave through whatever proxy the environment names.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // One call in ten seconds: what serves busy or idle channels would only wake threads. A probe of
  // the bandwidth is a ping back and forth with each call, and timers that are pending (of the
  // probe, of a channel that may have been idle for half an hour, of a keepalive 24 days away,
  // which is the default: only INT_MAX said explicitly means never) have two threads wake once a
  // second.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, INT_MAX);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_CHANNELZ, 0);
  // No requests to the name server for a service configuration.
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  return arguments;
}

class GrpcIngestClient final : public IngestClient {
 public:
  explicit GrpcIngestClient(IngestClientOptions options) : options_(std::move(options)) {}

  absl::Status Upload(const ingest::UploadWindowRequest& window) override {
    if (absl::Status status = Connect(window.node()); !status.ok()) {
      Disconnect();
      return status;
    }
    ingest::UploadWindowResponse response;
    const grpc::Status sent = Call([&](grpc::ClientContext* context) {
      return stub_->UploadWindow(context, window, &response);
    });
    // A refusal is an answer: the connection is good.
    if (!sent.ok() && sent.error_code() != grpc::StatusCode::INVALID_ARGUMENT) Disconnect();
    return FromGrpc(sent, "upload to " + options_.server);
  }

  bool connected() const override { return connected_.load(std::memory_order_relaxed); }

  void Cancel() override {
    base::MutexLock lock(mutex_);
    cancelled_ = true;
    if (call_ != nullptr) call_->TryCancel();
  }

 private:
  absl::Status Connect(const std::string& node) {
    if (channel_ != nullptr && channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY) {
      return absl::OkStatus();
    }
    channel_ = grpc::CreateCustomChannel(options_.server, grpc::InsecureChannelCredentials(),
                                         Arguments(options_.rpc_timeout_ms));
    stub_ = ingest::IngestService::NewStub(channel_);
    ingest::HelloRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_agent_version(FIREWATCH_VERSION);
    request.set_node(node);
    ingest::HelloResponse response;
    const grpc::Status answered = Call(
        [&](grpc::ClientContext* context) { return stub_->Hello(context, request, &response); });
    RETURN_IF_ERROR(FromGrpc(answered, "connect to " + options_.server));
    if (kProtocolVersion < response.min_protocol_version() ||
        kProtocolVersion > response.max_protocol_version()) {
      return base::FailedPrecondition(
          "{} (version {}) speaks protocol versions {} to {}, this agent speaks {}",
          options_.server, response.server_version(), response.min_protocol_version(),
          response.max_protocol_version(), kProtocolVersion);
    }
    connected_.store(true, std::memory_order_relaxed);
    return absl::OkStatus();
  }

  void Disconnect() {
    connected_.store(false, std::memory_order_relaxed);
    stub_.reset();
    channel_.reset();
  }

  template <typename Function>
  grpc::Status Call(Function function) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(options_.rpc_timeout_ms));
    {
      base::MutexLock lock(mutex_);
      if (cancelled_) return {grpc::StatusCode::CANCELLED, "the agent stops"};
      call_ = &context;
    }
    const grpc::Status status = function(&context);
    base::MutexLock lock(mutex_);
    call_ = nullptr;
    return status;
  }

  const IngestClientOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<ingest::IngestService::Stub> stub_;
  std::atomic<bool> connected_{false};

  base::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* call_ ABSL_GUARDED_BY(mutex_) = nullptr;  // while a call is under way
};

}  // namespace

std::unique_ptr<IngestClient> IngestClient::Create(IngestClientOptions options) {
  return std::make_unique<GrpcIngestClient>(std::move(options));
}

}  // namespace firewatch::agent
