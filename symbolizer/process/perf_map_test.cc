// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/perf_map.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <span>
#include <string>

#include "symbolizer/process/code_map.h"

namespace firewatch::symbolizer {
namespace {

SpanByteSource SourceOf(const std::string& text) {
  return SpanByteSource(std::as_bytes(std::span(text.data(), text.size())));
}

std::string NameAt(const PerfMap& map, const std::string& text, uint64_t address) {
  std::string name;
  return map.Find(SourceOf(text), address, &name) ? name : "-";
}

TEST(PerfMapTest, LineIsTwoHexNumbersAndTheRestIsTheName) {
  PerfMapLine line;
  ASSERT_TRUE(ParsePerfMapLine("7f30c0de 1a LazyCompile:*fib /srv/app.js:3:13", &line));
  EXPECT_EQ(line.start, 0x7f30c0deu);
  EXPECT_EQ(line.size, 0x1au);
  EXPECT_EQ(line.name, "LazyCompile:*fib /srv/app.js:3:13");
  ASSERT_TRUE(ParsePerfMapLine("0x10 0x20 trace_1\r", &line));
  EXPECT_EQ(line.start, 0x10u);
  EXPECT_EQ(line.name, "trace_1");
}

TEST(PerfMapTest, OtherShapesAreRefused) {
  PerfMapLine line;
  for (const char* text : {"", "10", "10 20", "10 20 ", "10 0 empty", "x 20 name", "10-20 name",
                           "10 20name", "11111111111111111 20 more_than_64_bits", " 10 20 name"}) {
    EXPECT_FALSE(ParsePerfMapLine(text, &line)) << text;
  }
}

TEST(PerfMapTest, AddressesInsideTheRangeHaveItsName) {
  const std::string text = "1000 10 first\n1010 20 second one\n";
  PerfMap map(100);
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_EQ(NameAt(map, text, 0xfff), "-");
  EXPECT_EQ(NameAt(map, text, 0x1000), "first");
  EXPECT_EQ(NameAt(map, text, 0x100f), "first");
  EXPECT_EQ(NameAt(map, text, 0x1010), "second one");
  EXPECT_EQ(NameAt(map, text, 0x102f), "second one");
  EXPECT_EQ(NameAt(map, text, 0x1030), "-");
}

TEST(PerfMapTest, LaterLineWinsAndTheRestOfTheEarlierStays) {
  const std::string text = "1000 100 stubs\n1040 10 stub_a\n1000 100 again\n1050 10 late\n";
  PerfMap map(100);
  ASSERT_TRUE(map.Update(SourceOf(text.substr(0, 31))).ok());
  EXPECT_EQ(NameAt(map, text, 0x103f), "stubs");
  EXPECT_EQ(NameAt(map, text, 0x1040), "stub_a");
  EXPECT_EQ(NameAt(map, text, 0x1050), "stubs");
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_EQ(NameAt(map, text, 0x1040), "again");
  EXPECT_EQ(NameAt(map, text, 0x1055), "late");
  EXPECT_EQ(NameAt(map, text, 0x1060), "again");
}

TEST(PerfMapTest, UnfinishedLastLineWaitsForItsEnd) {
  std::string text = "1000 10 first\n2000 10 sec";
  PerfMap map(100);
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_EQ(map.lines(), 1u);
  EXPECT_EQ(NameAt(map, text, 0x2000), "-");
  text += "ond\n";
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_EQ(map.lines(), 2u);
  EXPECT_EQ(NameAt(map, text, 0x2000), "second");
}

TEST(PerfMapTest, ShorterOrOtherFileIsReadAnew) {
  PerfMap map(100);
  ASSERT_TRUE(map.Update(SourceOf("1000 10 old_name\n2000 10 old_too\n")).ok());
  const std::string shorter = "3000 10 new\n";
  ASSERT_TRUE(map.Update(SourceOf(shorter)).ok());
  EXPECT_EQ(NameAt(map, shorter, 0x3000), "new");
  EXPECT_EQ(NameAt(map, shorter, 0x1000), "-");
  const std::string other = "4000 10 another_life_of_this_file\n5000 10 more\n";
  ASSERT_TRUE(map.Update(SourceOf(other)).ok());
  EXPECT_EQ(NameAt(map, other, 0x5000), "more");
  EXPECT_EQ(NameAt(map, other, 0x3000), "-");
}

TEST(PerfMapTest, NameThatWasOverwrittenInPlaceIsNone) {
  const std::string text = "1000 10 a_long_name_here\n";
  PerfMap map(100);
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_EQ(NameAt(map, "1000 1 b\n1001 1 c\n1002 1\n", 0x1000), "-");
  EXPECT_EQ(NameAt(map, "1000 1 b\n", 0x1000), "-");
}

TEST(PerfMapTest, NonsenseIsCountedAndPassedOver) {
  std::string text = "no line\n1000 10 good\n" + std::string(600'000, 'x') + "\n2000 10 after\n";
  PerfMap map(100);
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_EQ(map.malformed(), 2u);
  EXPECT_EQ(NameAt(map, text, 0x1000), "good");
  EXPECT_EQ(NameAt(map, text, 0x2000), "after");
}

TEST(PerfMapTest, LongNamesAreCut) {
  const std::string text = "1000 10 " + std::string(5000, 'n') + "\n";
  PerfMap map(100);
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_EQ(NameAt(map, text, 0x1000), std::string(PerfMap::kMaxNameBytes, 'n'));
}

TEST(PerfMapTest, BoundOfRangesHoldsAndIsCounted) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += fmt::format("{:x} 10 f{}\n", 0x1000 + i * 0x20, i);
  PerfMap map(64);
  ASSERT_TRUE(map.Update(SourceOf(text)).ok());
  EXPECT_LE(map.ranges(), 64u);
  EXPECT_EQ(map.dropped(), 1000 - map.ranges());
  EXPECT_EQ(NameAt(map, text, 0x1000), "f0");
}

TEST(CodeMapTest, RangesAtTheEndsOfTheAddressSpace) {
  CodeMap map(16);
  EXPECT_FALSE(map.Add(1, 0, {}));
  EXPECT_FALSE(map.Add(UINT64_MAX - 8, 16, {}));
  EXPECT_FALSE(map.Add(0, uint64_t{1} << 32, {}));
  EXPECT_TRUE(map.Add(UINT64_MAX - 16, 16, {}));
  EXPECT_TRUE(map.Find(UINT64_MAX - 1).has_value());
  EXPECT_FALSE(map.Find(UINT64_MAX).has_value());
  EXPECT_TRUE(map.Add(0, 1, {}));
  EXPECT_TRUE(map.Find(0).has_value());
  EXPECT_FALSE(map.Find(1).has_value());
}

}  // namespace
}  // namespace firewatch::symbolizer
