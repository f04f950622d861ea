// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/line_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "symbolizer/dwarf/names_for_test.h"
#include "symbolizer/index/line_table_writer.h"

namespace firewatch::symbolizer {
namespace {

using dwarf::UnitLines;

constexpr char kNames[] = "f\0g\0h\0";

// Functions f, g inlined into f at line 5, h inlined into that at line 6.
UnitLines ThreeCalls() {
  UnitLines unit;
  unit.files = {"", "/a.c", "/b.h"};
  unit.functions = {{kNames, 1, 50}, {kNames + 2, 2, 60}, {kNames + 4, 2, 70}};
  unit.nodes = {{}, {0, 0, 0, 0}, {1, 1, 1, 5}, {2, 2, 2, 6}};
  unit.chains = {{}, {1, 1, 10}, {2, 2, 20}, {3, 2, 30}, {0, 1, 40}};
  return unit;
}

struct Built {
  std::vector<std::byte> bytes;
  uint32_t names;
  absl::StatusOr<LineTable> Parse() const { return LineTable::Parse(bytes, names); }
};

Built BuildOf(const std::vector<UnitLines>& units, PutAside put_aside = nullptr) {
  NamesForTest names;
  VectorSink sink;
  LineTableWriter writer(names, sink, std::move(put_aside));
  uint64_t number = 0;
  for (const UnitLines& unit : units) EXPECT_TRUE(writer.Add(number++, UnitLines(unit)).ok());
  const absl::Status status = writer.Finish(1000000);
  EXPECT_TRUE(status.ok()) << base::ToString(status);
  return {sink.bytes(), static_cast<uint32_t>(names.size())};
}

TEST(LineTableTest, EveryByteOfAPageMayHaveARow) {
  UnitLines unit = ThreeCalls();
  for (uint64_t at = 0xff0; at < 0x1210; ++at) {
    unit.rows.push_back({at, static_cast<uint32_t>(at % 3 + 1)});
  }
  unit.rows.push_back({0x1210, 0});
  const Built built = BuildOf({unit});
  const auto table = built.Parse();
  ASSERT_TRUE(table.ok());
  LineFrame frames[8];
  for (uint64_t at = 0xff0; at < 0x1210; ++at) {
    ASSERT_EQ(table->Find(at, frames), at % 3 + 1) << at;
    EXPECT_EQ(frames[0].line, (at % 3 + 1) * 10);
  }
  EXPECT_EQ(table->Find(0xfef, frames), 0u);
  EXPECT_EQ(table->Find(0x1210, frames), 0u);
}

TEST(LineTableTest, ChainsComeInnermostFirst) {
  UnitLines unit = ThreeCalls();
  unit.rows = {{0x1000, 1}, {0x1004, 3}, {0x1008, 2}, {0x100c, 4}, {0x1010, 0}};
  const Built built = BuildOf({unit});
  const auto table = built.Parse();
  ASSERT_TRUE(table.ok());
  LineFrame frames[8];
  EXPECT_EQ(table->Find(0xfff, frames), 0u);
  ASSERT_EQ(table->Find(0x1000, frames), 1u);
  EXPECT_EQ(frames[0].line, 10u);
  EXPECT_FALSE(frames[0].inlined);
  EXPECT_EQ(table->FunctionAt(frames[0].function).line, 50u);
  ASSERT_EQ(table->Find(0x1007, frames), 3u);
  EXPECT_EQ(frames[0].line, 30u);
  EXPECT_EQ(frames[1].line, 6u);
  EXPECT_EQ(frames[2].line, 5u);
  EXPECT_TRUE(frames[0].inlined && frames[1].inlined && !frames[2].inlined);
  EXPECT_EQ(table->FunctionAt(frames[0].function).line, 70u);
  EXPECT_EQ(frames[0].file, frames[1].file);
  EXPECT_NE(frames[1].file, frames[2].file);
  ASSERT_EQ(table->Find(0x100c, frames), 1u);
  EXPECT_EQ(frames[0].function, kNoFunction);
  EXPECT_EQ(frames[0].line, 40u);
  EXPECT_EQ(table->Find(0x1010, frames), 0u);
  EXPECT_EQ(table->Find(UINT64_MAX, frames), 0u);
  EXPECT_EQ(table->FunctionAt(kNoFunction).name, 0u);
}

TEST(LineTableTest, AShortAnswerKeepsThePhysicalFunction) {
  UnitLines unit = ThreeCalls();
  unit.rows = {{0x1000, 3}, {0x1010, 0}};
  const Built built = BuildOf({unit});
  const auto table = built.Parse();
  ASSERT_TRUE(table.ok());
  LineFrame frames[2];
  ASSERT_EQ(table->Find(0x1000, frames), 2u);
  EXPECT_EQ(frames[0].line, 30u);
  EXPECT_EQ(frames[1].line, 5u);
  EXPECT_FALSE(frames[1].inlined);
  EXPECT_EQ(table->Find(0x1000, {}), 0u);
}

TEST(LineTableTest, EmptyTablesKnowNothing) {
  LineFrame frames[1];
  EXPECT_EQ(LineTable().Find(0x1000, frames), 0u);
  const Built built = BuildOf({});
  const auto table = built.Parse();
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(table->Find(0x1000, frames), 0u);
  EXPECT_EQ(table->function_count(), 0u);
}

TEST(LineTableTest, NamesThatAreNotThereAreUnknown) {
  UnitLines unit = ThreeCalls();
  unit.rows = {{0x1000, 1}, {0x1010, 0}};
  const Built built = BuildOf({unit});
  const auto table = LineTable::Parse(built.bytes, 1);
  ASSERT_TRUE(table.ok());
  LineFrame frames[1];
  ASSERT_EQ(table->Find(0x1000, frames), 1u);
  EXPECT_EQ(frames[0].file, 0u);
  EXPECT_EQ(table->FunctionAt(frames[0].function).name, 0u);
}

TEST(LineTableTest, AnyCutIsAnErrorOrSafe) {
  UnitLines unit = ThreeCalls();
  unit.rows = {{0x1000, 1}, {0x1004, 3}, {0x2000, 0}, {0x900000, 2}, {0x900001, 0}};
  const Built built = BuildOf({unit});
  LineFrame frames[8];
  for (size_t size = 0; size < built.bytes.size(); ++size) {
    const std::vector<std::byte> cut(built.bytes.begin(),
                                     built.bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto table = LineTable::Parse(cut, built.names);
    if (table.ok()) table->Find(0x1004, frames);
    EXPECT_FALSE(table.ok());
  }
}

TEST(LineTableTest, TheLastPageOfAllAddressesEnds) {
  UnitLines unit = ThreeCalls();
  unit.rows = {{UINT64_MAX - 0x300, 1}, {UINT64_MAX - 0x10, 2}, {UINT64_MAX, 0}};
  const Built built = BuildOf({unit});
  const auto table = built.Parse();
  ASSERT_TRUE(table.ok());
  LineFrame frames[4];
  EXPECT_EQ(table->Find(UINT64_MAX - 0x301, frames), 0u);
  EXPECT_EQ(table->Find(UINT64_MAX - 0x80, frames), 1u);
  EXPECT_EQ(table->Find(UINT64_MAX - 1, frames), 2u);
  EXPECT_EQ(table->Find(UINT64_MAX, frames), 0u);
  EXPECT_EQ(table->Find(0, frames), 0u);
}

TEST(LineTableTest, TooManyRowsAreRefused) {
  UnitLines unit = ThreeCalls();
  unit.rows = {{0x1000, 1}, {uint64_t{1} << 50, 0}};
  NamesForTest names;
  VectorSink sink;
  LineTableWriter writer(names, sink);
  ASSERT_TRUE(writer.Add(0, UnitLines(unit)).ok());
  EXPECT_EQ(writer.Finish(1000).code(), absl::StatusCode::kResourceExhausted);
}

// Random rows of many units, some over those of others, against a map from every address: the first
// unit with a function speaks, then the first with a line.
TEST(LineTableTest, EveryAddressSaysWhatItsUnitDoes) {
  std::mt19937 random(11);
  for (int round = 0; round < 20; ++round) {
    std::vector<UnitLines> units;
    std::map<uint64_t, std::pair<uint32_t, uint32_t>> expected;  // chain's line, frames
    const int unit_count = 1 + static_cast<int>(random() % 30);
    for (int u = 0; u < unit_count; ++u) {
      UnitLines unit = ThreeCalls();
      uint64_t address = 0x1000 + random() % 0x3000 + (random() % 4 == 0 ? 0x800000 : 0);
      const unsigned rows = 1 + random() % 100;
      uint32_t before = 0;
      for (unsigned i = 0; i < rows; ++i) {
        uint32_t chain = random() % 5;
        // Two rows that say the same do not stand beside each other.
        if (chain == before) chain = chain % 4 + 1;
        if (chain == before) chain = 0;
        unit.rows.push_back({address, chain});
        const uint64_t size = 1 + random() % (random() % 20 == 0 ? 2000 : 30);
        for (uint64_t at = address; chain != 0 && at < address + size; ++at) {
          const std::pair<uint32_t, uint32_t> said = {unit.chains[chain].line,
                                                      unit.chains[chain].node};
          auto& place = expected[at];
          if (place.first == 0 || (place.second == 0 && said.second != 0)) place = said;
        }
        address += size;
        before = chain;
      }
      if (unit.rows.front().chain == 0) unit.rows.erase(unit.rows.begin());
      if (unit.rows.empty()) continue;
      if (before != 0) unit.rows.push_back({address, 0});
      units.push_back(std::move(unit));
    }
    const Built built = BuildOf(units);
    const auto table = built.Parse();
    ASSERT_TRUE(table.ok());
    LineFrame frames[8];
    for (uint64_t at = 0xf00; at < 0x807000; at += at > 0x7000 && at < 0x800000 ? 997 : 1) {
      const auto truth = expected.find(at);
      const size_t count = table->Find(at, frames);
      ASSERT_EQ(count > 0, truth != expected.end()) << std::hex << at;
      if (count > 0) {
        ASSERT_EQ(frames[0].line, truth->second.first) << std::hex << at;
        ASSERT_EQ(count, std::max(1u, truth->second.second)) << std::hex << at;
      }
    }
  }
}

// Rows that wait elsewhere, or would, if there were room.
TEST(LineTableTest, RowsThatWerePutAsideAreTheSame) {
  std::vector<UnitLines> units;
  for (uint64_t u = 0; u < 200; ++u) {
    UnitLines unit = ThreeCalls();
    // One has more rows than a block holds.
    const uint64_t rows = u == 100 ? 50000 : 400;
    for (uint64_t i = 0; i < rows; ++i) {
      unit.rows.push_back({(u << 20) + i * 5, static_cast<uint32_t>(1 + i % 4)});
    }
    unit.rows.push_back({(u << 20) + rows * 5, 0});
    units.push_back(std::move(unit));
  }
  const Built expected = BuildOf(units);
  std::deque<std::vector<std::byte>> aside;
  size_t room = SIZE_MAX;
  const auto put =
      [&](std::span<const std::byte> bytes) -> absl::StatusOr<std::span<const std::byte>> {
    if (aside.size() >= room) return base::ResourceExhausted("no room");
    return aside.emplace_back(bytes.begin(), bytes.end());
  };
  EXPECT_TRUE(BuildOf(units, put).bytes == expected.bytes);
  EXPECT_GT(aside.size(), 5U);
  for (const size_t few : {size_t{0}, size_t{2}}) {
    aside.clear();
    room = few;
    EXPECT_TRUE(BuildOf(units, put).bytes == expected.bytes) << few;
    EXPECT_EQ(aside.size(), few);
  }
}

// A copy of a function that an earlier unit claims is not stored.
TEST(LineTableTest, CopiesOfAFunctionAreStoredOnce) {
  UnitLines unit = ThreeCalls();
  unit.rows = {{0x1000, 1}, {0x1004, 3}, {0x1010, 2}, {0x1020, 0}};
  unit.code = {{0x1000, 0x1010}, {0x1010, 0x1020}};
  UnitLines other = ThreeCalls();
  other.rows = {{0x0ff0, 4}, {0x1000, 3}, {0x1010, 4}, {0x1030, 0}};
  other.code = {{0x1000, 0x1010}};
  const Built one = BuildOf({unit});
  const Built both = BuildOf({unit, other});
  const auto table = both.Parse();
  ASSERT_TRUE(table.ok());
  LineFrame frames[4];
  ASSERT_EQ(table->Find(0xff8, frames), 1u);
  EXPECT_EQ(frames[0].line, 40u);
  ASSERT_EQ(table->Find(0x1000, frames), 1u);
  EXPECT_EQ(frames[0].line, 10u);
  ASSERT_EQ(table->Find(0x1010, frames), 2u);
  EXPECT_EQ(frames[0].line, 20u);
  ASSERT_EQ(table->Find(0x1028, frames), 1u);
  EXPECT_EQ(frames[0].line, 40u);
  EXPECT_LT(both.bytes.size(), one.bytes.size() + 60);
}

}  // namespace
}  // namespace firewatch::symbolizer
