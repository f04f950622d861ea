// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/ingest_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/status.h"
#include "profile/pprof_codec.h"
#include "server/store/test_windows.h"

namespace firewatch::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Keeps what is appended, or fails as told.
class FakeStore final : public ProfileStore {
 public:
  absl::Status Append(const WindowBatch& batch, bool* duplicate) override {
    if (!next_error.ok()) return next_error;
    *duplicate = next_duplicate;
    appended.push_back(batch);
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::string>> LabelNames(const Query& /*query*/) override {
    return base::Unavailable("fake");
  }
  absl::StatusOr<std::vector<std::string>> LabelValues(const Query& /*query*/,
                                                       std::string_view /*name*/) override {
    return base::Unavailable("fake");
  }
  absl::StatusOr<std::vector<SeriesPoints>> Series(const Query& /*query*/,
                                                   int64_t /*step_ms*/) override {
    return base::Unavailable("fake");
  }
  absl::StatusOr<profile::Profile> Merge(const Query& /*query*/) override {
    return base::Unavailable("fake");
  }
  absl::StatusOr<ConnectionReport> Connections(const Query& /*query*/) override {
    return base::Unavailable("fake");
  }
  absl::StatusOr<StoreStats> Stats() override { return StoreStats(); }
  absl::Status CheckHealth() override { return absl::OkStatus(); }
  absl::Status ApplyRetention(int64_t /*now_ms*/) override { return absl::OkStatus(); }

  absl::Status next_error;
  bool next_duplicate = false;
  std::vector<WindowBatch> appended;
};

ingest::UploadWindowRequest GoodRequest() {
  ingest::UploadWindowRequest request;
  request.set_protocol_version(1);
  request.set_node("node-1");
  request.set_agent_id(std::string(16, 'a'));
  request.set_sequence(7);
  request.set_start_unix_ns(kTestEpochMs * 1'000'000);
  request.set_end_unix_ns((kTestEpochMs + 10'000) * 1'000'000);
  request.set_sample_hz(19);
  auto* service = request.add_profiles();
  auto* label = service->add_labels();
  label->set_name("service");
  label->set_value("web");
  service->set_pprof_zstd(
      profile::WritePprof(MakeTestProfile({{.root_first = {"main"}}}), profile::Compression::kZstd)
          .value());
  auto* loss = request.add_losses();
  loss->set_name("ring_full");
  loss->set_count(3);
  auto* end = request.add_stack_ends();
  end->set_reason("root");
  end->set_count(90);
  return request;
}

class IngestServiceTest : public testing::Test {
 protected:
  IngestServiceTest() {
    IngestOptions options;
    options.limits.retention_hours = 24;
    options.limits.max_profiles = 5;
    options.limits.max_decompressed_bytes = size_t{1} << 20;
    options.server_version = "1.2.3";
    options.on_binaries = [this](const auto& binaries) {
      for (const ingest::BinaryInfo& one : binaries) told_.push_back(one.path());
    };
    service_.emplace(options, store_, clock_, metrics_);
  }

  absl::Status Upload(const ingest::UploadWindowRequest& request) {
    ingest::UploadWindowResponse response;
    const absl::Status status = service_->UploadWindow(request, &response);
    last_duplicate_ = response.duplicate();
    return status;
  }

  // Changes a good request, expects a refusal for good under `reason`, and a text with `text`.
  void ExpectRefused(const std::function<void(ingest::UploadWindowRequest&)>& spoil,
                     std::string_view reason, std::string_view text) {
    SCOPED_TRACE(reason);
    ingest::UploadWindowRequest request = GoodRequest();
    spoil(request);
    const uint64_t before = Refused(reason);
    const absl::Status status = Upload(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << base::ToString(status);
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr(std::string(text)));
    EXPECT_EQ(Refused(reason), before + 1);
    EXPECT_THAT(store_.appended, IsEmpty());
  }

  uint64_t Refused(std::string_view reason) {
    return metrics_
        .AddCounter("firewatch_ingest_refused_total", "", {{"reason", std::string(reason)}})
        .value();
  }

  base::FakeClock clock_{{(kTestEpochMs + 12'000) * 1'000'000}, 1};
  base::MetricsRegistry metrics_;
  FakeStore store_;
  std::optional<IngestService> service_;
  bool last_duplicate_ = false;
  std::vector<std::string> told_;
};

TEST_F(IngestServiceTest, GoodWindowReachesTheStoreWhole) {
  const absl::Status status = Upload(GoodRequest());
  ASSERT_TRUE(status.ok()) << base::ToString(status);
  ASSERT_THAT(store_.appended, SizeIs(1));
  const WindowBatch& batch = store_.appended[0];
  EXPECT_EQ(batch.tenant.value, "default");
  EXPECT_EQ(batch.node, "node-1");
  EXPECT_EQ(batch.upload.agent_id, std::string(16, 'a'));
  EXPECT_EQ(batch.upload.sequence, 7U);
  EXPECT_EQ(batch.window.from_ms, kTestEpochMs);
  EXPECT_EQ(batch.window.to_ms, kTestEpochMs + 10'000);
  EXPECT_THAT(batch.losses, ElementsAre(testing::Pair("ring_full", 3)));
  EXPECT_THAT(batch.stack_ends, ElementsAre(testing::Pair("root", 90)));
  ASSERT_THAT(batch.series, SizeIs(1));
  EXPECT_EQ(batch.series[0].labels.Get("service"), "web");
  EXPECT_THAT(DescribeSamples(batch.series[0].profile),
              ElementsAre("main|_Zmain|world.cc:42 {} 1 10000000"));
}

TEST_F(IngestServiceTest, WhatAWindowTellsOfItsBinariesIsPassedOn) {
  ingest::UploadWindowRequest request = GoodRequest();
  request.add_binaries()->set_path("/usr/bin/app");
  ingest::BareFrames& bare = *request.add_bare_frames();
  bare.set_reason(ingest::NAME_REASON_STRIPPED);
  bare.set_count(5);
  request.add_bare_frames()->set_reason(static_cast<ingest::NameReason>(99));
  EXPECT_TRUE(Upload(request).ok());
  EXPECT_THAT(told_, ElementsAre("/usr/bin/app"));
  EXPECT_THAT(metrics_.Expose(),
              HasSubstr("firewatch_ingest_bare_frames_total{reason=\"stripped\"} 5\n"));
  // A retry tells it again (the server may have died in between), and counts nothing twice.
  store_.next_duplicate = true;
  EXPECT_TRUE(Upload(request).ok());
  EXPECT_EQ(told_.size(), 2u);
  EXPECT_THAT(metrics_.Expose(),
              HasSubstr("firewatch_ingest_bare_frames_total{reason=\"stripped\"} 5\n"));
  // What a refused window says is not believed, nor a list that is too long.
  request.set_node("");
  EXPECT_FALSE(Upload(request).ok());
  request.set_node("node-1");
  for (int i = 0; i < 5'000; ++i) request.add_binaries()->set_path("/a");
  EXPECT_TRUE(Upload(request).ok());
  EXPECT_EQ(told_.size(), 2u);
}

TEST_F(IngestServiceTest, WindowWithoutProfilesIsWelcome) {
  ingest::UploadWindowRequest request = GoodRequest();
  request.clear_profiles();
  EXPECT_TRUE(Upload(request).ok());
}

// One edge to 10.0.0.1:80, every counter another number.
ingest::ConnectionEdge* AddEdge(ingest::UploadWindowRequest& request) {
  auto* service = request.add_connections();
  auto* label = service->add_labels();
  label->set_name("service");
  label->set_value("web");
  ingest::ConnectionEdge* edge = service->add_edges();
  edge->set_role(ingest::CONNECTION_ROLE_ACCEPT);
  edge->set_remote_address(std::string("\x0a\0\0\1", 4));
  edge->set_port(80);
  const auto* reflection = edge->GetReflection();
  for (int number = 4; number <= 18; ++number) {
    reflection->SetUInt64(edge, edge->GetDescriptor()->FindFieldByNumber(number),
                          static_cast<uint64_t>(number) * 1'000);
  }
  return edge;
}

TEST_F(IngestServiceTest, WindowOfConnectionsAloneReachesTheStoreWhole) {
  ingest::UploadWindowRequest request = GoodRequest();
  request.clear_profiles();
  request.set_sample_hz(0);
  AddEdge(request)->set_remote_address(std::string("\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\1", 16));
  ASSERT_TRUE(Upload(request).ok());
  ASSERT_THAT(store_.appended, SizeIs(1));
  EXPECT_THAT(store_.appended[0].series, IsEmpty());
  ASSERT_THAT(store_.appended[0].connections, SizeIs(1));
  const SeriesConnections& series = store_.appended[0].connections[0];
  EXPECT_EQ(series.labels.Get("service"), "web");
  ASSERT_THAT(series.edges, SizeIs(1));
  const ConnectionEdge& edge = series.edges[0];
  EXPECT_EQ(edge.role, ConnectionRole::kAccept);
  EXPECT_EQ(edge.remote, std::string("\x0a\0\0\1", 4));  // as if it had come as IPv4
  EXPECT_EQ(edge.port, 80);
  uint64_t expected = 4'000;
  for (const auto counter : kConnectionCounters) {
    EXPECT_EQ(edge.counts.*counter, expected);
    expected += 1'000;
  }
  EXPECT_EQ(edge.living, 18'000U);
  EXPECT_EQ(metrics_.AddCounter("firewatch_ingest_connections_total", "").value(), 1U);
}

TEST_F(IngestServiceTest, RefusesConnectionsThatMakeNoSense) {
  ExpectRefused([](auto& r) { AddEdge(r)->clear_role(); }, "connections", "0 is no role");
  ExpectRefused([](auto& r) { AddEdge(r)->set_role(static_cast<ingest::ConnectionRole>(9)); },
                "connections", "9 is no role");
  for (const size_t size : {1U, 3U, 5U, 15U, 17U, 1'000'000U}) {
    ExpectRefused([=](auto& r) { AddEdge(r)->set_remote_address(std::string(size, 'a')); },
                  "connections", "not 4 or 16");
  }
  ExpectRefused([](auto& r) { AddEdge(r)->set_port(65'536); }, "connections", "past 65535");
  ExpectRefused([](auto& r) { AddEdge(r)->clear_remote_address(); }, "connections",
                "without an address");
  ExpectRefused([](auto& r) { AddEdge(r)->set_bytes_sent(uint64_t{1} << 63); }, "connections",
                "past 2^63");
  ExpectRefused([](auto& r) { AddEdge(r)->set_living(UINT64_MAX); }, "connections", "past 2^63");
  ExpectRefused(
      [](auto& r) {
        AddEdge(r);
        r.mutable_connections(0)->mutable_labels(0)->set_name("1");
      },
      "labels", "no name of a label");
  ExpectRefused(
      [](auto& r) {
        for (int i = 0; i < 6; ++i) AddEdge(r);
      },
      "too_many", "6 sets of labels");
  ExpectRefused(
      [](auto& r) {
        AddEdge(r);
        auto* edges = r.mutable_connections(0)->mutable_edges();
        for (int i = 0; i < 16'384; ++i) edges->Add()->set_role(ingest::CONNECTION_ROLE_CONNECT);
      },
      "too_many", "more than 16384");
}

TEST_F(IngestServiceTest, DuplicateIsAcknowledgedAndSaidToBeOne) {
  store_.next_duplicate = true;
  EXPECT_TRUE(Upload(GoodRequest()).ok());
  EXPECT_TRUE(last_duplicate_);
}

TEST_F(IngestServiceTest, OtherProtocolIsToldWhichOnesWork) {
  ingest::UploadWindowRequest request = GoodRequest();
  request.set_protocol_version(2);
  absl::Status status = Upload(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(base::Message(status),
            "agent \"node-1\" speaks protocol 2, this server speaks 1 to 1: upgrade the server");
  ingest::HelloRequest hello;
  hello.set_node("node-1");
  ingest::HelloResponse response;
  status = service_->Hello(hello, &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("protocol 0"));
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("upgrade the agent"));
  EXPECT_EQ(Refused("protocol"), 2U);
}

TEST_F(IngestServiceTest, HelloNamesTheServer) {
  ingest::HelloRequest hello;
  hello.set_protocol_version(1);
  hello.set_node("node-1");
  ingest::HelloResponse response;
  ASSERT_TRUE(service_->Hello(hello, &response).ok());
  EXPECT_EQ(response.server_version(), "1.2.3");
  EXPECT_EQ(response.min_protocol_version(), 1U);
  EXPECT_EQ(response.max_protocol_version(), 1U);
}

TEST_F(IngestServiceTest, RefusesBadNamesAndIds) {
  ExpectRefused([](auto& r) { r.set_tenant("a/b"); }, "tenant", "a/b");
  ExpectRefused([](auto& r) { r.set_tenant(std::string(65, 'a')); }, "tenant", "1 to 64");
  ExpectRefused([](auto& r) { r.set_agent_id("short"); }, "agent_id", "5 bytes, not 16");
  ExpectRefused([](auto& r) { r.set_node(""); }, "node", "1 to 255");
  ExpectRefused([](auto& r) { r.set_node("a\nb"); }, "node", "printable");
  ExpectRefused([](auto& r) { r.set_node(std::string(300, 'a')); }, "node", "255");
}

TEST_F(IngestServiceTest, RefusesTimesThatMakeNoSense) {
  constexpr int64_t kMinuteNs = 60'000'000'000;
  ExpectRefused([](auto& r) { r.set_end_unix_ns(r.start_unix_ns()); }, "time", "no time range");
  ExpectRefused([](auto& r) { r.set_start_unix_ns(-1); }, "time", "no time range");
  ExpectRefused([](auto& r) { r.set_start_unix_ns(INT64_MIN); }, "time", "no time range");
  ExpectRefused([](auto& r) { r.set_end_unix_ns(INT64_MAX); }, "time", "window lasts");
  ExpectRefused([](auto& r) { r.set_sample_hz(1'000'000'000); }, "time", "samples per second");
  ExpectRefused(
      [](auto& r) {
        r.set_start_unix_ns(r.start_unix_ns() + 11 * kMinuteNs);
        r.set_end_unix_ns(r.start_unix_ns() + 1);
      },
      "future", "in the future");
  ExpectRefused(
      [](auto& r) {
        r.set_start_unix_ns(r.start_unix_ns() - 25 * 60 * kMinuteNs);
        r.set_end_unix_ns(r.start_unix_ns() + 1);
      },
      "too_old", "this server keeps 24");
}

TEST_F(IngestServiceTest, RefusesBadLabels) {
  const auto set = [](std::string name, std::string value) {
    return [name, value](ingest::UploadWindowRequest& r) {
      r.mutable_profiles(0)->mutable_labels(0)->set_name(name);
      r.mutable_profiles(0)->mutable_labels(0)->set_value(value);
    };
  };
  ExpectRefused(set("1bad", "x"), "labels", "1bad");
  ExpectRefused(set("", "x"), "labels", "no name");
  ExpectRefused(set(std::string(200, 'n'), "x"), "labels", "no name");
  ExpectRefused(set("good", std::string(3000, 'v')), "labels", "2048");
  ExpectRefused(set("good", "\xff\xfe"), "labels", "UTF-8");
  ExpectRefused([](auto& r) { *r.mutable_profiles(0)->add_labels() = r.profiles(0).labels(0); },
                "labels", "service is there twice");
  ExpectRefused(
      [](auto& r) {
        for (int i = 0; i < 65; ++i) {
          auto* label = r.mutable_profiles(0)->add_labels();
          label->set_name("l" + std::to_string(i));
          label->set_value("v");
        }
      },
      "labels", "64 are allowed");
}

TEST_F(IngestServiceTest, RefusesTooManyProfilesAndCounters) {
  ExpectRefused(
      [](auto& r) {
        while (r.profiles_size() < 6) r.add_profiles();
      },
      "too_many", "5 are allowed");
  ExpectRefused(
      [](auto& r) {
        for (int i = 0; i < 1001; ++i) r.add_losses()->set_name("x");
      },
      "too_many", "counters");
  ExpectRefused([](auto& r) { r.mutable_losses(0)->set_name("a b"); }, "counters", "a b");
  ExpectRefused([](auto& r) { r.mutable_stack_ends(0)->set_count(UINT64_MAX); }, "counters",
                "2^63");
}

TEST_F(IngestServiceTest, RefusesProfilesThatDoNotParse) {
  const auto set = [](std::string bytes) {
    return
        [bytes](ingest::UploadWindowRequest& r) { r.mutable_profiles(0)->set_pprof_zstd(bytes); };
  };
  const std::string good = GoodRequest().profiles(0).pprof_zstd();
  ExpectRefused(set(""), "profile", "profile 0: not a zstd frame");
  ExpectRefused(set("not zstd at all"), "profile", "not a zstd frame");
  ExpectRefused(set(good.substr(0, good.size() / 2)), "profile", "profile 0");
  // A frame that unpacks to more than the request may take.
  ExpectRefused(
      set(profile::Compress(std::string(size_t{4} << 20, '\0'), profile::Compression::kZstd, 0)
              .value()),
      "profile", "profile 0");
  ExpectRefused(set(profile::Compress("\x08", profile::Compression::kZstd, 0).value()), "profile",
                "profile 0");
  // A zip in a zip.
  ExpectRefused(set(profile::Compress(good, profile::Compression::kZstd, 0).value()), "profile",
                "profile 0");
}

TEST_F(IngestServiceTest, AllProfilesOfARequestShareOneBudget) {
  const profile::Profile big = MakeTestProfile({{.root_first = {std::string(400'000, 'n')}}});
  const std::string packed = profile::WritePprof(big, profile::Compression::kZstd).value();
  ingest::UploadWindowRequest request = GoodRequest();
  request.mutable_profiles(0)->set_pprof_zstd(packed);
  EXPECT_TRUE(Upload(request).ok());
  request.mutable_profiles()->Add()->set_pprof_zstd(packed);
  EXPECT_EQ(Upload(request).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(IngestServiceTest, StoreErrorsTellTheAgentWhetherToComeBack) {
  store_.next_error = base::ResourceExhausted("disk full");
  EXPECT_EQ(Upload(GoodRequest()).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Refused("store_full"), 1U);
  store_.next_error = base::DataLoss("row 70 does not parse");
  EXPECT_EQ(Upload(GoodRequest()).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Refused("store_error"), 1U);
  store_.next_error = base::InvalidArgument("a sample has the negative value -1");
  EXPECT_EQ(Upload(GoodRequest()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Refused("profile"), 1U);
}

TEST_F(IngestServiceTest, NodesTellWhoSpoke) {
  ingest::HelloRequest hello;
  hello.set_protocol_version(1);
  hello.set_node("node-1");
  hello.set_agent_version("0.9");
  ingest::HelloResponse response;
  ASSERT_TRUE(service_->Hello(hello, &response).ok());
  ASSERT_TRUE(Upload(GoodRequest()).ok());
  clock_.AdvanceNs(5'000'000'000);
  ingest::UploadWindowRequest request = GoodRequest();
  request.set_agent_id(std::string(16, 'b'));
  ASSERT_TRUE(Upload(request).ok());
  std::vector<NodeStatus> nodes = service_->Nodes();
  ASSERT_THAT(nodes, SizeIs(1));
  EXPECT_EQ(nodes[0].node, "node-1");
  EXPECT_EQ(nodes[0].tenant, "default");
  EXPECT_EQ(nodes[0].agent_version, "0.9");
  EXPECT_EQ(nodes[0].sample_hz, 19U);
  EXPECT_EQ(nodes[0].windows, 2U);
  EXPECT_EQ(nodes[0].agents, 2);
  EXPECT_EQ(nodes[0].last_seen_ms, kTestEpochMs + 17'000);
  EXPECT_EQ(nodes[0].last_window_to_ms, kTestEpochMs + 10'000);
  clock_.AdvanceNs(600'000'000'000);
  EXPECT_EQ(service_->Nodes()[0].agents, 0);
}

TEST(NodeRegistryTest, ForgetsTheNodeNotHeardForLongest) {
  NodeRegistry registry(/*max_nodes=*/3);
  for (int i = 0; i < 5; ++i) {
    WindowBatch batch;
    batch.node = "node-" + std::to_string(i);
    registry.NoteWindow(batch, 19, false, 1000 + i);
  }
  const auto nodes = registry.Nodes(2000);
  ASSERT_THAT(nodes, SizeIs(3));
  EXPECT_EQ(nodes[0].node, "node-2");
  EXPECT_EQ(nodes[2].node, "node-4");
}

}  // namespace
}  // namespace firewatch::server
