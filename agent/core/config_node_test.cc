// SPDX-License-Identifier: Apache-2.0
#include "agent/core/config_node.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ConfigNode Parse(std::string_view text) {
  auto node = ParseConfigText(text, "a.yaml");
  EXPECT_TRUE(node.ok()) << base::ToString(node.status());
  return node.ok() ? *node : ConfigNode();
}

std::string ErrorOf(std::string_view text, const ConfigLimits& limits = {}) {
  const auto node = ParseConfigText(text, "a.yaml", limits);
  EXPECT_FALSE(node.ok());
  return std::string(base::Message(node.status()));
}

TEST(ConfigNodeTest, TreeKnowsItsPlaces) {
  const ConfigNode root = Parse("network:\n  top: 5\n  ports:\n    - 80\n    - 443\n");
  ASSERT_NE(root.Find("network"), nullptr);
  const ConfigNode& network = *root.Find("network");
  EXPECT_EQ(network.Place(), "a.yaml:1");
  EXPECT_EQ(network.Find("top")->text(), "5");
  EXPECT_EQ(network.Find("top")->Place(), "a.yaml:2");
  EXPECT_EQ(network.Find("ports")->Place(), "a.yaml:3");
  ASSERT_EQ(network.Find("ports")->items().size(), 2u);
  EXPECT_EQ(network.Find("ports")->items()[1].Place(), "a.yaml:5");
  EXPECT_EQ(network.Find("none"), nullptr);
}

TEST(ConfigNodeTest, CommentsAloneAreAbsent) {
  EXPECT_FALSE(Parse("# nothing\n").present());
  EXPECT_FALSE(Parse("").present());
}

TEST(ConfigNodeTest, SectionWithoutKeysEqualsNoSection) {
  const ConfigNode root = Parse("network:\n");
  ASSERT_NE(root.Find("network"), nullptr);
  EXPECT_EQ(*root.Find("network"), ConfigNode());
}

TEST(ConfigNodeTest, EqualityLooksAtValuesNotAtPlaces) {
  EXPECT_EQ(Parse("a: 1\nb: [x]\n"), Parse("\n\na: 1\nb:\n- x\n"));
  EXPECT_FALSE(Parse("a: 1\n") == Parse("a: 2\n"));
  EXPECT_FALSE(Parse("a: [1]\n") == Parse("a: 1\n"));
}

TEST(ConfigNodeTest, WithReplacesOneValueAndLeavesTheOriginal) {
  const ConfigNode before = Parse("hz: 19\nwindow: 10s\n");
  const ConfigNode after = before.With("hz", ConfigNode::Scalar("99", "--hz"));
  EXPECT_EQ(before.Find("hz")->text(), "19");
  EXPECT_EQ(after.Find("hz")->text(), "99");
  EXPECT_EQ(after.Find("hz")->Place(), "--hz");
  EXPECT_EQ(after.Find("window")->text(), "10s");
  EXPECT_EQ(ConfigNode().With("hz", ConfigNode::Scalar("5", "--hz")).Find("hz")->text(), "5");
}

TEST(ConfigNodeTest, KeyGivenTwiceIsRefused) {
  EXPECT_EQ(ErrorOf("a: 1\nb: 2\na: 3\n"), "a.yaml:3: \"a\" is given twice, first in line 1");
}

TEST(ConfigNodeTest, KeyThatIsNoTextIsRefused) {
  EXPECT_EQ(ErrorOf("a: 1\n? [x, y]\n: 2\n"), "a.yaml:2: a key that is no plain text");
}

TEST(ConfigNodeTest, SyntaxErrorNamesItsLine) {
  EXPECT_THAT(ErrorOf("a: 1\nb: [1\n"), StartsWith("a.yaml:"));
}

TEST(ConfigNodeTest, SecondDocumentIsRefused) {
  EXPECT_THAT(ErrorOf("a: 1\n---\nb: 2\n"), HasSubstr("a second document"));
}

TEST(ConfigNodeTest, BombOfAnchorsIsRefused) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    text += fmt::format("a{}: &a{} [", i, i);
    for (int j = 0; j < 10; ++j) text += fmt::format("{}*a{}", j == 0 ? "" : ", ", i - 1);
    text += "]\n";
  }
  EXPECT_THAT(ErrorOf(text), HasSubstr("more than 200000 values"));
}

