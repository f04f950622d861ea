// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/symbol_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/index_writer.h"
#include "symbolizer/index/line_table_writer.h"

namespace firewatch::symbolizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string Write(IndexSource source, unsigned threads = 1) {
  const base::UniqueFd fd(::memfd_create("index", MFD_CLOEXEC));
  IndexWriter writer(std::move(source));
  const auto report = writer.Write(fd.get(), threads);
  EXPECT_TRUE(report.ok()) << report.status();
  struct stat info{};
  ::fstat(fd.get(), &info);
  EXPECT_EQ(report->file_bytes, static_cast<uint64_t>(info.st_size));
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  EXPECT_EQ(::pread(fd.get(), bytes.data(), bytes.size(), 0), info.st_size);
  return bytes;
}

IndexSource TwoFunctions() {
  IndexSource source;
  source.id = {.bytes = {0xab, 0xcd}, .size = 2};
  source.file_bytes = 777;
  source.segments = {{.file_offset = 0x40, .vaddr = 0x1040, .file_size = 0x100}};
  source.groups.push_back("module");
  source.symbols = {{.start = 0x1064, .end = 0x1078, .name = "_Z3fooi"},
                    {.start = 0x10c8, .end = 0x10d2, .name = "bar", .group = 1}};
  return source;
}

absl::StatusOr<SymbolIndex> Parse(const std::string& bytes) {
  return SymbolIndex::Parse(std::as_bytes(std::span<const char>(bytes)));
}

std::string Reason(const std::string& bytes) {
  const auto index = Parse(bytes);
  return index.ok() ? "accepted" : std::string(base::Message(index.status()));
}

template <typename T>
T Peek(const std::string& bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}
template <typename T>
void Poke(std::string* bytes, size_t at, T value) {
  std::memcpy(bytes->data() + at, &value, sizeof(value));
}

size_t EntryOf(size_t number) { return sizeof(IndexHeader) + number * sizeof(IndexSectionEntry); }

// Makes all checksums right again, as a hostile writer would.
void FixSums(std::string* bytes) {
  const size_t count = Peek<IndexHeader>(*bytes, 0).section_count;
  for (size_t i = 0; i < count; ++i) {
    auto entry = Peek<IndexSectionEntry>(*bytes, EntryOf(i));
    if (entry.offset > bytes->size()) continue;
    entry.xxh3 = base::Hash64(std::string_view(*bytes).substr(entry.offset, entry.size));
    Poke(bytes, EntryOf(i), entry);
  }
  Poke(bytes, EntryOf(count), base::Hash64(std::string_view(*bytes).substr(0, EntryOf(count))));
}

// Where a section of a good file lies that has no lines.
size_t OffsetOf(const std::string& bytes, IndexSectionKind kind) {
  return Peek<IndexSectionEntry>(bytes, EntryOf(static_cast<size_t>(kind) - 1)).offset;
}

// "start-end linkage|display flags group" of every range.
std::vector<std::string> Symbols(const SymbolIndex& index) {
  std::vector<std::string> out;
  for (uint32_t i = 0; i < index.symbol_count(); ++i) {
    const IndexSymbol symbol = index.SymbolNumber(i);
    out.push_back(fmt::format("{:x}-{:x} {}|{} {} {}", symbol.start,
                              symbol.start + symbol.size_bytes, index.LinkageName(symbol.name),
                              index.DisplayName(symbol.name), symbol.flags,
                              index.LinkageName(symbol.group)));
  }
  return out;
}

TEST(SymbolIndexTest, FindsNamesSegmentsAndGroup) {
  const std::string bytes = Write(TwoFunctions());
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->file_bytes(), 777U);
  EXPECT_EQ(index->id().ToHex(), "abcd");
  EXPECT_EQ(index->end(), 0x10d2U);
  EXPECT_EQ(index->lines_state(), LinesState::kNotTried);
  EXPECT_THAT(Symbols(*index),
              ElementsAre("1064-1078 _Z3fooi|foo(int) 0 ", "10c8-10d2 bar|bar 0 module"));
  IndexFrame frames[2];
  ASSERT_EQ(index->FindOffset(0x77, frames), 1U);
  EXPECT_EQ(index->DisplayName(frames[0].name), "foo(int)");
  EXPECT_EQ(frames[0].line, 0U);
  EXPECT_EQ(index->FindAddress(0x10c8, frames), 1U);
  EXPECT_EQ(index->FindAddress(0x10c8, {}), 0U);
}

