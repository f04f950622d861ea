// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/kallsyms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace firewatch::symbolizer {
namespace {

using testing::ElementsAre;

constexpr char kText[] =
    "0000000000000000 A fixed_percpu_data\n"
    "ffffffff81000000 T _stext\n"
    "ffffffff81000000 T startup_64\n"
    "ffffffff81000040 t local_function\n"
    "ffffffff81000100 W weak_function\n"
    "ffffffff81000200 T _etext\n"
    "ffffffff82000000 D some_data\n"
    "ffffffffc0100000 t module_init\t[ext9]\n"
    "ffffffffc0100080 T module_last\t[ext9]\n"
    "ffffffffc0203000 t ftrace_trampoline\t[__builtin__ftrace]\n"
    "ffffffffc0300000 t bpf_prog_0123456789abcdef_probe\t[bpf]\n"
    "ffffffffc0300100 t bpf_prog_fedcba9876543210_last\t[bpf]\n";

std::vector<std::string> Symbols(KallsymsParser& parser,
                                 const std::vector<KallsymsParser::ModuleEnd>& ends = {}) {
  IndexSource source = parser.MakeSource(ends);
  std::vector<std::string> out;
  for (const SymbolRange& range : Flatten(source.symbols)) {
    const InputSymbol& symbol = source.symbols[range.symbol];
    char text[200];
    std::snprintf(text, sizeof(text), "%lx-%lx %s%s%s", range.start & 0xffffffff,
                  range.end & 0xffffffff, std::string(symbol.name).c_str(),
                  symbol.group == 0 ? "" : " ", source.groups[symbol.group].c_str());
    out.push_back(text);
  }
  return out;
}

TEST(KallsymsTest, TextSymbolsEndAtTheNextSymbolOfAnyKind) {
  KallsymsParser parser;
  parser.Feed(kText);
  parser.Finish();
  EXPECT_EQ(parser.lines(), 12U);
  EXPECT_EQ(parser.malformed(), 0U);
  EXPECT_FALSE(parser.addresses_hidden());
  EXPECT_THAT(Symbols(parser),
              ElementsAre("81000000-81000040 startup_64", "81000040-81000100 local_function",
                          "81000100-81000200 weak_function", "c0100000-c0100080 module_init ext9",
                          "c0100080-c0101080 module_last ext9",
                          "c0300000-c0300100 bpf_prog_0123456789abcdef_probe bpf",
                          "c0300100-c0310100 bpf_prog_fedcba9876543210_last bpf"));
}

TEST(KallsymsTest, PiecesOfAnySizeGiveTheSame) {
  KallsymsParser whole;
  whole.Feed(kText);
  whole.Finish();
  const auto expected = Symbols(whole);
  for (size_t size : {1U, 7U, 31U}) {
    KallsymsParser parser;
    for (size_t at = 0; at < sizeof(kText) - 1; at += size) {
      parser.Feed(std::string_view(kText).substr(at, size));
    }
    parser.Finish();
    EXPECT_EQ(Symbols(parser), expected) << size;
  }
}

TEST(KallsymsTest, EndOfAModuleIsTakenFromItsList) {
  KallsymsParser parser;
  parser.Feed("ffffffffc0100080 T module_last\t[ext9]\n");
  const auto ends =
      ParseModules("ext9 8192 1 mbcache,jbd2, Live 0xffffffffc00ff000 (O)\nbad line\n");
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_EQ(ends[0].name, "ext9");
  EXPECT_THAT(Symbols(parser, ends), ElementsAre("c0100080-c0101000 module_last ext9"));
}

TEST(KallsymsTest, ZeroAddressesAreHidden) {
  KallsymsParser parser;
  parser.Feed("0000000000000000 T _text\n0000000000000000 T main\n");
  EXPECT_TRUE(parser.addresses_hidden());
  EXPECT_TRUE(parser.MakeSource({}).symbols.empty());
}

TEST(KallsymsTest, MalformedLinesAreCountedAndSkipped) {
  KallsymsParser parser;
  parser.Feed("xyz T name\nffffffff81000000 Tt name\nffffffff81000000 T\n\n");
  parser.Feed("ffffffff81000000 T good");
  parser.Finish();
  EXPECT_EQ(parser.malformed(), 4U);
  EXPECT_THAT(Symbols(parser), ElementsAre("81000000-81100000 good"));
}

TEST(KallsymsTest, GlobalNameWinsOverLocalAlias) {
  KallsymsParser parser;
  parser.Feed(
      "ffffffff81000000 t a\nffffffff81000000 T __x64_sys_read\nffffffff81000000 t b\n"
      "ffffffff81000010 T next\nffffffff81000020 D end\n");
  EXPECT_THAT(Symbols(parser),
              ElementsAre("81000000-81000010 __x64_sys_read", "81000010-81000020 next"));
}

}  // namespace
}  // namespace firewatch::symbolizer
