// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/rules_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/status.h"

namespace firewatch::agent {
namespace {

using testing::HasSubstr;

absl::StatusOr<RuleSet> Parse(const std::string& yaml, const std::string& list = "") {
  return ParseRules(yaml, "r.yaml", [&list](const std::string&) { return list; });
}
std::string ErrorOf(const std::string& yaml, const std::string& list = "") {
  const auto rules = Parse(yaml, list);
  return rules.ok() ? "OK" : std::string(base::Message(rules.status()));
}
std::string OneRule(const std::string& fields) { return "rules:\n- {name: r, " + fields + "}\n"; }

TEST(RulesFileTest, EveryKeyIsRead) {
  const auto rules = Parse(
      "malformed: drop\n"
      "rules:\n"
      "- name: late\n"
      "  match: {dst: 10.0.0.0/8, dport: [80, 8000-8080], protocol: [tcp, 17]}\n"
      "  action: {rate: {pps: 10k, bps: 1M, burst: 5, burst_bytes: 4096, per: source/24}}\n"
      "  ttl: 1h\n"
      "  comment: why\n"
      "- {name: early, priority: 5, match: {src_list: a}, action: sample 1/100}\n",
      "192.0.2.0/24 # x\n\n2001:db8::/32 ; y\n");
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_TRUE(rules->drop_malformed);
  ASSERT_EQ(rules->rules.size(), 2u);
  const Rule& early = rules->rules[0];
  EXPECT_EQ(early.name, "early");
  EXPECT_EQ(early.action, FW_ACTION_SAMPLE);
  EXPECT_EQ(early.sample_n, 100u);
  ASSERT_EQ(early.match.source.size(), 1u);
  EXPECT_EQ(early.match.source[0]->size(), 2u);
  const Rule& late = rules->rules[1];
  EXPECT_EQ(late.ttl_ms, 3'600'000u);
  EXPECT_EQ(late.comment, "why");
  EXPECT_EQ(late.match.destination_ports, (std::vector<PortRange>{{80, 80}, {8000, 8080}}));
  EXPECT_EQ(late.match.protocols, (std::vector<uint8_t>{6, 17}));
  EXPECT_EQ(late.rate.packets_per_s, 10'000u);
  EXPECT_EQ(late.rate.bits_per_s, 1'000'000u);
  EXPECT_EQ(late.rate.burst_packets, 5u);
  EXPECT_EQ(late.rate.burst_bytes, 4096u);
  EXPECT_EQ(late.rate.per, FW_PER_SOURCE_24);
}

TEST(RulesFileTest, ErrorsNameTheLineAndTheNearestWord) {
  EXPECT_THAT(ErrorOf("rules:\n- {name: r, acton: drop}\n"), HasSubstr("r.yaml:2"));
  EXPECT_THAT(ErrorOf("rules:\n- {name: r, acton: drop}\n"), HasSubstr("action"));
  EXPECT_THAT(ErrorOf(OneRule("action: dorp")), HasSubstr("\"drop\""));
  EXPECT_THAT(ErrorOf(OneRule("action: drop, match: {protocol: tpc}")), HasSubstr("\"tcp\""));
  EXPECT_THAT(ErrorOf(OneRule("action: drop, match: {scr: 10.0.0.1}")), HasSubstr("src"));
  EXPECT_THAT(ErrorOf("rule: []\n"), HasSubstr("rules"));
}

TEST(RulesFileTest, WhatContradictsItselfIsRefused) {
  for (const char* fields :
       {"match: {}", "action: drop, match: {src: 10.0.0.1/8}",
        "action: drop, match: {sport: 70000}", "action: drop, match: {dport: 9-3}",
        "action: drop, match: {protocol: icmp, dport: 80}", "action: drop, match: {icmp_type: 8}",
        "action: drop, match: {protocol: udp, tcp_flags: syn}",
        "action: drop, match: {tcp_flags: \"syn,!syn\"}", "action: sample 1/0", "action: rate",
        "action: {rate: {}}", "action: {rate: {pps: 0}}", "action: {rate: {bps: 1M, burst: 5}}",
        "action: drop, ttl: never", "action: drop, match: {src: 10.0.0.256}",
        "action: drop, match: {src: \"2001:db8::1/32\"}"}) {
    EXPECT_THAT(ErrorOf(OneRule(fields)), HasSubstr("r.yaml:2")) << fields;
  }
  EXPECT_THAT(ErrorOf("rules:\n- {name: a, action: drop}\n- {name: a, action: pass}\n"),
              HasSubstr("r.yaml:3"));
  EXPECT_THAT(ErrorOf("rules:\n- {action: drop}\n"), HasSubstr("name"));
}

TEST(RulesFileTest, AListSaysWhichLineIsWrong) {
  EXPECT_THAT(
      ErrorOf(OneRule("action: drop, match: {src_list: bad.txt}"), "10.0.0.0/8\n10.0.0.1/8\n"),
      HasSubstr("bad.txt:2"));
}

TEST(RulesFileTest, MoreThan256RulesAreRefused) {
  std::string yaml = "rules:\n";
  for (int i = 0; i < 257; ++i) yaml += "- {name: r" + std::to_string(i) + ", action: pass}\n";
  EXPECT_THAT(ErrorOf(yaml), HasSubstr("r.yaml:258"));
}

}  // namespace
}  // namespace firewatch::agent
