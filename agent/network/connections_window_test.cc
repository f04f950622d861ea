// SPDX-License-Identifier: Apache-2.0
#include "agent/network/connections_window.h"

#include <gtest/gtest.h>

#include <vector>

#include "agent/network/connections_uploader.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

std::shared_ptr<const profile::LabelSet> Labels(const std::string& service) {
  return std::make_shared<const profile::LabelSet>(
      std::vector<std::pair<std::string, std::string>>{{"node", "n"}, {"service", service}});
}

ConnectionsWindowOptions Options(size_t max_edges = 4'096) {
  return {.max_edges = max_edges, .nobody = Labels(""), .others = Labels("other")};
}

NetworkProcess Process(const std::string& service) {
  return {.comm = service, .labels = Labels(service)};
}

NetworkEdge Edge(uint8_t last, uint16_t port = 80) {
  NetworkEdge edge;
  edge.role = FW_NET_CONNECT;
  edge.remote = {.bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last}};
  edge.port = port;
  return edge;
}

NetworkTotals Segments(uint64_t count) { return {.opened = 1, .segments_sent = count}; }

std::string ServiceOf(const ingest::ServiceConnections& connections) {
  for (const ingest::LabelPair& label : connections.labels()) {
    if (label.name() == "service") return label.value();
  }
  return "";
}

uint64_t Opened(const ingest::UploadWindowRequest& request) {
  uint64_t opened = 0;
  for (const auto& service : request.connections()) {
    for (const auto& edge : service.edges()) opened += edge.opened();
  }
  return opened;
}

size_t EdgeCount(const ingest::UploadWindowRequest& request) {
  size_t count = 0;
  for (const auto& service : request.connections()) {
    count += static_cast<size_t>(service.edges_size());
  }
  return count;
}

TEST(ConnectionsWindowTest, EveryNumberIsOnTheWireUnderTheLabelsOfTheProfiles) {
  ConnectionsWindow window(Options());
  EXPECT_TRUE(window.empty());
  NetworkEdge edge = Edge(1);
  edge.living = 18;
  window.Add(edge, Process("web"),
             {.opened = 4,
              .closed = 5,
              .failed = 6,
              .resets_sent = 7,
              .resets_received = 8,
              .retransmits = 9,
              .syn_retransmits = 10,
              .bytes_sent = 11,
              .bytes_received = 12,
              .segments_sent = 13,
              .segments_received = 14,
              .duration_us = 15,
              .rtt_us = 16,
              .rtt_count = 17});
  ingest::UploadWindowRequest request;
  EXPECT_EQ(window.Write(&request), 0u);
  ASSERT_EQ(request.connections_size(), 1);
  ASSERT_EQ(request.connections(0).labels_size(), 2);
  EXPECT_EQ(request.connections(0).labels(0).name(), "node");
  EXPECT_EQ(ServiceOf(request.connections(0)), "web");
  ASSERT_EQ(request.connections(0).edges_size(), 1);
  const ingest::ConnectionEdge& sent = request.connections(0).edges(0);
  EXPECT_EQ(sent.role(), ingest::CONNECTION_ROLE_CONNECT);
  EXPECT_EQ(sent.remote_address(), std::string("\x0a\0\0\1", 4));
  EXPECT_EQ(sent.port(), 80u);
  // Numbered as the fields are.
  for (int number = 4; number <= 18; ++number) {
    const auto* field = sent.GetDescriptor()->FindFieldByNumber(number);
    EXPECT_EQ(sent.GetReflection()->GetUInt64(sent, field), static_cast<uint64_t>(number))
        << field->name();
  }
}

TEST(ConnectionsWindowTest, AddressesAreShortAndOtherHasNone) {
  ConnectionsWindow window(Options());
  NetworkEdge ipv6 = Edge(1, 443);
  ipv6.ipv6 = true;
  ipv6.remote.bytes[0] = 0x20;
  window.Add(ipv6, Process("a"), Segments(1));
  NetworkEdge any = Edge(1, 81);
  any.remote = {};
  window.Add(any, Process("b"), Segments(1));
  NetworkEdge other;  // the table's: no address, no port
  other.role = FW_NET_CONNECT;
  window.Add(other, {.comm = "other"}, Segments(1));
  window.Add(Edge(1), {}, Segments(1));
  ingest::UploadWindowRequest request;
  window.Write(&request);
  std::map<std::string, size_t> sizes;
  for (const auto& service : request.connections()) {
    sizes[ServiceOf(service)] = service.edges(0).remote_address().size();
  }
  const std::map<std::string, size_t> expected = {{"", 4}, {"a", 16}, {"b", 4}, {"other", 0}};
  EXPECT_EQ(sizes, expected);
}

TEST(ConnectionsWindowTest, EqualLabelsRolePeerAndPortAreOne) {
  ConnectionsWindow window(Options());
  window.Add(Edge(1), Process("a"), Segments(1));
  window.Add(Edge(1), Process("a"), Segments(2));
  NetworkEdge accepted = Edge(1);
  accepted.role = FW_NET_ACCEPT;
  window.Add(accepted, Process("a"), Segments(4));
  ingest::UploadWindowRequest request;
  window.Write(&request);
  ASSERT_EQ(EdgeCount(request), 2u);
  EXPECT_EQ(request.connections(0).edges(0).segments_sent() +
                request.connections(0).edges(1).segments_sent(),
            7u);
}

