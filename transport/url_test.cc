// SPDX-License-Identifier: Apache-2.0
#include "transport/url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace firewatch::transport {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(UrlTest, DecodesPathAndQuery) {
  const auto target =
      ParseTarget("/a%20b/c+d?query=%7Bservice%3D%22x%22%7D&from=now-15m&flag&e=1=2");
  ASSERT_TRUE(target.ok());
  EXPECT_EQ(target->path, "/a b/c+d");
  EXPECT_THAT(target->query, ElementsAre(Pair("query", "{service=\"x\"}"), Pair("from", "now-15m"),
                                         Pair("flag", ""), Pair("e", "1=2")));
}

TEST(UrlTest, PlusIsASpaceInQueriesOnly) {
  const auto target = ParseTarget("/x+y?a+b=c+d%2B");
  ASSERT_TRUE(target.ok());
  EXPECT_EQ(target->path, "/x+y");
  EXPECT_THAT(target->query, ElementsAre(Pair("a b", "c d+")));
}

TEST(UrlTest, KeepsTheOrderOfRepeatedParameters) {
  const auto target = ParseTarget("/?a=1&b=2&a=3&&");
  ASSERT_TRUE(target.ok());
  EXPECT_THAT(target->query, ElementsAre(Pair("a", "1"), Pair("b", "2"), Pair("a", "3")));
}

TEST(UrlTest, RefusesPathsThatLeaveOrLie) {
  for (const char* text : {"", "x", "http://localhost/", "*", "/..", "/../etc/passwd", "/a/../b",
                           "/%2e%2e/b", "/a/%2E./b", "/.", "/a%00b", "/a%0d%0ab", "/a%7f", "/%",
                           "/%4", "/%zz", "/?a=%", "/?%g0=1"}) {
    EXPECT_EQ(ParseTarget(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(UrlTest, DotsInsideNamesAreFine) {
  const auto target = ParseTarget("/assets/index..js/...");
  ASSERT_TRUE(target.ok());
  EXPECT_EQ(target->path, "/assets/index..js/...");
}

TEST(UrlTest, BoundsTheNumberOfParameters) {
  std::string text = "/?";
  for (size_t i = 0; i < kMaxQueryParameters; ++i) text += "a&";
  EXPECT_TRUE(ParseTarget(text).ok());
  EXPECT_FALSE(ParseTarget(text + "a").ok());
}

TEST(UrlTest, EncodingComesBack) {
  const std::string all = "{a=\"\xc3\xa9 +&=%/?#\"}";
  const auto decoded = PercentDecode(PercentEncode(all), true);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(*decoded, all);
  EXPECT_EQ(PercentEncode("a b~"), "a%20b~");
}

}  // namespace
}  // namespace firewatch::transport