TEST(SymbolIndexTest, OffsetsOutsideTheExecutableSegmentsHaveNoAddress) {
  IndexSource source = TwoFunctions();
  source.segments.push_back({.file_offset = 0x140, .vaddr = 0x9140, .file_size = 0x10});
  const std::string bytes = Write(source);
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(index->VaddrOf(0x3f), std::nullopt);
  EXPECT_EQ(index->VaddrOf(0x40), 0x1040U);
  EXPECT_EQ(index->VaddrOf(0x13f), 0x113fU);
  EXPECT_EQ(index->VaddrOf(0x140), 0x9140U);
  EXPECT_EQ(index->VaddrOf(0x150), std::nullopt);
}

TEST(SymbolIndexTest, GapsAndEndsAreNotCovered) {
  const std::string bytes = Write(TwoFunctions());
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok());
  IndexFrame frames[1];
  for (const uint64_t address : {uint64_t{0}, uint64_t{0x1063}, uint64_t{0x1078}, uint64_t{0x10c7},
                                 uint64_t{0x10d2}, uint64_t{0x100001064}, UINT64_MAX}) {
    EXPECT_FALSE(index->SymbolAt(address)) << address;
    EXPECT_EQ(index->FindAddress(address, frames), 0U) << address;
  }
}

TEST(SymbolIndexTest, EmptyIndexCoversNothing) {
  const std::string bytes = Write({});
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_FALSE(index->SymbolAt(0));
  EXPECT_EQ(index->end(), 0U);
  EXPECT_EQ(index->DisplayName(0), "");
  EXPECT_EQ(index->DisplayName(1), "");
}

TEST(SymbolIndexTest, AddressesOfAllSixtyFourBits) {
  IndexSource source;
  std::vector<uint64_t> starts = {
      0, 1, 0xffffffff, 0x100000000, 0x7fffffffffff0000, 0xffffffff81000000, UINT64_MAX - 1};
  for (const uint64_t start : starts) {
    source.symbols.push_back({.start = start, .end = start + 1, .name = "f"});
  }
  // Sizes that do not fit the column.
  source.symbols.push_back({.start = 0x200000000, .end = 0x20000ffff, .name = "edge"});
  source.symbols.push_back({.start = 0x300000000, .end = 0x900000000, .name = "huge"});
  const std::string bytes = Write(source);
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  for (const uint64_t start : starts) {
    ASSERT_TRUE(index->SymbolAt(start)) << start;
    EXPECT_EQ(index->SymbolAt(start)->start, start);
    if (start > 1 && start != 0x100000000) {
      EXPECT_FALSE(index->SymbolAt(start - 1)) << start;
    }
  }
  EXPECT_EQ(index->SymbolAt(0x20000fffe)->size_bytes, 0xffffU);
  EXPECT_FALSE(index->SymbolAt(0x20000ffff));
  EXPECT_EQ(index->SymbolAt(0x8ffffffff)->start, 0x300000000U);
  EXPECT_FALSE(index->SymbolAt(0x900000000));
}

