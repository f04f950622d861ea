// SPDX-License-Identifier: Apache-2.0
// Many addresses at once: the same answers as one by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/index/index_writer.h"
#include "symbolizer/index/line_table_writer.h"
#include "symbolizer/index/symbol_index.h"

namespace firewatch::symbolizer {
namespace {

using dwarf::UnitLines;
using testing::ElementsAre;

struct Built {
  base::MappedFile file;
  SymbolIndex index;
};

// Without units an index without lines.
std::unique_ptr<Built> BuildOf(IndexSource source, std::vector<UnitLines> units) {
  const base::UniqueFd fd(::memfd_create("index", MFD_CLOEXEC));
  IndexWriter writer(std::move(source));
  VectorSink memory;
  LineTableWriter lines(writer.names(), memory);
  uint64_t number = 0;
  for (UnitLines& unit : units) EXPECT_TRUE(lines.Add(number++, std::move(unit)).ok());
  if (number > 0) {
    EXPECT_TRUE(lines.Finish(1'000'000).ok());
    writer.SetLines(kLinesVersion, memory.bytes());
  }
  EXPECT_TRUE(writer.Write(fd.get()).ok());
  auto built = std::make_unique<Built>();
  built->file = base::MappedFile::FromFd(fd.get(), "index").value();
  built->index = SymbolIndex::Parse(built->file.bytes()).value();
  return built;
}

using Answer = std::vector<IndexFrame>;

std::vector<Answer> OneByOne(const SymbolIndex& index, std::span<const uint64_t> addresses) {
  std::vector<Answer> answers;
  IndexFrame frames[kMaxIndexFrames];
  for (const uint64_t address : addresses) {
    const size_t depth = index.FindAddress(address, frames);
    answers.emplace_back(frames, frames + depth);
  }
  return answers;
}

std::vector<Answer> Many(const SymbolIndex& index, std::span<const uint64_t> addresses) {
  std::vector<Answer> answers;
  index.FindAddresses(addresses, [&](size_t number, std::span<const IndexFrame> frames) {
    EXPECT_EQ(number, answers.size());
    answers.emplace_back(frames.begin(), frames.end());
  });
  return answers;
}

// Returns how many have a name, so that a test can tell that it asked for something.
size_t ExpectSameAnswers(const SymbolIndex& index, std::span<const uint64_t> addresses) {
  const std::vector<Answer> expected = OneByOne(index, addresses);
  const std::vector<Answer> answers = Many(index, addresses);
  EXPECT_EQ(answers.size(), expected.size());
  size_t named = 0;
  for (size_t i = 0; i < std::min(answers.size(), expected.size()); ++i) {
    EXPECT_TRUE(answers[i] == expected[i]) << std::hex << addresses[i];
    named += answers[i].empty() ? 0 : 1;
  }
  return named;
}

// Around both ends of every symbol, the ends of all addresses, and random ones up to behind the
// last symbol; in random order.
std::vector<uint64_t> Addresses(const SymbolIndex& index, std::mt19937_64& random) {
  std::vector<uint64_t> addresses = {0, 1, UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 63};
  for (uint32_t i = 0; i < index.symbol_count(); ++i) {
    const IndexSymbol symbol = index.SymbolNumber(i);
    const uint64_t end = symbol.start + symbol.size_bytes;
    addresses.insert(addresses.end(), {symbol.start - 1, symbol.start, end - 1, end});
  }
  for (int i = 0; i < 2000; ++i) addresses.push_back(random() % (index.end() + 0x2000));
  std::shuffle(addresses.begin(), addresses.end(), random);
  return addresses;
}

// Calls `depth` deep, each inlined into the one before, and a line without a function.
UnitLines Calls(uint32_t depth) {
  UnitLines unit;
  unit.files = {"", "/src/a.cc", "/src/b.h"};
  unit.functions = {{}, {.name = "outer", .file = 1, .line = 10}};
  unit.nodes = {{}};
  unit.chains = {{}, {.file = 1, .line = 7}};
  for (uint32_t i = 1; i <= depth; ++i) {
    unit.functions.push_back({.name = "inlined", .file = 2, .line = 100 + i});
    unit.nodes.push_back(
        {.function = i, .parent = i - 1, .call_file = i > 1 ? 2u : 0u, .call_line = i - 1});
    unit.chains.push_back({.node = i, .file = 2, .line = 1000 + i});
  }
  return unit;
}

UnitLines RandomUnit(uint64_t start, uint32_t depth, size_t rows, std::mt19937_64& random) {
  UnitLines unit = Calls(depth);
  uint64_t address = start;
  uint32_t before = 0;
  for (size_t i = 0; i < rows; ++i) {
    uint32_t chain = static_cast<uint32_t>(random() % unit.chains.size());
    if (chain == before) chain = chain == 1 ? 2 : 1;
    if (unit.rows.empty() && chain == 0) chain = 1;
    unit.rows.push_back({.address = address, .chain = chain});
    address += 1 + random() % (random() % 20 == 0 ? 2000 : 30);
    before = chain;
  }
  if (before != 0) unit.rows.push_back({.address = address, .chain = 0});
  return unit;
}

IndexSource RandomSymbols(size_t count, std::mt19937_64& random) {
  IndexSource source;
  uint64_t address = 0x1000;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t size = 1 + random() % (random() % 10 == 0 ? 0x20000 : 200);
    source.symbols.push_back(
        {.start = address, .end = address + size, .name = i % 2 == 0 ? "even" : "odd"});
    address += size + (random() % 3 == 0 ? random() % 300 : 0);
  }
  return source;
}

TEST(SymbolIndexManyTest, AnswersAreThoseOfOneByOne) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 12; ++round) {
    std::vector<UnitLines> units;
    for (uint64_t i = 0; i < 1 + random() % 20; ++i) {
      const uint64_t start = 0x800 + random() % 0x40000;
      units.push_back(RandomUnit(start, 2 + random() % 6, 1 + random() % 300, random));
    }
    const auto built = BuildOf(RandomSymbols(1 + random() % 300, random), std::move(units));
    ASSERT_TRUE(built->index.has_lines());
    const std::vector<uint64_t> addresses = Addresses(built->index, random);
    EXPECT_GT(ExpectSameAnswers(built->index, addresses), 100U);
  }
}

