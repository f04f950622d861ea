// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/grpc_server.h"

#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>

#include "base/status.h"
#include "proto/ingest.grpc.pb.h"
#include "transport/http_server.h"

namespace firewatch::server {
namespace {

// gRPC's codes are Abseil's.
grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(base::Message(status))};
}

class IngestRpcs final : public ingest::IngestService::Service {
 public:
  explicit IngestRpcs(IngestService& ingest) : ingest_(ingest) {}
  grpc::Status Hello(grpc::ServerContext* /*context*/, const ingest::HelloRequest* request,
                     ingest::HelloResponse* response) override {
    return ToGrpc(ingest_.Hello(*request, response));
  }
  grpc::Status UploadWindow(grpc::ServerContext* /*context*/,
                            const ingest::UploadWindowRequest* request,
                            ingest::UploadWindowResponse* response) override {
    return ToGrpc(ingest_.UploadWindow(*request, response));
  }

 private:
  IngestService& ingest_;
};

class GrpcServerImpl final : public GrpcServer {
 public:
  explicit GrpcServerImpl(IngestService& ingest) : rpcs_(ingest) {}
  ~GrpcServerImpl() override {
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    }
  }
  absl::Status Start(const GrpcServerOptions& options);
  std::string address() const override { return address_; }

 private:
  IngestRpcs rpcs_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

void SetLimits(const GrpcServerOptions& options, grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("firewatch-server");
  quota.Resize(options.max_transport_bytes);
  quota.SetMaxThreads(options.max_threads);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_streams_per_connection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 * 1024);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a second server must fail to bind
  // A peer that went away without a word is noticed within 80 s; one that pings too often is cut.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 3);
  // A connection that never finishes its handshake is closed, so silent ones cost little.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000);
}

absl::Status GrpcServerImpl::Start(const GrpcServerOptions& options) {
  RETURN_IF_ERROR(transport::CheckListenerPolicy(options.address, options.insecure));
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  int port = 0;
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&rpcs_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return base::Unavailable("listen on {}: cannot be bound (is it in use?)", options.address);
  }
  address_ = fmt::format("{}:{}", options.address.substr(0, options.address.rfind(':')), port);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> StartGrpcServer(const GrpcServerOptions& options,
                                                            IngestService& ingest) {
  auto server = std::make_unique<GrpcServerImpl>(ingest);
  RETURN_IF_ERROR(server->Start(options));
  return server;
}

}  // namespace firewatch::server
