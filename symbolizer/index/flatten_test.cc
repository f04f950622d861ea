// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/flatten.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace firewatch::symbolizer {
namespace {

using testing::ElementsAre;

InputSymbol Sized(uint64_t start, uint64_t end, std::string_view name) {
  return {.start = start, .end = end, .name = name};
}
InputSymbol Unsized(uint64_t start, uint64_t end, std::string_view name) {
  return {.start = start, .end = end, .name = name, .sized = false};
}

// "name [start,end)" of every range.
std::vector<std::string> Ranges(std::vector<InputSymbol> symbols) {
  std::vector<std::string> out;
  for (const SymbolRange& range : Flatten(symbols)) {
    out.push_back(std::string(symbols[range.symbol].name) + " " + std::to_string(range.start) +
                  "-" + std::to_string(range.end));
  }
  return out;
}

TEST(FlattenTest, OuterSymbolGoesOnAfterTheInnerOne) {
  EXPECT_THAT(Ranges({Sized(20, 40, "inner"), Sized(0, 100, "outer")}),
              ElementsAre("outer 0-20", "inner 20-40", "outer 40-100"));
}

TEST(FlattenTest, LaterStartOwnsAPartialOverlap) {
  EXPECT_THAT(Ranges({Sized(0, 50, "a"), Sized(30, 80, "b")}), ElementsAre("a 0-30", "b 30-80"));
}

TEST(FlattenTest, ShorterSymbolAtTheSameStartIsTheInnerOne) {
  EXPECT_THAT(Ranges({Sized(0, 10, "short"), Sized(0, 30, "long")}),
              ElementsAre("short 0-10", "long 10-30"));
}

TEST(FlattenTest, UnsizedSymbolsFillGapsOnly) {
  EXPECT_THAT(Ranges({Unsized(5, 100, "label"), Sized(20, 30, "f"), Unsized(25, 100, "inside"),
                      Unsized(30, 100, "after"), Unsized(40, 100, "last")}),
              ElementsAre("label 5-20", "f 20-30", "after 30-40", "last 40-100"));
}

TEST(FlattenTest, EmptyInputAndEmptySymbolsGiveNothing) {
  EXPECT_THAT(Ranges({}), ElementsAre());
  EXPECT_THAT(Ranges({Sized(5, 5, "empty"), Unsized(7, 7, "none")}), ElementsAre());
}

TEST(FlattenTest, BetterNameIsGlobalThenPlainThenShortThenAlphabetical) {
  InputSymbol global = Sized(0, 1, "__long_name");
  InputSymbol local = Sized(0, 1, "f");
  local.rank = 4;
  EXPECT_TRUE(IsBetterName(global, local));
  EXPECT_TRUE(IsBetterName(Sized(0, 1, "memcpy_long"), Sized(0, 1, "__mem")));
  EXPECT_TRUE(IsBetterName(Sized(0, 1, "ab"), Sized(0, 1, "abc")));
  EXPECT_TRUE(IsBetterName(Sized(0, 1, "_ZN1AC1Ev"), Sized(0, 1, "_ZN1AC2Ev")));
}

// The obvious twin: for every byte, the last start among the symbols that cover it, of those the
// shortest, of those the best name.
std::string OwnerOf(uint64_t at, const std::vector<InputSymbol>& symbols) {
  const InputSymbol* owner = nullptr;
  for (const InputSymbol& symbol : symbols) {
    if (at < symbol.start || at >= symbol.end) continue;
    const bool better =
        owner == nullptr || symbol.start > owner->start ||
        (symbol.start == owner->start &&
         (symbol.end < owner->end || (symbol.end == owner->end && IsBetterName(symbol, *owner))));
    if (better) owner = &symbol;
  }
  return owner == nullptr ? "-" : std::string(owner->name);
}

TEST(FlattenTest, AgreesWithTheByteByByteDefinition) {
  std::mt19937 random(20261122);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> names;
    names.reserve(12);
    std::vector<InputSymbol> symbols;
    for (int i = 0; i < 12; ++i) {
      const uint64_t start = random() % 60;
      names.push_back("s" + std::to_string(i));
      symbols.push_back(Sized(start, start + random() % 30, names.back()));
    }
    const std::vector<InputSymbol> original = symbols;
    const std::vector<SymbolRange> ranges = Flatten(symbols);
    EXPECT_LE(ranges.size(), 2 * symbols.size());
    std::vector<std::string> owners(100, "-");
    uint64_t free_from = 0;
    for (const SymbolRange& range : ranges) {
      ASSERT_GE(range.start, free_from);
      ASSERT_GT(range.end, range.start);
      free_from = range.end;
      for (uint64_t at = range.start; at < range.end; ++at) {
        owners[at] = symbols[range.symbol].name;
      }
    }
    for (uint64_t at = 0; at < owners.size(); ++at) {
      ASSERT_EQ(owners[at], OwnerOf(at, original)) << "round " << round << " at " << at;
    }
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