TEST(SymbolIndexTest, PartsAndVariantsShowTheFunctionAndKeepTheirName) {
  IndexSource source;
  source.symbols = {{.start = 0x10, .end = 0x20, .name = "_Z3foov.cold"},
                    {.start = 0x20, .end = 0x30, .name = "bar.constprop.0.isra.1"},
                    {.start = 0x30, .end = 0x40, .name = "printf@plt", .plt = true},
                    {.start = 0x40, .end = 0x50, .name = "label", .sized = false},
                    {.start = 0x60, .end = 0x90, .name = "outer"},
                    {.start = 0x70, .end = 0x80, .name = "inner"}};
  const std::string bytes = Write(source);
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok());
  EXPECT_THAT(
      Symbols(*index),
      ElementsAre("10-20 _Z3foov.cold|foo() 4 ", "20-30 bar.constprop.0.isra.1|bar 8 ",
                  "30-40 printf@plt|printf@plt 2 ", "40-50 label|label 64 ", "60-70 outer|outer 0 ",
                  "70-80 inner|inner 0 ", "80-90 outer|outer 128 "));
  IndexFrame frame[1];
  ASSERT_EQ(index->FindAddress(0x85, frame), 1U);
  EXPECT_EQ(frame[0].flags, 0) << "kContinued is a matter of ranges";
}

TEST(SymbolIndexTest, GoNamesKeepTheirDots) {
  IndexSource source;
  source.keep_suffixes = true;
  source.symbols = {{.start = 0x10, .end = 0x20, .name = "main.cold"},
                    {.start = 0x20, .end = 0x30, .name = "_Z3foov.cold"}};
  const std::string bytes = Write(source);
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(index->DisplayName(index->SymbolAt(0x10)->name), "main.cold");
  EXPECT_EQ(index->DisplayName(index->SymbolAt(0x20)->name), "foo()") << "cgo";
}

TEST(SymbolIndexTest, AliasesAreKeptAndFoldedBodiesMarked) {
  IndexSource source;
  source.symbols = {{.start = 0x10, .end = 0x20, .name = "__read", .rank = 2},
                    {.start = 0x10, .end = 0x20, .name = "read"},
                    {.start = 0x10, .end = 0x20, .name = "read"},
                    {.start = 0x10, .end = 0x40, .name = "read_label", .sized = false},
                    {.start = 0x30, .end = 0x40, .name = "_ZN1AC1Ev"},
                    {.start = 0x30, .end = 0x40, .name = "_ZN1AC2Ev"},
                    {.start = 0x50, .end = 0x60, .name = "_Z1bv"},
                    {.start = 0x50, .end = 0x60, .name = "_Z1av"}};
  const std::string bytes = Write(source);
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok());
  const auto aliases = [&](uint64_t address) {
    uint32_t ids[8];
    std::vector<std::string> names;
    const size_t count = index->AliasesOf(address, ids);
    for (size_t i = 0; i < count; ++i) names.push_back(index->LinkageName(ids[i]));
    return names;
  };
  EXPECT_THAT(Symbols(*index), ElementsAre("10-20 read|read 16 ", "30-40 _ZN1AC1Ev|A::A() 16 ",
                                           "50-60 _Z1av|a() 48 "));
  EXPECT_THAT(aliases(0x1f), ElementsAre("__read", "read_label"));
  EXPECT_THAT(aliases(0x30), ElementsAre("_ZN1AC2Ev"));
  EXPECT_THAT(aliases(0x50), ElementsAre("_Z1bv"));
  EXPECT_THAT(aliases(0x45), ElementsAre());
  uint32_t one[1];
  EXPECT_EQ(index->AliasesOf(0x10, one), 1U);
}

// Lines for TwoFunctions(): foo with one inlined call, a function that no symbol covers, padding.
dwarf::UnitLines LinesOfTwoFunctions() {
  dwarf::UnitLines unit;
  unit.files = {"", "/src/a.cc", "/src/b.h"};
  unit.functions = {{},
                    {.name = "_Z3fooi_in_dwarf", .file = 1, .line = 10},
                    {.name = "_Z7inlinedv", .file = 2, .line = 20},
                    {.name = "_Z8unlistedv", .file = 1, .line = 50}};
  unit.nodes = {{},
                {.function = 1},
                {.function = 2, .parent = 1, .call_file = 1, .call_line = 12},
                {.function = 3}};
  unit.chains = {{},
                 {.node = 2, .file = 2, .line = 21},
                 {.node = 1, .file = 1, .line = 13},
                 {.node = 3, .file = 1, .line = 51},
                 {.file = 1, .line = 14}};
  unit.rows = {{.address = 0x1064, .chain = 1}, {.address = 0x1070, .chain = 2},
               {.address = 0x1078, .chain = 4}, {.address = 0x1080, .chain = 3},
               {.address = 0x1090, .chain = 0}, {.address = 0x10c8, .chain = 4},
               {.address = 0x10cc, .chain = 0}};
  return unit;
}

