// SPDX-License-Identifier: Apache-2.0
#include "agent/upload/ingest_client.h"

#include <atomic>
#include <utility>

#include "base/status.h"
#include "proto/ingest.pb.h"
#include "transport/grpc_client.h"

namespace firewatch::agent {
namespace {

constexpr std::string_view kHello = "/firewatch.ingest.IngestService/Hello";
constexpr std::string_view kUploadWindow = "/firewatch.ingest.IngestService/UploadWindow";

class GrpcIngestClient final : public IngestClient {
 public:
  explicit GrpcIngestClient(IngestClientOptions options)
      : options_(std::move(options)),
        client_(transport::GrpcClient::Create({.server = options_.server,
                                               .user_agent = "firewatch-agent/" FIREWATCH_VERSION,
                                               .timeout_ms = options_.rpc_timeout_ms})) {}

  absl::Status Upload(const ingest::UploadWindowRequest& window) override {
    if (absl::Status status = Connect(window.node()); !status.ok()) {
      Disconnect();
      return base::Annotate(status, "connect to " + options_.server);
    }
    if (window.ByteSizeLong() > static_cast<size_t>(kMaxMessageBytes)) {
      return base::ResourceExhausted("upload to {}: {} bytes are no message", options_.server,
                                     window.ByteSizeLong());
    }
    const auto answer = client_->Call(kUploadWindow, window.SerializeAsString());
    ingest::UploadWindowResponse response;
    absl::Status status = answer.status();
    if (answer.ok() && !response.ParseFromString(*answer)) {
      status = base::Internal("an answer that is none");
    }
    // A refusal is an answer: the connection is good.
    if (!status.ok() && !absl::IsInvalidArgument(status)) Disconnect();
    return base::Annotate(status, "upload to " + options_.server);
  }

  bool connected() const override { return connected_.load(std::memory_order_relaxed); }

  void Cancel() override { client_->Cancel(); }

 private:
  absl::Status Connect(const std::string& node) {
    if (client_->Ready()) return absl::OkStatus();
    RETURN_IF_ERROR(client_->Connect());
    ingest::HelloRequest request;
    request.set_protocol_version(kProtocolVersion);
    request.set_agent_version(FIREWATCH_VERSION);
    request.set_node(node);
    ASSIGN_OR_RETURN(const std::string answer, client_->Call(kHello, request.SerializeAsString()));
    ingest::HelloResponse response;
    if (!response.ParseFromString(answer)) return base::Internal("an answer that is none");
    if (kProtocolVersion < response.min_protocol_version() ||
        kProtocolVersion > response.max_protocol_version()) {
      return base::FailedPrecondition(
          "it (version {}) speaks protocol versions {} to {}, this agent speaks {}",
          response.server_version(), response.min_protocol_version(),
          response.max_protocol_version(), kProtocolVersion);
    }
    connected_.store(true, std::memory_order_relaxed);
    return absl::OkStatus();
  }

  void Disconnect() {
    connected_.store(false, std::memory_order_relaxed);
    client_->Disconnect();
  }

  const IngestClientOptions options_;
  const std::unique_ptr<transport::GrpcClient> client_;
  std::atomic<bool> connected_{false};
};

}  // namespace

std::unique_ptr<IngestClient> IngestClient::Create(IngestClientOptions options) {
  return std::make_unique<GrpcIngestClient>(std::move(options));
}

}  // namespace firewatch::agent