TEST(ConfigNodeTest, DepthAndSizeAreBounded) {
  EXPECT_THAT(ErrorOf(std::string(18, '[') + std::string(18, ']')), HasSubstr("nested deeper"));
  EXPECT_THAT(ErrorOf(std::string(100'000, '[')), StartsWith("a.yaml:"));
  EXPECT_THAT(ErrorOf("a: 12345\n", {.max_bytes = 4}), HasSubstr("more than 4 bytes"));
}

struct Options {
  uint64_t top = 10;
  uint32_t small = 1;
  double ratio = 0.5;
  uint64_t interval_ms = 1000;
  uint64_t bytes = 4096;
  bool on = false;
  std::string text = "t";
  std::string mode = "a";
  std::vector<std::string> ports;
};

absl::StatusOr<Options> Read(const ConfigNode& section) {
  constexpr std::string_view kModes[] = {"a", "b"};
  Options options;
  ConfigReader reader(section, "network");
  reader.Integer("top", 1, 100, &options.top);
  reader.Integer("small", 0u, 5u, &options.small);
  reader.Number("ratio", 0, 1, &options.ratio);
  reader.Duration("interval", 100, 60'000, &options.interval_ms);
  reader.Bytes("bytes", 1024, 1 << 20, &options.bytes);
  reader.Bool("on", &options.on);
  reader.Text("text", &options.text);
  reader.OneOf("mode", kModes, &options.mode);
  reader.Texts("ports", [&options](const std::string& text) -> absl::Status {
    if (text == "0") return base::InvalidArgument("0 is no port");
    options.ports.push_back(text);
    return absl::OkStatus();
  });
  RETURN_IF_ERROR(reader.Finish());
  return options;
}

std::string ReadError(std::string_view text) {
  const auto options = Read(Parse(text));
  EXPECT_FALSE(options.ok()) << text;
  return std::string(base::Message(options.status()));
}

TEST(ConfigReaderTest, EveryTypeIsRead) {
  const auto options = Read(
      Parse("top: 7\nsmall: 5\nratio: 0.25\ninterval: 2s\nbytes: 8KiB\non: true\ntext: x\nmode: "
            "b\nports: [80, 443]\n"));
  ASSERT_TRUE(options.ok()) << base::ToString(options.status());
  EXPECT_EQ(options->top, 7u);
  EXPECT_EQ(options->small, 5u);
  EXPECT_EQ(options->ratio, 0.25);
  EXPECT_EQ(options->interval_ms, 2000u);
  EXPECT_EQ(options->bytes, 8192u);
  EXPECT_TRUE(options->on);
  EXPECT_EQ(options->text, "x");
  EXPECT_EQ(options->mode, "b");
  EXPECT_THAT(options->ports, ElementsAre("80", "443"));
}

TEST(ConfigReaderTest, AbsentSettingsKeepTheirDefaults) {
  const auto options = Read(ConfigNode());
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->top, 10u);
  EXPECT_EQ(options->mode, "a");
}

TEST(ConfigReaderTest, ErrorsNamePlaceKeyAndRange) {
  EXPECT_EQ(ReadError("on: true\ntop: 101\n"), "a.yaml:2: network.top: 101 is not in 1..100");
  EXPECT_EQ(ReadError("top: -1\n"), "a.yaml:1: network.top: -1 is not in 1..100");
  EXPECT_EQ(ReadError("ratio: nan\n"), "a.yaml:1: network.ratio: nan is not in 0..1");
  EXPECT_EQ(ReadError("interval: 5ms\n"), "a.yaml:1: network.interval: 5ms is not in 100ms..1m");
  EXPECT_EQ(ReadError("interval: 5\n"),
            "a.yaml:1: network.interval: \"5\" is not a time such as 500ms, 10s, 1m");
  EXPECT_EQ(ReadError("bytes: 2MiB\n"), "a.yaml:1: network.bytes: 2MiB is not in 1KiB..1MiB");
  EXPECT_EQ(ReadError("on: maybe\n"), "a.yaml:1: network.on: \"maybe\" is neither true nor false");
  EXPECT_EQ(ReadError("mode: c\n"), "a.yaml:1: network.mode: \"c\" is none of a, b");
  EXPECT_EQ(ReadError("ports:\n- 80\n- 0\n"), "a.yaml:3: network.ports: 0 is no port");
  EXPECT_EQ(ReadError("top: {x: 1}\n"), "a.yaml:1: network.top: a plain value is expected");
}

TEST(ConfigReaderTest, UnknownKeyIsToldTogetherWithTheNearest) {
  EXPECT_EQ(ReadError("top: 5\n\nprots: [80]\n"),
            "a.yaml:3: unknown key \"prots\" in network; did you mean \"ports\"?");
}

TEST(ConfigReaderTest, FlagIsNamedByItself) {
  const auto options = Read(Parse("top: 5\n").With("top", ConfigNode::Scalar("0", "--top")));
  EXPECT_EQ(base::Message(options.status()), "--top: 0 is not in 1..100");
}

TEST(ConfigReaderTest, SectionThatIsAPlainValueIsRefused) {
  EXPECT_EQ(ReadError("5\n"), "a.yaml:1: network: KEY: VALUE lines are expected");
}

TEST(ConfigReaderTest, NestedReadersErrorKeepsItsPlace) {
  const ConfigNode root = Parse("rules:\n- top: 1\n- top: 900\n");
  ConfigReader reader(root, "enforce");
  reader.Node("rules", [](const ConfigNode& list) {
    for (const ConfigNode& item : list.items()) RETURN_IF_ERROR(Read(item).status());
    return absl::OkStatus();
  });
  EXPECT_EQ(base::Message(reader.Finish()), "a.yaml:3: network.top: 900 is not in 1..100");
}

// yaml-cpp's LoadAll takes the rest of these for one more document for ever.
TEST(ConfigNodeTest, BrokenDocumentsEnd) {
  for (const std::string_view text : {"\n,- {name: drop\nrule", ",- {a: b", ", - {"}) {
    EXPECT_FALSE(ParseConfigText(text, "f").ok()) << text;
  }
}

}  // namespace
}  // namespace firewatch::agent