std::string ReadAll(int fd) {
  struct stat info{};
  ::fstat(fd, &info);
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), 0), info.st_size);
  return bytes;
}

std::string WriteWithLines(bool in_memory = false) {
  IndexWriter writer(TwoFunctions());
  const base::UniqueFd fd(::memfd_create("index", MFD_CLOEXEC));
  VectorSink memory;
  SectionSink& sink = in_memory ? memory : writer.LinesInto(fd.get());
  LineTableWriter lines(writer.names(), sink);
  EXPECT_TRUE(lines.Add(0, LinesOfTwoFunctions()).ok());
  EXPECT_TRUE(lines.Finish(1000).ok());
  if (in_memory) {
    writer.SetLines(kLinesVersion, memory.bytes());
  } else {
    writer.SetLinesWritten(kLinesVersion);
  }
  const auto report = writer.Write(fd.get());
  EXPECT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->lines_bytes, 100U);
  return ReadAll(fd.get());
}

// "display file:line start flags" of every frame, innermost first.
std::vector<std::string> Chain(const SymbolIndex& index, uint64_t address, size_t room = 8) {
  IndexFrame frames[8];
  const size_t depth = index.FindAddress(address, std::span(frames).first(room));
  std::vector<std::string> out;
  for (size_t i = 0; i < depth; ++i) {
    out.push_back(fmt::format("{} {}:{} {} {}", index.DisplayName(frames[i].name),
                              index.LinkageName(frames[i].file), frames[i].line,
                              frames[i].start_line, frames[i].flags));
  }
  return out;
}

TEST(SymbolIndexTest, PhysicalFrameHasTheSymbolsNameInlinedOnesTheDebugInformations) {
  const std::string bytes = WriteWithLines();
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  ASSERT_TRUE(index->has_lines());
  EXPECT_THAT(Chain(*index, 0x1064),
              ElementsAre("inlined() /src/b.h:21 20 1", "foo(int) /src/a.cc:12 10 0"));
  EXPECT_THAT(Chain(*index, 0x1064, 1), ElementsAre("foo(int) /src/a.cc:12 10 0"));
  EXPECT_THAT(Chain(*index, 0x1077), ElementsAre("foo(int) /src/a.cc:13 10 0"));
  EXPECT_THAT(Chain(*index, 0x1080), ElementsAre("unlisted() /src/a.cc:51 50 0"))
      << "no symbol covers it";
  EXPECT_THAT(Chain(*index, 0x10c9), ElementsAre("bar /src/a.cc:14 0 0")) << "assembly";
  EXPECT_THAT(Chain(*index, 0x10d0), ElementsAre("bar :0 0 0")) << "no line";
}

TEST(SymbolIndexTest, PaddingWithALineStaysUnknown) {
  const std::string bytes = WriteWithLines();
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok());
  EXPECT_THAT(Chain(*index, 0x1079), ElementsAre());
  LineFrame line[1];
  EXPECT_EQ(index->lines().Find(0x1079, line), 1U);
}

TEST(SymbolIndexTest, LinesMustBeWhatTheHeaderSays) {
  const std::string good = WriteWithLines();
  for (const LinesState state : {LinesState::kNotTried, LinesState::kNoDebugInfo}) {
    std::string bytes = good;
    Poke(&bytes, offsetof(IndexHeader, lines_state), state);
    FixSums(&bytes);
    EXPECT_THAT(Reason(bytes), HasSubstr("lines are there"));
  }
  std::string bytes = Write(TwoFunctions());
  Poke(&bytes, offsetof(IndexHeader, lines_state), LinesState::kPresent);
  FixSums(&bytes);
  EXPECT_THAT(Reason(bytes), HasSubstr("lines are missing"));
  bytes = good;
  Poke(&bytes, EntryOf(0) + 4, uint32_t{77});
  FixSums(&bytes);
  EXPECT_THAT(Reason(bytes), HasSubstr("lines version 77"));
}

