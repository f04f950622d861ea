// SPDX-License-Identifier: Apache-2.0
#include "agent/network/connection_table.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

namespace firewatch::agent {
namespace {

constexpr fw_net_owner kClient = {.tgid = 10, .exec_id = 1, .start_ns = 100};

fw_net_address Address(uint8_t last) {
  return {.bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last}};
}

fw_net_record Record(uint64_t id, uint32_t kind, uint64_t bytes_sent = 0) {
  fw_net_record record{};
  record.id = id;
  record.kind = kind;
  record.socket.opened_ns = id * 1000;
  record.socket.established_ns = id * 1000 + 10;
  record.socket.closed_ns = kind == FW_NET_RECORD_CLOSED ? id * 1000 + 50'000 : 0;
  record.socket.owner = kClient;
  record.socket.owner_source = FW_NET_OWNER_CALL;
  record.socket.remote = Address(2);
  record.socket.remote_port = 80;
  record.socket.local_port = 50'000;
  record.socket.role = FW_NET_CONNECT;
  record.socket.state = 1;
  record.socket.counts.bytes_sent = bytes_sent;
  return record;
}

fw_net_edge Edge(uint8_t last) {
  fw_net_edge edge{};
  edge.owner = kClient;
  edge.remote = Address(last);
  edge.port = 80;
  edge.role = FW_NET_CONNECT;
  edge.protocol = 6;
  return edge;
}

class ConnectionTableTest : public testing::Test {
 protected:
  ConnectionTable Make(ConnectionTableOptions options = {}) {
    return ConnectionTable(options, [this](const fw_net_owner& owner) {
      ++resolved_;
      return NetworkProcess{.pid = owner.tgid, .comm = "client", .exe = "/bin/client"};
    });
  }
  static void Report(ConnectionTable& table, const std::vector<fw_net_record>& living) {
    table.BeginReport();
    for (const fw_net_record& record : living) table.AddLiving(record);
    table.EndReport();
  }
  int resolved_ = 0;
};

TEST_F(ConnectionTableTest, LivingConnectionIsCountedByDifferencesAndItsEndOnce) {
  ConnectionTable table = Make();
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 100)});
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 250)});
  EXPECT_EQ(table.outgoing().opened, 1u);
  EXPECT_EQ(table.outgoing().bytes_sent, 250u);
  table.AddRecord(Record(1, FW_NET_RECORD_CLOSED, 300));
  Report(table, {});
  EXPECT_EQ(table.outgoing().opened, 1u);
  EXPECT_EQ(table.outgoing().closed, 1u);
  EXPECT_EQ(table.outgoing().bytes_sent, 300u);
  EXPECT_EQ(table.outgoing().duration_us, 50u);
  EXPECT_EQ(table.tracked(), 0u);
  EXPECT_EQ(resolved_, 1);
}

TEST_F(ConnectionTableTest, ReadingBehindTheOneBeforeIsNotCountedAgain) {
  ConnectionTable table = Make();
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 100)});
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 60)});
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 110)});
  EXPECT_EQ(table.outgoing().bytes_sent, 110u);
}

// The report came between the retransmit of the SYN and the answer to it.
TEST_F(ConnectionTableTest, SynThatLookedLikeDataIsCountedOnce) {
  ConnectionTable table = Make();
  fw_net_record record = Record(1, FW_NET_RECORD_LIVE);
  record.socket.counts.retransmits = 1;
  record.socket.counts.handshake_retransmits = 0;
  Report(table, {record});
  record.socket.counts.handshake_retransmits = 1;
  Report(table, {record});
  record.socket.counts.retransmits = 3;
  record.kind = FW_NET_RECORD_CLOSED;
  table.AddRecord(record);
  EXPECT_EQ(table.outgoing().retransmits + table.outgoing().syn_retransmits, 3u);
}

TEST_F(ConnectionTableTest, RecordOfWhatTheEdgesHaveIsShownAndNotCounted) {
  ConnectionTable table = Make();
  fw_net_record record = Record(1, FW_NET_RECORD_CLOSED, 300);
  record.in_edges = 1;
  table.AddRecord(record);
  table.AddEdge(Edge(2), {.bytes_sent = 300, .connections = 1});
  EXPECT_EQ(table.outgoing().closed, 1u);
  EXPECT_EQ(table.outgoing().bytes_sent, 300u);
  EXPECT_EQ(table.last_event(), 1u);
}

