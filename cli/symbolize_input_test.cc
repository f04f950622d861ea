// SPDX-License-Identifier: Apache-2.0
// What llvm-symbolizer 19 makes of the same lines: tried one by one, written down here.
#include "cli/symbolize_input.h"

#include <gtest/gtest.h>

#include "base/status.h"

namespace firewatch::cli {
namespace {

using Kind = SymbolizeRequest::Kind;

SymbolizeRequest Parsed(std::string_view line, std::string_view module = "") {
  SymbolizeRequest request;
  const absl::Status status = ParseSymbolizeLine(line, module, "", &request);
  EXPECT_TRUE(status.ok()) << line << ": " << base::Message(status);
  return request;
}

std::string Error(std::string_view line, std::string_view module = "") {
  SymbolizeRequest request;
  const absl::Status status = ParseSymbolizeLine(line, module, "", &request);
  EXPECT_FALSE(request.offset.has_value()) << line;
  return std::string(base::Message(status));
}

TEST(SymbolizeInputTest, NumbersAreReadWithTheirPrefix) {
  EXPECT_EQ(ParseNumber("0x1140"), 0x1140u);
  EXPECT_EQ(ParseNumber("0X10"), 16u);
  EXPECT_EQ(ParseNumber("0b11"), 3u);
  EXPECT_EQ(ParseNumber("0B11"), 3u);
  EXPECT_EQ(ParseNumber("0o17"), 15u);
  EXPECT_EQ(ParseNumber("017"), 15u);
  EXPECT_EQ(ParseNumber("0"), 0u);
  EXPECT_EQ(ParseNumber("1234"), 1234u);
  EXPECT_EQ(ParseNumber("0xffffffffffffffff"), ~uint64_t{0});
  for (const std::string_view bad : {"", "0x", "0O17", "1_0", "0x1g", "08", "00x10", "-5", "+5",
                                     "0x10000000000000000", "99999999999999999999"}) {
    EXPECT_EQ(ParseNumber(bad), std::nullopt) << bad;
  }
}

TEST(SymbolizeInputTest, AddressOfTheFileOfTheCommandLine) {
  for (const std::string_view line : {"0x1140", "  0x1140", "0x1140 0x5", "CODE 0x1140",
                                      "CODE  0x1140", "\t0x1140", "0x1140\t", "4416"}) {
    const SymbolizeRequest request = Parsed(line, "a");
    EXPECT_EQ(request.offset, 0x1140u) << line;
    EXPECT_EQ(request.module, "a") << line;
    EXPECT_EQ(request.symbol, "") << line;
    EXPECT_EQ(request.kind, Kind::kCode) << line;
  }
  EXPECT_EQ(Parsed("DATA 0x4018", "a").kind, Kind::kData);
  EXPECT_EQ(Parsed("FRAME 0x4018", "a").kind, Kind::kFrame);
}

TEST(SymbolizeInputTest, FileOnTheLine) {
  for (const std::string_view line :
       {"a 0x1140", "a  0x1140", " a 0x1140", "a 0x1140 zz", "'a' 0x1140", "\"a\" 0x1140",
        "\"a\"0x1140", "CODE a 0x1140", "FILE:a 0x1140", "FILE: a 0x1140", "FILE:\"a\" 0x1140",
        "CODE FILE:a 0x1140"}) {
    const SymbolizeRequest request = Parsed(line);
    EXPECT_EQ(request.module, "a") << line;
    EXPECT_EQ(request.offset, 0x1140u) << line;
  }
  EXPECT_EQ(Parsed("\"/a b/c\" 0x1").module, "/a b/c");
}

TEST(SymbolizeInputTest, BuildIdsInsteadOfFiles) {
  const SymbolizeRequest request = Parsed("BUILDID:abC 0x1");
  EXPECT_EQ(request.build_id, "0abc");
  EXPECT_EQ(request.module, "0ABC");
  EXPECT_EQ(Parsed("BUILDID:\"ab\" 0x1").build_id, "ab");
  EXPECT_EQ(Error("CODE BUILDID:zz 0x1"), "wrong format of build-id");

  SymbolizeRequest given;
  ASSERT_TRUE(ParseSymbolizeLine("0x5", "", "abcd", &given).ok());
  EXPECT_EQ(given.build_id, "abcd");
  EXPECT_EQ(given.module, "ABCD");
}

TEST(SymbolizeInputTest, SymbolsWithAnOffset) {
  EXPECT_EQ(Parsed("outer", "a").symbol, "outer");
  EXPECT_EQ(Parsed("outer+0x2", "a").symbol, "outer");
  EXPECT_EQ(Parsed("outer+0x2", "a").offset, 2u);
  EXPECT_EQ(Parsed("outer + 4", "a").offset, 0u);  // what follows the blank is ignored
  EXPECT_EQ(Parsed("outer+4+5", "a").symbol, "outer+4");
  for (const std::string_view whole : {"outer+zz", "outer+", "+", "+4", "-5", "CODE", "code"}) {
    EXPECT_EQ(Parsed(whole, "a").symbol, whole);
    EXPECT_EQ(Parsed(whole, "a").offset, 0u);
  }
  EXPECT_EQ(Parsed("FILE:a   outer").symbol, "outer");
  EXPECT_EQ(Parsed("FILE CODE a 0x1").symbol, "CODE");
}

TEST(SymbolizeInputTest, ErrorsInTheWordsOfLlvm) {
  EXPECT_EQ(Error(" ", "a"), "no module offset has been specified");
  EXPECT_EQ(Error("", "a"), "no module offset has been specified");
  EXPECT_EQ(Error("0x1g", "a"), "expected a number as module offset");
  EXPECT_EQ(Error("0x1140\t5", "a"), "expected a number as module offset");
  EXPECT_EQ(Error("  "), "no input filename has been specified");
  EXPECT_EQ(Error("\"a 0x1"), "no input filename has been specified");
  EXPECT_EQ(Error("0x1140"), "no module offset has been specified");
  EXPECT_EQ(Error("a\t0x1140"), "no module offset has been specified");
  EXPECT_EQ(Error("FILE:"), "must be followed by an input file");
  EXPECT_EQ(Error("BUILDID:"), "must be followed by a hash");
  EXPECT_EQ(Error("FILE:\"a 0x1"), "unbalanced quotes in input file name");
  EXPECT_EQ(Error("FILE:FILE:a 0x1"), "duplicate input file specification prefix");
  EXPECT_EQ(Error("BUILDID:FILE:ab 0x1"), "duplicate input file specification prefix");
  EXPECT_EQ(Error("FILE:a 0x1", "a"), "input file has already been specified");
}

TEST(SymbolizeInputTest, WhatWasUnderstoodIsKeptInErrors) {
  SymbolizeRequest request;
  EXPECT_FALSE(ParseSymbolizeLine("outer", "", "", &request).ok());
  EXPECT_EQ(request.module, "outer");
  EXPECT_FALSE(ParseSymbolizeLine("0x", "a", "", &request).ok());
  EXPECT_EQ(request.module, "a");
}

}  // namespace
}  // namespace firewatch::cli
