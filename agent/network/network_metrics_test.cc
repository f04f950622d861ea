// SPDX-License-Identifier: Apache-2.0
#include "agent/network/network_metrics.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "agent/network/connections_json.h"
#include "agent/network/network_module.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

TEST(TopSeriesTest, WhatDoesNotFitIsOtherAndStaysThere) {
  TopSeries series(2, 3);
  series.Add("a", {{"program", "a"}}, {.opened = 1});
  series.Add("b", {{"program", "b"}}, {.opened = 2});
  series.Add("c", {{"program", "c"}}, {.opened = 4});
  EXPECT_EQ(series.slots().size(), 2u);
  EXPECT_EQ(series.other().opened, 4u);
  // a stays idle long enough for c to take its place; what c had before does not move.
  for (int i = 0; i < 3; ++i) {
    series.EndUpdate();
    series.Add("b", {}, {.opened = 1});
  }
  series.Add("c", {{"program", "c"}}, {.opened = 8});
  EXPECT_FALSE(series.slots().contains("a"));
  EXPECT_EQ(series.slots().at("c").totals.opened, 8u);
  EXPECT_EQ(series.slots().at("b").totals.opened, 5u);
  EXPECT_EQ(series.other().opened, 4u);
}

TEST(TopSeriesTest, LimitOfZeroKeepsOtherAlone) {
  TopSeries series(0, 0);
  series.Add("a", {}, {.opened = 1});
  EXPECT_TRUE(series.slots().empty());
  EXPECT_EQ(series.other().opened, 1u);
}

TEST(NetworkNamesTest, ErrorsAndProtocolsHaveNames) {
  EXPECT_EQ(ErrnoName(ECONNREFUSED), "ECONNREFUSED");
  EXPECT_EQ(ErrnoName(0), "unknown");
  EXPECT_EQ(ErrnoName(60'000), "60000");
  EXPECT_EQ(ProtocolName(6), "tcp");
  EXPECT_EQ(ProtocolName(89), "89");
}

TEST(ConnectionsQueryTest, BadParametersAreRefusedByName) {
  const auto parse = [](const char* name, const char* value) {
    transport::HttpRequest request;
    request.query = {{name, value}};
    return ParseConnectionsQuery(request);
  };
  EXPECT_EQ(parse("limit", "7")->limit, 7u);
  EXPECT_EQ(*parse("pid", "42")->pid, 42u);
  EXPECT_EQ(parse("sort", "rtt")->sort, ConnectionsSort::kRtt);
  for (const auto& [name, value] : {std::pair("limit", "100001"), std::pair("limit", "-1"),
                                    std::pair("pid", "x"), std::pair("sort", "name")}) {
    const auto query = parse(name, value);
    ASSERT_FALSE(query.ok()) << name;
    EXPECT_NE(base::Message(query.status()).find(name), std::string_view::npos);
  }
}

TEST(LivingConnectionsTest, KeepsTheLargestInOrder) {
  ConnectionsQuery query{.limit = 2};
  LivingConnections living(query);
  for (const uint64_t bytes : {5u, 9u, 1u, 7u}) {
    fw_net_record record{};
    record.socket.role = FW_NET_CONNECT;
    record.socket.counts.bytes_sent = bytes;
    living.Add(record, 0, {});
  }
  const auto sorted = living.Sorted();
  ASSERT_EQ(sorted.size(), 2u);
  EXPECT_EQ(sorted[0].rank, 9u);
  EXPECT_EQ(sorted[1].rank, 7u);
  EXPECT_EQ(living.matching(), 4u);
}

TEST(NetworkConfigTest, SectionIsReadAndErrorsHavePlaces) {
  const auto good = ParseConfigText(
      "interval: 2s\nmax-connections: 5000\ndrops: off\nnetwork-namespaces: [4026531840]\n",
      "a.yaml");
  ASSERT_TRUE(good.ok());
  const auto config = ParseNetworkConfig(*good);
  ASSERT_TRUE(config.ok()) << base::Message(config.status());
  EXPECT_EQ(config->monitor.report_interval_ms, 2'000u);
  EXPECT_EQ(config->monitor.probe.max_sockets, 5'000u);
  EXPECT_FALSE(config->monitor.drops);
  EXPECT_EQ(config->monitor.probe.network_namespaces, std::vector<uint32_t>{4'026'531'840u});
  const auto bad = ParseConfigText("drops: on\nintervall: 2s\n", "a.yaml");
  ASSERT_TRUE(bad.ok());
  const auto error = ParseNetworkConfig(*bad);
  ASSERT_FALSE(error.ok());
  EXPECT_NE(base::Message(error.status()).find("a.yaml:2"), std::string_view::npos);
  EXPECT_NE(base::Message(error.status()).find("interval"), std::string_view::npos);
}

}  // namespace
}  // namespace firewatch::agent