TEST_F(ConnectionTableTest, OlderConnectionCountsFromWhereItWasFound) {
  ConnectionTable table = Make();
  fw_net_record record = Record(1, FW_NET_RECORD_LIVE, 1'000);
  record.socket.flags = FW_NET_FROM_BEFORE;
  Report(table, {record});
  record.socket.counts.bytes_sent = 1'005;
  record.kind = FW_NET_RECORD_CLOSED;
  table.AddRecord(record);
  EXPECT_EQ(table.outgoing().opened, 0u);
  EXPECT_EQ(table.outgoing().closed, 1u);
  EXPECT_EQ(table.outgoing().bytes_sent, 5u);
}

TEST_F(ConnectionTableTest, NewSocketAtTheSameAddressIsAnother) {
  ConnectionTable table = Make();
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 100)});
  fw_net_record next = Record(1, FW_NET_RECORD_LIVE, 40);
  next.socket.opened_ns = 999'999;
  Report(table, {next});
  EXPECT_EQ(table.outgoing().opened, 2u);
  EXPECT_EQ(table.outgoing().bytes_sent, 140u);
}

// The address is given again, and the report shows the new one before the end of the old is read.
TEST_F(ConnectionTableTest, EndThatIsReadAfterItsSuccessorIsCountedByTheDifference) {
  ConnectionTable table = Make();
  fw_net_record old_one = Record(1, FW_NET_RECORD_LIVE, 1'000);
  Report(table, {old_one});
  fw_net_record new_one = Record(1, FW_NET_RECORD_LIVE, 70);
  new_one.socket.opened_ns = old_one.socket.opened_ns + 5;
  Report(table, {new_one});
  old_one.socket.counts.bytes_sent = 1'005;
  old_one.kind = FW_NET_RECORD_CLOSED;
  table.AddRecord(old_one);
  EXPECT_EQ(table.outgoing().opened, 2u);
  EXPECT_EQ(table.outgoing().closed, 1u);
  EXPECT_EQ(table.outgoing().bytes_sent, 1'075u);
  EXPECT_EQ(table.tracked(), 1u);
}

TEST_F(ConnectionTableTest, ConnectionWhoseEndWasLostIsForgotten) {
  ConnectionTable table = Make();
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 100)});
  Report(table, {});
  EXPECT_EQ(table.tracked(), 1u);
  Report(table, {});
  EXPECT_EQ(table.tracked(), 0u);
}

TEST_F(ConnectionTableTest, FailureHasItsErrorAndRetransmitsOfItsSyn) {
  ConnectionTable table = Make();
  fw_net_record record = Record(1, FW_NET_RECORD_CLOSED);
  record.socket.established_ns = 0;
  record.socket.error = ECONNREFUSED;
  record.socket.counts.retransmits = 3;
  record.socket.counts.handshake_retransmits = 3;
  record.socket.flags = FW_NET_RESET_RECEIVED;
  table.AddRecord(record);
  EXPECT_EQ(table.outgoing().failed, 1u);
  EXPECT_EQ(table.outgoing().opened + table.outgoing().closed, 0u);
  EXPECT_EQ(table.outgoing().syn_retransmits, 3u);
  EXPECT_EQ(table.outgoing().retransmits, 0u);
  EXPECT_EQ(table.outgoing().resets_received, 1u);
  EXPECT_EQ(table.failures_by_errno().at(ECONNREFUSED), 1u);
}

TEST_F(ConnectionTableTest, EdgesBeyondTheLimitAreOneOther) {
  ConnectionTable table = Make({.max_edges = 3});
  for (uint8_t i = 0; i < 10; ++i) table.AddEdge(Edge(i), {.bytes_sent = 7, .connections = 1});
  ASSERT_EQ(table.edges().size(), 3u);
  EXPECT_EQ(table.edges()[0].totals.closed, 8u);
  EXPECT_EQ(table.outgoing().bytes_sent, 70u);
}

TEST_F(ConnectionTableTest, TrackedConnectionsEventsAndDropsAreBounded) {
  ConnectionTable table = Make({.max_tracked = 5, .max_drops = 3, .max_events = 4});
  std::vector<fw_net_record> living;
  for (uint64_t i = 1; i <= 20; ++i) living.push_back(Record(i, FW_NET_RECORD_LIVE, 1));
  Report(table, living);
  EXPECT_EQ(table.tracked(), 5u);
  EXPECT_EQ(table.not_tracked(), 15u);
  for (uint64_t i = 1; i <= 20; ++i) {
    fw_net_record record = Record(i, FW_NET_RECORD_ESTABLISHED);
    table.AddRecord(record);
    fw_net_edge drop{};
    drop.role = FW_NET_DROP;
    drop.code = static_cast<uint16_t>(i);
    table.AddEdge(drop, {.connections = 2});
  }
  size_t events = 0;
  table.ForEachEventSince(0, [&](const NetworkEvent&) { ++events; });
  EXPECT_EQ(events, 4u);
  uint64_t packets = 0;
  for (const NetworkDrop& drop : table.drops()) packets += drop.packets;
  EXPECT_EQ(table.drops().size(), 3u);
  EXPECT_EQ(packets, 40u);
}

