// SPDX-License-Identifier: Apache-2.0
// Expected texts are what llvm-symbolizer 19.1.7 printed for the same frames, columns set to 0.
#include "cli/symbolize_format.h"

#include <gtest/gtest.h>

#include <vector>

namespace firewatch::cli {
namespace {

constexpr std::string_view kSource =
    "#include <cstdio>\nnamespace ns {}\nstatic volatile int sink;\nleaf\nmid\nint data_object;\n"
    "outer\nmain\n";

const std::vector<SourceFrame>& Chain() {
  static const std::vector<SourceFrame> chain = {
      {"leaf(int)", "/src/a.cc", 4, "/src/a.cc", 4, 0x1140},
      {"mid(int)", "/src/a.cc", 5, "/src/a.cc", 5, 0x1140},
      {"outer", "/src/a.cc", 7, "/src/a.cc", 7, 0x1140},
  };
  return chain;
}

SymbolizeRequest Address(uint64_t address) { return {.module = "a", .offset = address}; }

std::string Printed(const SymbolizeFormat& format, const SymbolizeRequest& request,
                    std::span<const SourceFrame> frames) {
  std::string out;
  SymbolizePrinter(format, &out).Frames(request, frames);
  return out;
}

TEST(SymbolizeFormatTest, LlvmFormIsTwoLinesPerFrameAndAnEmptyOne) {
  EXPECT_EQ(Printed({}, Address(0x1140), Chain()),
            "leaf(int)\n/src/a.cc:4:0\nmid(int)\n/src/a.cc:5:0\nouter\n/src/a.cc:7:0\n\n");
  EXPECT_EQ(Printed({}, Address(0), {}), "??\n??:0:0\n\n");
  EXPECT_EQ(Printed({.addresses = true}, Address(0x11), {}), "0x11\n??\n??:0:0\n\n");
  EXPECT_EQ(Printed({.addresses = true}, {.module = "a"}, {}), "??\n??:0:0\n\n");
  EXPECT_EQ(Printed({.functions = false}, Address(0x1140), Chain()),
            "/src/a.cc:4:0\n/src/a.cc:5:0\n/src/a.cc:7:0\n\n");
}

TEST(SymbolizeFormatTest, PrettyFormIsOneLinePerFrame) {
  EXPECT_EQ(Printed({.pretty = true}, Address(0x1140), Chain()),
            "leaf(int) at /src/a.cc:4:0\n (inlined by) mid(int) at /src/a.cc:5:0\n"
            " (inlined by) outer at /src/a.cc:7:0\n\n");
  EXPECT_EQ(Printed({.addresses = true, .pretty = true}, Address(0x1140), {&Chain()[2], 1}),
            "0x1140: outer at /src/a.cc:7:0\n\n");
  EXPECT_EQ(Printed({.functions = false, .pretty = true}, Address(0x1140), Chain()),
            "/src/a.cc:4:0\n/src/a.cc:5:0\n/src/a.cc:7:0\n\n");
}

TEST(SymbolizeFormatTest, GnuFormHasNeitherColumnsNorEmptyLines) {
  const SymbolizeFormat gnu{.style = SymbolizeStyle::kGnu};
  EXPECT_EQ(Printed(gnu, Address(0x1140), Chain()),
            "leaf(int)\n/src/a.cc:4\nmid(int)\n/src/a.cc:5\nouter\n/src/a.cc:7\n");
  EXPECT_EQ(Printed(gnu, Address(0), {}), "??\n??:0\n");
}

TEST(SymbolizeFormatTest, VerboseSaysWhereTheFunctionBegins) {
  EXPECT_EQ(
      Printed({.verbose = true}, Address(0x1140), {&Chain()[0], 1}),
      "leaf(int)\n  Filename: /src/a.cc\n  Function start filename: /src/a.cc\n"
      "  Function start line: 4\n  Function start address: 0x1140\n  Line: 4\n  Column: 0\n\n");
  // GNU's has no address.
  EXPECT_EQ(
      Printed({.style = SymbolizeStyle::kGnu, .verbose = true}, Address(0x1140), {&Chain()[0], 1}),
      "leaf(int)\n  Filename: /src/a.cc\n  Function start filename: /src/a.cc\n"
      "  Function start line: 4\n  Line: 4\n  Column: 0\n");
}

TEST(SymbolizeFormatTest, SourceAroundTheLine) {
  SymbolizeFormat format{.source_lines = 3, .read_source = [](std::string_view file) {
                           EXPECT_EQ(file, "/src/a.cc");
                           return std::optional<std::string_view>(kSource);
                         }};
  EXPECT_EQ(Printed(format, Address(0x1140), {&Chain()[0], 1}),
            "leaf(int)\n/src/a.cc:4:0\n3  : static volatile int sink;\n4 >: leaf\n5  : mid\n\n");
  format.source_lines = 20;  // numbers are as wide as the last that was asked for
  const std::string wide = Printed(format, Address(0x1140), {&Chain()[0], 1});
  EXPECT_TRUE(wide.starts_with("leaf(int)\n/src/a.cc:4:0\n 1  : #include <cstdio>\n")) << wide;
  EXPECT_TRUE(wide.ends_with(" 8  : main\n\n")) << wide;
  format.read_source = [](std::string_view) { return std::nullopt; };
  EXPECT_EQ(Printed(format, Address(0x1140), {&Chain()[0], 1}), "leaf(int)\n/src/a.cc:4:0\n\n");
}

TEST(SymbolizeFormatTest, JsonOfOneLineIsOneObject) {
  const SymbolizeFormat json{.style = SymbolizeStyle::kJson};
  EXPECT_EQ(
      Printed(json, Address(0x1140), {&Chain()[0], 1}),
      R"({"Address":"0x1140","ModuleName":"a","Symbol":[{"Column":0,"Discriminator":0,)"
      R"j("FileName":"/src/a.cc","FunctionName":"leaf(int)","Line":4,"StartAddress":"0x1140",)j"
      R"("StartFileName":"/src/a.cc","StartLine":4}]})"
      "\n");
  EXPECT_EQ(Printed(json, {.module = ""}, {}),
            R"({"ModuleName":"","Symbol":[{"Column":0,"Discriminator":0,"FileName":"",)"
            R"("FunctionName":"","Line":0,"StartAddress":"","StartFileName":"","StartLine":0}]})"
            "\n");
}

TEST(SymbolizeFormatTest, JsonOfArgumentsIsAnArray) {
  std::string out;
  SymbolizePrinter printer({.style = SymbolizeStyle::kJson}, &out);
  printer.BeginList();
  printer.Places({.module = "a", .symbol = "junk", .offset = 0}, {});
  printer.Failure({.module = "nofile", .offset = 1}, "No such file or directory");
  printer.EndList();
  EXPECT_EQ(out, R"([{"Loc":[],"ModuleName":"a","SymName":"junk"},{"Address":"0x1","Error":)"
                 R"({"Message":"No such file or directory"},"ModuleName":"nofile"}])"
                 "\n");
}

TEST(SymbolizeFormatTest, PrettyJsonIsIndentedByTwo) {
  std::string out;
  SymbolizePrinter printer({.style = SymbolizeStyle::kJson, .pretty = true}, &out);
  printer.BeginList();
  printer.Places({.module = "a", .symbol = "nosuch", .offset = 0}, {});
  printer.Places({.module = "a", .symbol = "outer", .offset = 0}, {&Chain()[2], 1});
  printer.EndList();
  EXPECT_EQ(out, R"([
  {
    "Loc": [],
    "ModuleName": "a",
    "SymName": "nosuch"
  },
  {
    "Loc": [
      {
        "Column": 0,
        "Discriminator": 0,
        "FileName": "/src/a.cc",
        "FunctionName": "outer",
        "Line": 7,
        "StartAddress": "0x1140",
        "StartFileName": "/src/a.cc",
        "StartLine": 7
      }
    ],
    "ModuleName": "a",
    "SymName": "outer"
  }
]
)");
}

TEST(SymbolizeFormatTest, JsonSurvivesForeignBytes) {
  const SymbolizeFormat json{.style = SymbolizeStyle::kJson, .functions = true};
  const std::string_view name("q\"\\\xc3\xa9\t\x01\xff\xed\xa0\x80", 11);
  const SourceFrame frame{.function = name};
  const std::string out = Printed(json, Address(1), {&frame, 1});
  EXPECT_NE(out.find("\"FunctionName\":\"q\\\"\\\\\xc3\xa9\\t\\u0001\xef\xbf\xbd"),
            std::string::npos)
      << out;
  EXPECT_EQ(out.find('\xff'), std::string::npos);
  EXPECT_EQ(out.find("\xed\xa0"), std::string::npos);
}

TEST(SymbolizeFormatTest, DetailsStandBetweenTheKeysOfLlvm) {
  const FrameDetails details{.flags = {"plt", "unsized"}, .aliases = {"b"}};
  const SourceFrame frame{.function = "a", .details = &details};
  EXPECT_EQ(Printed({.style = SymbolizeStyle::kJson}, Address(1), {&frame, 1}),
            R"({"Address":"0x1","ModuleName":"a","Symbol":[{"Aliases":["b"],"Column":0,)"
            R"("Discriminator":0,"FileName":"","Flags":["plt","unsized"],"FunctionName":"a",)"
            R"("Line":0,"StartAddress":"","StartFileName":"","StartLine":0}]})"
            "\n");
}

TEST(SymbolizeFormatTest, PlacesOfASymbolAreNotInlinedIntoEachOther) {
  std::string out;
  SymbolizePrinter printer({.addresses = true, .pretty = true}, &out);
  printer.Places({.module = "a", .symbol = "f", .offset = 0}, Chain());
  printer.Places({.module = "a", .symbol = "g", .offset = 0}, {});
  EXPECT_EQ(out,
            "leaf(int) at /src/a.cc:4:0\nmid(int) at /src/a.cc:5:0\nouter at /src/a.cc:7:0\n\n"
            "?? at ??:0:0\n\n");
}

}  // namespace
}  // namespace firewatch::cli
