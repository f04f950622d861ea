// SPDX-License-Identifier: Apache-2.0
#include "cli/connections.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace firewatch::cli {
namespace {

using testing::HasSubstr;

constexpr std::string_view kAnswer = R"({"matching":2,"connections":[
 {"state":"ESTABLISHED","direction":"out","pid":42,"comm":"curl","exe":"/usr/bin/cu\u001brl",
  "local":"10.0.0.1:50000","remote":"[2001:db8::1]:443","from_before":true,"bytes_sent":12345678,
  "bytes_received":5,"retransmits":3,"rtt_us":1250,"duration_us":2500000}],
 "listeners":[{"pid":7,"comm":"nginx","exe":"","local":"0.0.0.0:80","queue":3,"queue_limit":128,
  "overflows":9,"syn_ack_retransmits":1}],
 "peers":[{"pid":42,"comm":"curl","exe":"/usr/bin/curl","direction":"out","peer":"10.0.0.2",
  "port":443,"living":1,"closed":10,"failed":2,"resets_sent":1,"resets_received":1,
  "retransmits":4,"syn_retransmits":1,"bytes_sent":100,"bytes_received":200,"rtt_us":900}],
 "drops":[{"reason":"NO_SOCKET","protocol":"tcp","packets":8},
  {"reason":"NOT_SPECIFIED","where":"ip_rcv","protocol":"udp","packets":1,"pid":42,"comm":"a","exe":""}],
 "failures":{"ECONNREFUSED":2},"missing":["drops: none"],
 "events":[{"number":5,"time_unix_ms":1500,"event":"failed","state":"CLOSE","direction":"out",
  "pid":42,"comm":"curl","exe":"/usr/bin/curl","local":"10.0.0.1:1","remote":"10.0.0.2:2",
  "bytes_sent":0,"bytes_received":0,"retransmits":2,"rtt_us":0,"duration_us":1000,
  "error":"ECONNREFUSED","reset_by":"peer"}],"last_event":5})";

TEST(ConnectionsTest, TableHasConnectionsListenersPeersAndDrops) {
  const auto text = FormatConnections(kAnswer);
  ASSERT_TRUE(text.ok()) << base::Message(text.status());
  EXPECT_THAT(*text, HasSubstr("42/cu?rl"));
  EXPECT_THAT(*text, HasSubstr("[2001:db8::1]:443"));
  EXPECT_THAT(*text, HasSubstr("12.3M"));
  EXPECT_THAT(*text, HasSubstr("(1 of 2: --limit shows more)"));
  EXPECT_THAT(*text, HasSubstr("3/128"));
  EXPECT_THAT(*text, HasSubstr("10.0.0.2:443"));
  EXPECT_THAT(*text, HasSubstr("NOT_SPECIFIED in ip_rcv"));
  EXPECT_THAT(*text, HasSubstr("2 failed connections: ECONNREFUSED"));
  EXPECT_THAT(*text, HasSubstr("not seen on this kernel: drops: none"));
}

TEST(ConnectionsTest, EventSaysHowItEnded) {
  uint64_t last = 0;
  const auto text = FormatConnectionEvents(kAnswer, &last);
  ASSERT_TRUE(text.ok()) << base::Message(text.status());
  EXPECT_THAT(*text, HasSubstr("failed"));
  EXPECT_THAT(*text, HasSubstr("ECONNREFUSED reset by peer"));
  EXPECT_EQ(last, 5u);
}

TEST(ConnectionsTest, AnswerOfSomethingElseIsRefused) {
  EXPECT_FALSE(FormatConnections("{}").ok());
  uint64_t last = 0;
  EXPECT_FALSE(FormatConnectionEvents("not json", &last).ok());
}

}  // namespace
}  // namespace firewatch::cli