TEST_F(ConnectionTableTest, OverflowOfTheKernelCountsTowardsOther) {
  ConnectionTable table = Make();
  std::array<fw_net_edge_counts, FW_NET_ROLES> overflow{};
  overflow[FW_NET_ACCEPT] = {.bytes_received = 10, .connections = 4};
  table.SetOverflow(overflow);
  overflow[FW_NET_ACCEPT].connections = 6;
  overflow[FW_NET_ACCEPT].bytes_received = 12;
  table.SetOverflow(overflow);
  EXPECT_EQ(table.incoming().closed, 6u);
  EXPECT_EQ(table.incoming().bytes_received, 12u);
  EXPECT_EQ(table.edges()[0].totals.closed, 6u);
}

TEST_F(ConnectionTableTest, ListenerCountsDropsOnce) {
  ConnectionTable table = Make();
  fw_net_record record = Record(1, FW_NET_RECORD_LIVE);
  record.socket.role = FW_NET_LISTEN;
  record.socket.listen_drops = 4;
  Report(table, {record});
  record.socket.listen_drops = 6;
  record.socket.synack_retransmits = 2;
  Report(table, {record});
  EXPECT_EQ(table.listen_drops(), 6u);
  EXPECT_EQ(table.synack_retransmits(), 2u);
  EXPECT_EQ(table.listeners(), 1u);
  record.kind = FW_NET_RECORD_CLOSED;
  table.AddRecord(record);
  EXPECT_EQ(table.listen_drops(), 6u);
  EXPECT_EQ(table.listeners(), 0u);
}

TEST_F(ConnectionTableTest, RecentIsHandedOutOnce) {
  ConnectionTable table = Make();
  table.AddEdge(Edge(2), {.bytes_sent = 7, .connections = 1});
  uint64_t bytes = 0;
  const auto take = [&](const NetworkEdge&, const NetworkTotals& recent) {
    bytes += recent.bytes_sent;
  };
  table.TakeRecent(take);
  table.TakeRecent(take);
  EXPECT_EQ(bytes, 7u);
}

TEST_F(ConnectionTableTest, LastConnectionOfAnEdgeIsToldToBeGone) {
  ConnectionTable table = Make();
  std::vector<uint64_t> living;
  const auto take = [&](const NetworkEdge& edge, const NetworkTotals&) {
    living.push_back(edge.living);
  };
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 5)});
  table.TakeRecent(take);
  Report(table, {Record(1, FW_NET_RECORD_LIVE, 5)});
  table.TakeRecent(take);  // nothing new, but it lives
  Report(table, {});       // its end was lost
  table.TakeRecent(take);
  table.TakeRecent(take);
  EXPECT_EQ(living, (std::vector<uint64_t>{1, 1, 0}));
}

TEST_F(ConnectionTableTest, EqualProgramsWithOtherLabelsAreApart) {
  ConnectionTable table({}, [](const fw_net_owner& owner) {
    NetworkProcess process{.pid = owner.tgid, .comm = "c", .exe = "/bin/c"};
    process.labels =
        std::make_shared<const profile::LabelSet>(std::vector<std::pair<std::string, std::string>>{
            {"cgroup", owner.tgid == 3 ? "/b" : "/a"}});
    return process;
  });
  const size_t first = table.ProcessOf({.tgid = 1, .exec_id = 0, .start_ns = 1});
  EXPECT_EQ(table.ProcessOf({.tgid = 2, .exec_id = 0, .start_ns = 2}), first);
  EXPECT_NE(table.ProcessOf({.tgid = 3, .exec_id = 0, .start_ns = 3}), first);
}

TEST(AddressTextTest, FamiliesAreTold) {
  EXPECT_EQ(EndpointText(Address(1), 80), "10.0.0.1:80");
  EXPECT_EQ(EndpointText({}, 80, false), "0.0.0.0:80");
  EXPECT_EQ(EndpointText({}, 80, true), "[::]:80");
  EXPECT_EQ(EndpointText({.bytes = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, 443),
            "[2001:db8::1]:443");
}

}  // namespace
}  // namespace firewatch::agent