TEST(SymbolIndexTest, LinesFromMemoryGiveTheSameBytes) {
  EXPECT_TRUE(WriteWithLines(true) == WriteWithLines(false));
}

TEST(SymbolIndexTest, ReasonForNoLinesIsKeptAndHalfASectionIsNot) {
  IndexWriter writer(TwoFunctions());
  const base::UniqueFd fd(::memfd_create("index", MFD_CLOEXEC));
  EXPECT_TRUE(writer.LinesInto(fd.get()).Append(std::vector<std::byte>(5000)).ok());
  writer.SetNoLines(LinesState::kOverBudget);
  ASSERT_TRUE(writer.Write(fd.get()).ok());
  const std::string bytes = ReadAll(fd.get());
  EXPECT_LT(bytes.size(), 1000U);
  const auto index = Parse(bytes);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_FALSE(index->has_lines());
  EXPECT_EQ(index->lines_state(), LinesState::kOverBudget);
}

TEST(SymbolIndexTest, EqualInputInAnyOrderAndAnyThreadsGivesEqualBytes) {
  IndexSource source = TwoFunctions();
  source.symbols.push_back({.start = 0x1064, .end = 0x1078, .name = "alias", .rank = 4});
  source.symbols.push_back({.start = 0x1082, .end = 0x108c, .name = "_ZN1AC2Ev"});
  source.symbols.push_back({.start = 0x1082, .end = 0x108c, .name = "_ZN1AC1Ev"});
  std::vector<std::string> names;
  names.reserve(5000);
  for (uint64_t i = 0; i < 5000; ++i) {
    names.push_back(fmt::format("_ZN9namespace5thing{}some_function_{:04}ERKSs", 18, i));
    source.symbols.push_back(
        {.start = 0x10000 + i * 16, .end = 0x10000 + i * 16 + 9, .name = names.back()});
  }
  const std::string expected = Write(source);
  EXPECT_EQ(Reason(expected), "accepted");
  std::mt19937 random(1);
  for (unsigned i = 0; i < 8; ++i) {
    std::shuffle(source.symbols.begin(), source.symbols.end(), random);
    EXPECT_TRUE(Write(source, i % 4 + 1) == expected) << i;
  }
}

TEST(SymbolIndexTest, EveryChangedByteIsNoticed) {
  const std::string good = Write(TwoFunctions());
  ASSERT_EQ(Reason(good), "accepted");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    EXPECT_NE(Reason(bad), "accepted") << "byte " << i;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(Reason(good.substr(0, size)), "accepted") << size << " bytes";
  }
  EXPECT_NE(Reason(good + std::string(8, '\0')), "accepted");
}