TEST(ConnectionsWindowTest, EdgesWithLeastTrafficAreSummedAndNothingIsLost) {
  ConnectionsWindow window(Options(16));
  for (uint8_t last = 1; last <= 40; ++last) window.Add(Edge(last), Process("a"), Segments(last));
  NetworkTotals failed;
  failed.failed = 1;
  window.Add(Edge(200), Process("a"), failed);
  ingest::UploadWindowRequest request;
  EXPECT_EQ(window.Write(&request), 27u);  // room for 14 of 41, and one other per role
  EXPECT_LE(EdgeCount(request), 16u);
  EXPECT_EQ(Opened(request), 40u);
  const auto& edges = request.connections(0).edges();
  EXPECT_EQ(edges[0].remote_address(), "");
  EXPECT_EQ(edges[0].port(), 0u);
  EXPECT_EQ(edges[0].opened(), 27u);
  EXPECT_EQ(edges[1].remote_address(), std::string("\x0a\0\0\x1c", 4));  // 28 and more stay
  EXPECT_EQ(edges[edges.size() - 1].failed(), 1u);
}

TEST(ConnectionsWindowTest, LabelsThatDoNotFitAreOthers) {
  ConnectionsWindow window(Options(16));
  for (uint8_t i = 1; i <= 20; ++i) {
    window.Add(Edge(1), Process("service-" + std::to_string(i)), Segments(i));
  }
  ingest::UploadWindowRequest request;
  EXPECT_EQ(window.Write(&request), 17u);
  EXPECT_EQ(request.connections_size(), 4);  // a quarter, the others among them
  EXPECT_LE(EdgeCount(request), 16u);
  EXPECT_EQ(Opened(request), 20u);
  EXPECT_EQ(ServiceOf(request.connections(0)), "other");

  ConnectionsWindowOptions options = Options();
  options.max_label_bytes = 5'000;
  ConnectionsWindow large(options);
  for (char c = 'a'; c <= 'e'; ++c) {
    large.Add(Edge(1), Process(std::string(2'000, c)), Segments(static_cast<uint64_t>(c)));
  }
  request.Clear();
  EXPECT_EQ(large.Write(&request), 3u);
  EXPECT_EQ(request.connections_size(), 3);
  EXPECT_EQ(Opened(request), 5u);
}

class ConnectionsUploaderTest : public testing::Test {
 protected:
  ConnectionsUploader Make() {
    return ConnectionsUploader({.node = "n",
                                .upload =
                                    [this](ingest::UploadWindowRequest request) {
                                      sent_.push_back(std::move(request));
                                      return next_;
                                    },
                                .nobody = Labels(""),
                                .others = Labels("other")},
                               clock_, metrics_);
  }
  void Send(ConnectionsUploader& uploader, bool something = true) {
    uploader.Send([something](const NetworkMonitor::TakeEdge& take) {
      if (something) take(Edge(1), Process("web"), Segments(1));
    });
  }
  uint64_t Counter(const char* name) { return metrics_.AddCounter(name, "").value(); }

  base::FakeClock clock_{{.unix_ns = 1'700'000'000'000'000'000}, 1'000};
  base::MetricsRegistry metrics_;
  absl::Status next_;
  std::vector<ingest::UploadWindowRequest> sent_;
};

TEST_F(ConnectionsUploaderTest, WindowsFollowEachOtherAndEmptyOnesAreNotSent) {
  ConnectionsUploader uploader = Make();
  const auto pass = [this](uint64_t seconds) { clock_.AdvanceNs(seconds * 1'000'000'000); };
  pass(10);
  Send(uploader);
  pass(10);
  Send(uploader, /*something=*/false);
  pass(10);
  Send(uploader);
  ASSERT_EQ(sent_.size(), 2u);
  EXPECT_EQ(sent_[0].node(), "n");
  EXPECT_EQ(sent_[0].end_unix_ns() - sent_[0].start_unix_ns(), 10'000'000'000);
  EXPECT_EQ(sent_[1].end_unix_ns() - sent_[1].start_unix_ns(), 10'000'000'000);
  EXPECT_EQ(sent_[1].start_unix_ns() - sent_[0].end_unix_ns(), 10'000'000'000);
  EXPECT_EQ(Counter("firewatch_network_windows_total"), 2u);
  EXPECT_EQ(Counter("firewatch_network_windows_lost_total"), 0u);
  Send(uploader);  // at once: a window has a length
  EXPECT_GT(sent_[2].end_unix_ns(), sent_[2].start_unix_ns());
}

TEST_F(ConnectionsUploaderTest, WhatDoesNotReachTheSpoolIsCounted) {
  ConnectionsUploader uploader = Make();
  next_ = base::ResourceExhausted("disk full");
  Send(uploader);
  EXPECT_EQ(Counter("firewatch_network_windows_lost_total"), 1u);
  next_ = absl::OkStatus();
  Send(uploader);
  EXPECT_EQ(Counter("firewatch_network_windows_lost_total"), 1u);
  EXPECT_EQ(sent_.size(), 2u);
}

}  // namespace
}  // namespace firewatch::agent
