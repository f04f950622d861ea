// SPDX-License-Identifier: Apache-2.0
// The kernel's parser and classifier, on the host, against the slow twin. A million random pairs of
// rules and packets take about 20 s with sanitizers; FIREWATCH_PAIRS=N runs another number.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "agent/enforce/host_classifier.h"
#include "agent/enforce/random_rules.h"
#include "agent/enforce/reference.h"

namespace firewatch::agent {
namespace {

uint64_t Pairs() {
  const char* text = std::getenv("FIREWATCH_PAIRS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 100'000;
}

std::string Hex(const std::vector<uint8_t>& bytes) {
  std::string out;
  for (const uint8_t byte : bytes) out += fmt::format("{:02x}", byte);
  return out;
}

TEST(ClassifyTest, RandomRulesAndPacketsAgreeWithTheSlowTwin) {
  constexpr uint64_t kPacketsPerSet = 500;
  uint64_t drops = 0;
  uint64_t decided = 0;
  uint64_t reached = 0;
  uint64_t by_address = 0;
  uint64_t pairs = 0;
  for (uint64_t seed = 1; pairs < Pairs(); ++seed) {
    RandomRules random(seed);
    const RuleSet rules = random.Rules();
    const auto image = BuildImage(rules, PlainOptions(rules));
    ASSERT_TRUE(image.ok()) << image.status();
    for (uint64_t i = 0; i < kPacketsPerSet; ++i, ++pairs) {
      const std::vector<uint8_t> frame = random.Frame();
      const ReferenceVerdict want = Judge(rules, frame);
      const HostVerdict got = JudgeOnHost(*image, frame);
      ASSERT_FALSE(got.broken) << "seed " << seed;
      ASSERT_EQ(got.reached, want.reached)
          << "seed " << seed << " packet " << i << " " << Hex(frame);
      ASSERT_EQ(got.decided_by, want.decided_by) << "seed " << seed << " packet " << i;
      ASSERT_EQ(got.drop, want.drop) << "seed " << seed << " packet " << i;
      drops += want.drop;
      decided += want.decided_by.has_value();
      reached += want.reached.size();
      by_address += got.by_address;
    }
  }
  // Both sides of every question are asked.
  EXPECT_GT(drops, pairs / 10);
  EXPECT_GT(decided, pairs / 4);
  EXPECT_LT(decided, pairs * 39 / 40);
  EXPECT_GT(reached, decided);
  EXPECT_GT(by_address, pairs / 200);
  RecordProperty("pairs", std::to_string(pairs));
}

// Dense lists: blocks with the vector of their quarter and with others, whole /20s and /12s, tails.
// In every other set a rule that asks for ports comes first, so that addresses alone decide
// nothing.
TEST(ClassifyTest, DenseListsOfAllLengthsAgreeWithTheSlowTwin) {
  uint64_t drops = 0, by_address = 0, pairs = 0;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    RandomRules random(seed);
    RuleSet rules;
    std::vector<uint32_t> edges;
    for (int r = 0; r < 4; ++r) {
      Rule rule;
      rule.name = fmt::format("rule{}", r);
      rule.action = r % 2 == 0 ? FW_ACTION_DROP : FW_ACTION_PASS;
      if (r == 0 && seed % 2 == 0) rule.match.destination_ports = {{53, 53}};
      auto set = std::make_shared<PrefixSet>();
      for (int i = 0; i < 3'000; ++i) {
        const auto length = static_cast<uint8_t>(random.OneIn(500) ? 10 + random.Below(6)
                                                 : random.OneIn(3) ? 16 + random.Below(8)
                                                                   : 24 + random.Below(9));
        const uint32_t mask = LastAddress(Prefix4{0, length});
        const uint32_t address = Ip4(10, 0, 0, 0) + static_cast<uint32_t>(random.Below(1u << 26));
        const Prefix4 prefix{address & ~mask, length};
        set->Add(prefix);
        if (random.OneIn(4)) edges.insert(edges.end(), {prefix.address, LastAddress(prefix)});
      }
      set->Close();
      (r == 3 ? rule.match.destination : rule.match.source) = {set};
      rules.rules.push_back(std::move(rule));
    }
    const auto image = BuildImage(rules, PlainOptions(rules));
    ASSERT_TRUE(image.ok()) << image.status();
    const auto address = [&] {
      return edges[random.Below(edges.size())] + static_cast<uint32_t>(random.Below(3)) - 1;
    };
    for (int i = 0; i < 4'000; ++i, ++pairs) {
      const auto port = static_cast<uint16_t>(random.OneIn(2) ? 53 : 80);
      const auto frame = FrameBuilder().Ipv4(address(), address(), 17).Udp(1, port).Bytes();
      const ReferenceVerdict want = Judge(rules, frame);
      const HostVerdict got = JudgeOnHost(*image, frame);
      ASSERT_EQ(got.reached, want.reached) << "seed " << seed << " " << Hex(frame);
      ASSERT_EQ(got.drop, want.drop) << "seed " << seed << " " << Hex(frame);
      drops += want.drop;
      by_address += got.by_address;
    }
  }
  EXPECT_GT(drops, pairs / 4);
  EXPECT_LT(drops, pairs * 3 / 4);
  EXPECT_GT(by_address, pairs / 4);
}

// Packs of hosts around one address: tails with many runs, tails with all 256.
TEST(ClassifyTest, EveryHostOfASubnetMayHaveRulesOfItsOwn) {
  RuleSet rules;
  for (int i = 0; i < 2; ++i) {
    Rule rule;
    rule.name = "rule" + std::to_string(i);
    auto set = std::make_shared<PrefixSet>();
    for (uint32_t host = static_cast<uint32_t>(i); host < 256; host += 2) {
      set->Add(Prefix4{Ip4(192, 0, 2, 0) + host, 32});
      set->Add(Prefix6{{0x20010db800000000, host}, 128});
    }
    set->Close();
    rule.match.source = {set};
    rules.rules.push_back(std::move(rule));
  }
  const auto image = BuildImage(rules, PlainOptions(rules));
  ASSERT_TRUE(image.ok()) << image.status();
  for (uint32_t host = 0; host < 256; ++host) {
    const auto frame4 = FrameBuilder().Ipv4(Ip4(192, 0, 2, 0) + host, 1, 17).Udp(1, 2).Bytes();
    EXPECT_EQ(JudgeOnHost(*image, frame4).reached, std::vector<size_t>{host % 2}) << host;
    const auto frame6 = FrameBuilder().Ipv6({0x20010db800000000, host}, {}, 17).Udp(1, 2).Bytes();
    EXPECT_EQ(JudgeOnHost(*image, frame6).reached, std::vector<size_t>{host % 2}) << host;
  }
}

TEST(ClassifyTest, WholeAddressSpacesAndTheirLastAddressesMatch) {
  RuleSet rules;
  Rule rule;
  rule.name = "all";
  auto set = std::make_shared<PrefixSet>();
  ASSERT_TRUE(set->Add("0.0.0.0/0").ok());
  ASSERT_TRUE(set->Add("::/0").ok());
  set->Close();
  rule.match.source = {set};
  rules.rules.push_back(rule);
  const auto image = BuildImage(rules, PlainOptions(rules));
  ASSERT_TRUE(image.ok()) << image.status();
  for (const uint32_t address : {0u, 1u, ~0u}) {
    EXPECT_TRUE(JudgeOnHost(*image, FrameBuilder().Ipv4(address, 1, 17).Udp(1, 2).Bytes()).drop);
  }
  for (const uint64_t half : {uint64_t{0}, UINT64_MAX}) {
    EXPECT_TRUE(
        JudgeOnHost(*image, FrameBuilder().Ipv6({half, half}, {}, 17).Udp(1, 2).Bytes()).drop);
  }
}

TEST(ClassifyTest, ASetOfRulesWithoutRulesMatchesNothing) {
  const RuleSet rules;
  const auto image = BuildImage(rules, PlainOptions(rules));
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->slab_count(), 1u);
  const HostVerdict got = JudgeOnHost(*image, FrameBuilder().Ipv4(1, 2, 6).Tcp(1, 2, 2).Bytes());
  EXPECT_FALSE(got.drop);
  EXPECT_TRUE(got.reached.empty());
}

TEST(ClassifyTest, AnEmptyListNamesNobody) {
  RuleSet rules;
  Rule rule;
  rule.name = "none";
  rule.match.source = {std::make_shared<const PrefixSet>()};
  rules.rules.push_back(rule);
  const auto image = BuildImage(rules, PlainOptions(rules));
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_FALSE(JudgeOnHost(*image, FrameBuilder().Ipv4(1, 2, 6).Tcp(1, 2, 2).Bytes()).drop);
}

// A damaged image gives wrong answers, never a wrong read (AddressSanitizer watches).
TEST(ClassifyTest, DamagedImagesAreReadWithinTheirSlabs) {
  RandomRules random(7);
  const RuleSet rules = random.Rules();
  const auto whole = BuildImage(rules, PlainOptions(rules));
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (int round = 0; round < 3'000; ++round) {
    Image image = *whole;
    for (int i = 0; i < 8; ++i) {
      image.words[random.OneIn(2) ? random.Below(128) : random.Below(image.words.size())] =
          random.Below(UINT64_MAX) >> random.Below(64);
    }
    JudgeOnHost(image, random.Frame());
  }
}

TEST(ClassifyTest, AnImageOverItsLimitIsRefused) {
  RuleSet rules;
  Rule rule;
  rule.name = "many";
  auto set = std::make_shared<PrefixSet>();
  for (uint32_t i = 0; i < 100'000; ++i) set->Add(Prefix4{i * 40'009, 32});
  set->Close();
  rule.match.source = {set};
  rules.rules.push_back(rule);
  ImageOptions options = PlainOptions(rules);
  options.max_bytes = 256 << 10;
  EXPECT_EQ(BuildImage(rules, options).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace firewatch::agent