TEST(SymbolIndexTest, HostileIndexWithGoodChecksumsIsRefused) {
  const std::string good = Write(TwoFunctions());
  const auto spoiled = [&](size_t at, auto value) {
    std::string bytes = good;
    Poke(&bytes, at, value);
    FixSums(&bytes);
    return Reason(bytes);
  };
  const size_t symbols = OffsetOf(good, IndexSectionKind::kSymbols);
  const size_t chunk = symbols + sizeof(SymbolsHeader);
  const size_t starts = chunk + sizeof(SymbolsChunk);
  const size_t sizes = starts + 2 * sizeof(uint32_t);
  const size_t names = sizes + 2 * sizeof(uint16_t);
  const size_t groups = names + 2 * 2 + 2;
  EXPECT_THAT(spoiled(starts, uint32_t{1}), HasSubstr("chunk 0"));
  EXPECT_THAT(spoiled(starts + 4, uint32_t{0x13}), HasSubstr("overlaps"));
  EXPECT_THAT(spoiled(sizes, uint16_t{0}), HasSubstr("is empty"));
  EXPECT_THAT(spoiled(sizes, uint16_t{0x65}), HasSubstr("overlaps"));
  EXPECT_THAT(spoiled(sizes, kLargeSize), HasSubstr("large"));
  EXPECT_THAT(spoiled(chunk, UINT64_MAX - 0x64), HasSubstr("overlaps"));
  EXPECT_THAT(spoiled(chunk + 8, uint32_t{1}), HasSubstr("chunk 0"));
  EXPECT_THAT(spoiled(names, UINT16_MAX), HasSubstr("outside the table"));
  EXPECT_THAT(spoiled(groups, uint16_t{2}), HasSubstr("outside the list"));
  EXPECT_THAT(spoiled(groups + 4, UINT32_MAX), HasSubstr("outside the table"));
  EXPECT_THAT(spoiled(symbols, uint32_t{3}), HasSubstr("add up"));
  EXPECT_THAT(spoiled(symbols, UINT32_MAX), HasSubstr("add up"));
  EXPECT_THAT(spoiled(symbols + 4, uint32_t{0}), HasSubstr("add up"));
  EXPECT_THAT(spoiled(offsetof(SymbolsHeader, name_width) + symbols, uint8_t{1}),
              HasSubstr("names of 1 bytes"));

  const size_t segments = OffsetOf(good, IndexSectionKind::kSegments);
  EXPECT_THAT(spoiled(segments + 8, UINT64_MAX), HasSubstr("wraps"));

  const size_t table = OffsetOf(good, IndexSectionKind::kNames);
  EXPECT_THAT(spoiled(table, uint32_t{5}), HasSubstr("place 0"));
  EXPECT_THAT(spoiled(table + 4, UINT32_MAX), HasSubstr("do not fit"));
  EXPECT_THAT(spoiled(table + 8, uint32_t{1}), HasSubstr("place 0"));
  EXPECT_THAT(spoiled(table + 20, UINT32_MAX), HasSubstr("do not add up"));
  EXPECT_THAT(spoiled(table + 20, uint32_t{0}), HasSubstr("out of order"));

  EXPECT_THAT(spoiled(offsetof(IndexHeader, id_size), uint8_t{21}), HasSubstr("size of the id"));
  EXPECT_THAT(spoiled(offsetof(IndexHeader, lines_state), uint8_t{9}), HasSubstr("lines"));
  EXPECT_THAT(spoiled(EntryOf(1), uint32_t{1}), HasSubstr("out of place"));
  EXPECT_THAT(spoiled(EntryOf(1) + 8, uint64_t{0}), HasSubstr("out of place"));
  EXPECT_THAT(spoiled(EntryOf(2) + 16, UINT64_MAX), HasSubstr("out of place"));
  EXPECT_THAT(spoiled(EntryOf(2), uint32_t{4}), HasSubstr("no symbols section"));
  EXPECT_THAT(spoiled(EntryOf(2) + 4, uint32_t{9}), HasSubstr("symbols version 9, expected 1"));
}

TEST(SymbolIndexTest, SpoiledBlockOfNamesGivesEmptyNamesAndNoCrash) {
  const std::string good = Write(TwoFunctions());
  const size_t block =
      OffsetOf(good, IndexSectionKind::kNames) + sizeof(NamesHeader) + 2 * sizeof(NamesBlockEntry);
  const size_t end = OffsetOf(good, IndexSectionKind::kSymbols);
  size_t spoiled = 0;
  for (size_t at = block; at < end; ++at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x55);
    FixSums(&bytes);
    const auto index = Parse(bytes);
    if (!index.ok()) continue;  // the zeros between sections
    for (uint32_t id = 0; id < index->names().count(); ++id) {
      const std::string name = index->DisplayName(id);
      spoiled += name.empty();
    }
  }
  EXPECT_GT(spoiled, 10U);
}

TEST(SymbolIndexTest, OtherVersionIsRefused) {
  std::string bytes = Write(TwoFunctions());
  Poke(&bytes, offsetof(IndexHeader, version), uint32_t{1});
  EXPECT_EQ(Reason(bytes), "symbol index: version 1, expected 2");
}

}  // namespace
}  // namespace firewatch::symbolizer
