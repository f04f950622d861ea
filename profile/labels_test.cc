// SPDX-License-Identifier: Apache-2.0
#include "profile/labels.h"

#include <gtest/gtest.h>

#include "base/status.h"
#include "profile/utf8.h"

namespace firewatch::profile {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

TEST(LabelSetTest, IsSortedTheLastOfEqualNamesWinsAndEmptyValuesAreAbsent) {
  const LabelSet set({{"b", "2"}, {"a", "old"}, {"c", ""}, {"a", "new"}});
  EXPECT_EQ(set.pairs(),
            (std::vector<std::pair<std::string, std::string>>{{"a", "new"}, {"b", "2"}}));
  EXPECT_EQ(set.Get("a"), "new");
  EXPECT_EQ(set.Get("c"), "");
  EXPECT_EQ(set.Get("zzz"), "");
}

TEST(LabelSetTest, LastOfEqualNamesWinsEvenWhenItIsEmpty) {
  EXPECT_TRUE(LabelSet({{"a", "x"}, {"a", ""}}).empty());
}

TEST(LabelSetTest, SetInsertsReplacesAndErases) {
  LabelSet set;
  set.Set("b", "1");
  set.Set("a", "1");
  set.Set("b", "2");
  EXPECT_EQ(set, LabelSet({{"a", "1"}, {"b", "2"}}));
  set.Set("a", "");
  set.Set("never", "");
  EXPECT_EQ(set, LabelSet(Pairs{{"b", "2"}}));
}

TEST(LabelSetTest, TextIsMadeUtf8AndCutVisibly) {
  const LabelSet set({{"comm", "a\xff"}, {"sql", std::string(5000, 'x')}});
  EXPECT_EQ(set.Get("comm"), "a\xEF\xBF\xBD");
  EXPECT_EQ(set.Get("sql").size(), kMaxLabelValueBytes);
  EXPECT_TRUE(set.Get("sql").ends_with("x\u2026"));
}

TEST(LabelSetTest, EncodingIsCanonicalAndDecodes) {
  const LabelSet set({{"service", "x"}, {"comm", std::string(300, 'y')}});
  const LabelSet same({{"comm", std::string(300, 'y')}, {"service", "x"}});
  EXPECT_EQ(set.Encode(), same.Encode());
  EXPECT_EQ(set.Encode().substr(0, 7), std::string("\x04"
                                                   "comm"
                                                   "\xAC\x02"));
  EXPECT_EQ(LabelSet::Decode(set.Encode()).value(), set);
  EXPECT_EQ(LabelSet().Encode(), "");
  EXPECT_TRUE(LabelSet::Decode("").value().empty());
}

TEST(LabelSetTest, DecodeRefusesWhatEncodeDoesNotWrite) {
  for (const std::string_view bad : {
           std::string_view("\x01"),
           std::string_view("\x01"
                            "a"),
           std::string_view("\x01"
                            "a\x05"
                            "b"),
           std::string_view("\x01"
                            "a\x00",
                            3),  // empty value
           std::string_view("\x01"
                            "b\x01"
                            "1\x01"
                            "a\x01"
                            "1"),  // not sorted
           std::string_view("\x01"
                            "a\x01"
                            "1\x01"
                            "a\x01"
                            "2"),  // twice
           std::string_view("\x81\x00"
                            "a\x01"
                            "1",
                            5),  // padded length
           std::string_view("\x01"
                            "a\x01"
                            "\xff"),  // not UTF-8
           std::string_view("\x01"
                            "a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
       }) {
    EXPECT_FALSE(LabelSet::Decode(bad).ok()) << testing::PrintToString(bad);
  }
  std::string many;
  for (char c = ' '; c < ' ' + 65; ++c) many += std::string("\x01") + c + "\x01v";
  EXPECT_FALSE(LabelSet::Decode(many).ok());
}

TEST(LabelSetTest, TextParsesBackToASelectorThatMatchesIt) {
  const LabelSet set({{"comm", "a\"b\\c\nd\te\x01 \u20ac"}, {"service", "x"}, {"span-id", "1"}});
  EXPECT_EQ(set.ToString(),
            "{comm=\"a\\\"b\\\\c\\nd\\x09e\\x01 \u20ac\",service=\"x\",\"span-id\"=\"1\"}");
  const auto selector = ParseSelector(set.ToString());
  ASSERT_TRUE(selector.ok()) << base::ToString(selector.status());
  EXPECT_EQ(selector->matchers().size(), 3u);
  EXPECT_TRUE(selector->Matches(set));
}

TEST(LabelNameTest, FollowsPrometheusWithDots) {
  for (const char* good : {"a", "_x", "A9", "k8s.pod.name"}) EXPECT_TRUE(IsValidLabelName(good));
  for (const char* bad : {"", "9a", ".a", "a-b", "a b", "\u00e4"}) {
    EXPECT_FALSE(IsValidLabelName(bad)) << bad;
  }
  EXPECT_TRUE(IsValidLabelName(std::string(kMaxLabelNameBytes, 'a')));
  EXPECT_FALSE(IsValidLabelName(std::string(kMaxLabelNameBytes + 1, 'a')));
}

bool Matches(std::string_view selector, const LabelSet& set) {
  const auto parsed = ParseSelector(selector);
  EXPECT_TRUE(parsed.ok()) << selector << ": " << base::ToString(parsed.status());
  return parsed.ok() && parsed->Matches(set);
}

TEST(SelectorTest, EmptyTextAndEmptyBracesMeanEverything) {
  for (const char* text : {"", "  ", "{}", " { } "}) EXPECT_TRUE(Matches(text, LabelSet())) << text;
}

TEST(SelectorTest, AllFourOperatorsAndAbsentIsEmpty) {
  const LabelSet set({{"service", "api"}, {"node", "n1"}});
  EXPECT_TRUE(Matches(R"({service="api"})", set));
  EXPECT_FALSE(Matches(R"({service="ap"})", set));
  EXPECT_TRUE(Matches(R"({service!="web"})", set));
  EXPECT_TRUE(Matches(R"({service=~"a.*",node=~"n[12]"})", set));
  EXPECT_FALSE(Matches(R"({service=~"p"})", set)) << "anchored at both ends";
  EXPECT_FALSE(Matches(R"({service=~"a"})", set));
  EXPECT_FALSE(Matches(R"({service!~"a.*|b"})", set));
  EXPECT_TRUE(Matches(R"({container_id=""})", set));
  EXPECT_TRUE(Matches(R"({container_id!~".+"})", set));
  EXPECT_FALSE(Matches(R"({service="api",node="n2"})", set)) << "all must hold";
}

TEST(SelectorTest, DotMatchesALineBreakToo) {
  EXPECT_TRUE(Matches(R"({a=~"x.y"})", LabelSet(Pairs{{"a", "x\ny"}})));
}

TEST(SelectorTest, QuotesAndEscapes) {
  const LabelSet set(Pairs{{"a", "q\"b\\c\nd"}});
  EXPECT_TRUE(Matches(R"({a="q\"b\\c\nd"})", set));
  EXPECT_TRUE(Matches(R"({a='q"b\\c\nd'})", set));
  EXPECT_TRUE(Matches("{a=`q\"b\\c\nd`}", set)) << "nothing is an escape in backquotes";
  EXPECT_TRUE(
      Matches(R"({a="\x41\u20ac\U0001F525"})", LabelSet(Pairs{{"a", "A\u20ac\U0001F525"}})));
}

TEST(SelectorTest, SpacesAndOneTrailingCommaAreFine) {
  EXPECT_TRUE(Matches(" {\n a = \"1\" ,\tb = \"2\" , } ", LabelSet({{"a", "1"}, {"b", "2"}})));
}

TEST(SelectorTest, ServiceNameIsService) {
  const auto selector = ParseSelector(R"({service_name="x"})");
  ASSERT_TRUE(selector.ok());
  EXPECT_EQ(selector->matchers()[0].name(), "service");
}

std::string ErrorOf(std::string_view selector) {
  const auto parsed = ParseSelector(selector);
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << selector;
  EXPECT_TRUE(IsValidUtf8(base::Message(parsed.status())));
  return std::string(base::Message(parsed.status()));
}

TEST(SelectorTest, ErrorsNameTheColumnAndWhatWasExpected) {
  EXPECT_EQ(ErrorOf("service=\"x\""), "selector, column 1: expected \"{\", found \"s\"");
  EXPECT_EQ(ErrorOf("{"), "selector, column 2: expected a label name, found the end");
  EXPECT_EQ(ErrorOf("{a}"), "selector, column 3: expected one of = != =~ !~, found \"}\"");
  EXPECT_EQ(ErrorOf("{a!\"x\"}"),
            "selector, column 4: expected \"=\" or \"~\" after \"!\", found \"\"\"");
  EXPECT_EQ(ErrorOf("{a=x}"), "selector, column 4: expected a quoted value, found \"x\"");
  EXPECT_EQ(ErrorOf("{a=\"x}"), "selector, column 4: this quote is never closed");
  EXPECT_EQ(ErrorOf("{a=\"x\" b=\"y\"}"),
            "selector, column 8: expected \",\" or \"}\", found \"b\"");
  EXPECT_EQ(ErrorOf("{a=\"x\",,b=\"y\"}"),
            "selector, column 8: expected a label name, found \",\"");
  EXPECT_EQ(ErrorOf("{,}"), "selector, column 2: expected a label name, found \",\"");
  EXPECT_EQ(ErrorOf("{a=\"x\",,}"), "selector, column 8: expected a label name, found \",\"");
  EXPECT_EQ(ErrorOf("{a=\"x\"} {}"), "selector, column 9: expected the end, found \"{\"");
  EXPECT_EQ(ErrorOf("{a=\"x\""), "selector, column 7: expected \",\" or \"}\", found the end");
  EXPECT_EQ(ErrorOf("{9a=\"x\"}"), "selector, column 2: expected a label name, found \"9\"");
}

TEST(SelectorTest, ColumnsCountCharactersNotBytes) {
  EXPECT_EQ(ErrorOf("{a=\"\u20ac\u20ac\" \u20ac}"),
            "selector, column 9: expected \",\" or \"}\", found \"\u20ac\"");
}

TEST(SelectorTest, BadRegularExpressionsSayWhy) {
  EXPECT_EQ(ErrorOf("{a=~\"x(\"}"), "selector, column 5: regular expression \"x(\": missing ): x(");
}

TEST(SelectorTest, BadEscapesAreRefused) {
  for (const char* bad : {R"({a="\q"})", R"({a="\x4"})", R"({a="\ud800"})", R"({a="\U00110000"})",
                          R"({a="\xff"})", R"({a="\)"}) {
    ErrorOf(bad);
  }
}

TEST(SelectorTest, LimitsHold) {
  std::string many = "{";
  for (int i = 0; i < 64; ++i) many += "a=\"x\",";
  EXPECT_TRUE(ParseSelector(many + "}").ok());
  EXPECT_EQ(ErrorOf(many + "a=\"x\"}"), "selector, column 386: more than 64 matchers");
  ErrorOf("{a=\"" + std::string(17000, 'x') + "\"}");
  ErrorOf("{a=\"\xff\"}");
  ErrorOf("{" + std::string(kMaxLabelNameBytes + 1, 'a') + "=\"x\"}");
}

TEST(MatcherTest, HostileExpressionsStayCheap) {
  // Exponential for a backtracking matcher; and one whose program would be huge.
  const auto evil = Matcher::Create("a", MatchOp::kRegex, "(a*)*(a|a)*b");
  ASSERT_TRUE(evil.ok());
  EXPECT_FALSE(evil->Matches(std::string(2000, 'a')));
  EXPECT_FALSE(Matcher::Create("a", MatchOp::kRegex, "((a{900}){900}){900}").ok());
}

}  // namespace
}  // namespace firewatch::profile
