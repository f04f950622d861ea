// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/grpc_server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "profile/pprof_codec.h"
#include "proto/ingest.grpc.pb.h"
#include "server/store/embedded/embedded_store.h"
#include "server/store/embedded/test_directory.h"
#include "server/store/test_windows.h"

namespace firewatch::server {
namespace {

using testing::HasSubstr;

class GrpcServerTest : public testing::Test {
 protected:
  GrpcServerTest() {
    store_ =
        OpenEmbeddedStore({.directory = directory_.path(), .min_free_bytes = 0}, clock_, metrics_)
            .value();
    service_.emplace(IngestOptions(), *store_, clock_, metrics_);
    server_ = StartGrpcServer({.address = "127.0.0.1:0"}, *service_).value();
    grpc::ChannelArguments arguments;
    arguments.SetInt("grpc.enable_http_proxy", 0);
    stub_ = ingest::IngestService::NewStub(grpc::CreateCustomChannel(
        server_->address(), grpc::InsecureChannelCredentials(), arguments));
  }

  ingest::UploadWindowRequest Request(uint64_t sequence) {
    ingest::UploadWindowRequest request;
    request.set_protocol_version(1);
    request.set_node("node-1");
    request.set_agent_id(std::string(16, 'a'));
    request.set_sequence(sequence);
    request.set_start_unix_ns(kTestEpochMs * 1'000'000);
    request.set_end_unix_ns((kTestEpochMs + 10'000) * 1'000'000);
    auto* service = request.add_profiles();
    service->set_pprof_zstd(profile::WritePprof(MakeTestProfile({{.root_first = {"main"}}}),
                                                profile::Compression::kZstd)
                                .value());
    return request;
  }

  grpc::Status Upload(const ingest::UploadWindowRequest& request,
                      ingest::UploadWindowResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return stub_->UploadWindow(&context, request, response);
  }

  TestDirectory directory_;
  base::FakeClock clock_{{kTestEpochMs * 1'000'000}, 1};
  base::MetricsRegistry metrics_;
  std::unique_ptr<ProfileStore> store_;
  std::optional<IngestService> service_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<ingest::IngestService::Stub> stub_;
};

TEST_F(GrpcServerTest, WindowIsStoredOnceHoweverOftenItIsSent) {
  ingest::UploadWindowResponse response;
  grpc::Status status = Upload(Request(1), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_FALSE(response.duplicate());
  ASSERT_TRUE(Upload(Request(1), &response).ok());
  EXPECT_TRUE(response.duplicate());
  Query query;
  query.range = {.from_ms = 0, .to_ms = INT64_MAX};
  EXPECT_EQ(store_->Series(query, 1000).value().at(0).total, 10'000'000);
}

TEST_F(GrpcServerTest, StatusCodesAndTextsReachTheAgent) {
  ingest::UploadWindowRequest request = Request(1);
  request.set_protocol_version(9);
  ingest::UploadWindowResponse response;
  grpc::Status status = Upload(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("speaks protocol 9"));
  request = Request(1);
  request.mutable_profiles(0)->set_pprof_zstd("garbage");
  status = Upload(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("not a zstd frame"));
}

TEST_F(GrpcServerTest, MessageBeyondTheLimitIsRefusedByTheTransport) {
  ingest::UploadWindowRequest request = Request(1);
  request.mutable_profiles(0)->set_pprof_zstd(std::string(size_t{65} << 20, 'x'));
  ingest::UploadWindowResponse response;
  EXPECT_EQ(Upload(request, &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Upload(Request(1), &response).ok());  // and the server lives on
}

TEST_F(GrpcServerTest, SecondServerOnThePortIsTold) {
  const auto second = StartGrpcServer({.address = server_->address()}, *service_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(base::Message(second.status())), HasSubstr("cannot be bound"));
}

TEST_F(GrpcServerTest, ForeignAddressNeedsInsecure) {
  EXPECT_EQ(StartGrpcServer({.address = "0.0.0.0:0"}, *service_).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(StartGrpcServer({.address = "0.0.0.0:0", .insecure = true}, *service_).ok());
}

}  // namespace
}  // namespace firewatch::server