TEST(SymbolIndexManyTest, AnyNumberOfAddressesIsAnsweredInOrder) {
  std::mt19937_64 random(6);
  std::vector<UnitLines> units;
  units.push_back(RandomUnit(0x1000, 4, 300, random));
  const auto built = BuildOf(RandomSymbols(50, random), std::move(units));
  const std::vector<uint64_t> addresses = Addresses(built->index, random);
  for (const unsigned count : {0u, 1u, 2u, 15u, 16u, 17u, 31u, 32u, 33u, 100u}) {
    ExpectSameAnswers(built->index, std::span(addresses).first(count));
  }
  const std::vector<uint64_t> same(40, built->index.SymbolNumber(3).start);
  EXPECT_EQ(ExpectSameAnswers(built->index, same), 40U);
}

TEST(SymbolIndexManyTest, IndexWithoutLinesGivesItsSymbols) {
  std::mt19937_64 random(7);
  for (const unsigned count : {1u, 2u, 3u, 1000u}) {
    const auto built = BuildOf(RandomSymbols(count, random), {});
    ASSERT_FALSE(built->index.has_lines());
    EXPECT_GE(ExpectSameAnswers(built->index, Addresses(built->index, random)), 2 * count);
  }
}

TEST(SymbolIndexManyTest, SymbolsInSeveralChunksOfAddresses) {
  std::mt19937_64 random(8);
  IndexSource source = RandomSymbols(200, random);
  for (const uint64_t start : {uint64_t{0x7000'0000'0000}, uint64_t{0xffff'ffff'8100'0000}}) {
    for (uint64_t i = 0; i < 20; ++i) {
      source.symbols.push_back({.start = start + i * 32, .end = start + i * 32 + 20, .name = "f"});
    }
  }
  source.symbols.push_back({.start = 0x3'0000'0000, .end = 0x9'0000'0000, .name = "huge"});
  const auto built = BuildOf(std::move(source), {});
  EXPECT_GT(ExpectSameAnswers(built->index, Addresses(built->index, random)), 400U);
}

TEST(SymbolIndexManyTest, NothingIsKnownByAnEmptyIndexNorByNone) {
  std::mt19937_64 random(9);
  const auto built = BuildOf({}, {});
  EXPECT_EQ(ExpectSameAnswers(built->index, Addresses(built->index, random)), 0U);
  EXPECT_EQ(ExpectSameAnswers(SymbolIndex(), Addresses(SymbolIndex(), random)), 0U);
}

TEST(SymbolIndexManyTest, LinesWithoutSymbols) {
  std::mt19937_64 random(10);
  std::vector<UnitLines> units;
  units.push_back(RandomUnit(0x800, 3, 300, random));
  const auto built = BuildOf({}, std::move(units));
  EXPECT_GT(ExpectSameAnswers(built->index, Addresses(built->index, random)), 100U);
}

// More frames than there is room for a group's: some are told before the others are looked up. And
// a chain that is too deep loses those before the physical function.
TEST(SymbolIndexManyTest, DeepChains) {
  constexpr uint32_t kDepth = 150;
  UnitLines unit = Calls(kDepth);
  unit.rows = {{.address = 0x1000, .chain = kDepth + 1},
               {.address = 0x1010, .chain = 120},
               {.address = 0x1020, .chain = 3},
               {.address = 0x1030, .chain = 0}};
  IndexSource source;
  source.symbols = {{.start = 0x1000, .end = 0x1028, .name = "physical"}};
  std::vector<UnitLines> units;
  units.push_back(std::move(unit));
  const auto built = BuildOf(std::move(source), std::move(units));
  const std::vector<uint64_t> ends = {0x1000, 0x1010, 0x1020, 0x1028, 0x1030};
  std::vector<size_t> depths;
  for (const Answer& answer : Many(built->index, ends)) depths.push_back(answer.size());
  EXPECT_THAT(depths, ElementsAre(kMaxIndexFrames, 119, 2, 2, 0));
  const Answer deepest = Many(built->index, ends)[0];
  EXPECT_EQ(deepest.front().line, 1000 + kDepth);
  EXPECT_EQ(built->index.DisplayName(deepest.back().name), "physical");

  std::mt19937_64 random(11);
  std::vector<uint64_t> addresses;
  for (int i = 0; i < 500; ++i) addresses.push_back(0xff0 + random() % 0x50);
  EXPECT_GT(ExpectSameAnswers(built->index, addresses), 200U);
}

}  // namespace
}  // namespace firewatch::symbolizer
