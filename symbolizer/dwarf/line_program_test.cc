// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/line_program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "symbolizer/dwarf/dwarf_builder_for_test.h"

namespace firewatch::symbolizer::dwarf {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// "start-end file:line" of every row.
std::vector<std::string> RowsOf(const LineRows& rows) {
  std::vector<std::string> out;
  LineRows::Reader reader(rows);
  for (bool more = reader.Seek(0); more; more = reader.Next()) {
    char text[80];
    std::snprintf(text, sizeof(text), "%lx-%lx %u:%u", reader.row().start, reader.row().end,
                  reader.row().file, reader.row().line);
    out.push_back(text);
  }
  return out;
}

struct Ran {
  LineProgram::Counts counts;
  std::vector<std::string> rows;
};

Ran RunOps(const LineOps& ops, std::vector<AddressRange> executable = {},
           const LineHeader& header = {}) {
  const SectionBytes bytes = LineProgram4(ops, 4, header);
  DwarfSections sections;
  sections.line = bytes.bytes();
  LineProgram program;
  EXPECT_TRUE(program.Open(sections, 0, 8));
  LineRows rows;
  const CodeFilter filter(executable);
  Ran ran;
  ran.counts = program.Run(filter, &rows);
  ran.rows = RowsOf(rows);
  return ran;
}

TEST(LineProgramTest, RowsReachToTheNextAndNeighboursThatSayTheSameAreOne) {
  const Ran ran =
      RunOps(LineOps().SetAddress(0x1000).Row(9, 0).Row(0, 4).Row(5, 4).File(2).Row(0, 8).End(4));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1008 1:10", "1008-1010 1:15", "1010-1014 2:15"));
  EXPECT_EQ(ran.counts.sequences, 1u);
  EXPECT_FALSE(ran.counts.damaged);
}

TEST(LineProgramTest, TheLastRowAtAnAddressCounts) {
  const Ran ran = RunOps(LineOps().SetAddress(0x1000).Row(1, 0).Row(1, 0).Row(1, 0).End(4));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1004 1:4"));
}

TEST(LineProgramTest, ARowAtTheEndIsNone) {
  const Ran ran = RunOps(LineOps().SetAddress(0x1000).Row(1, 0).Row(1, 4).End(0));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1004 1:2"));
}

// DWARF 4, 6.2.5.1: what a special opcode adds, for headers that compilers write and that nobody
// does; and the opcodes below them, which are special themselves where the base is lower.
TEST(LineProgramTest, OpcodesDoWhatTheirHeaderSays) {
  const LineHeader headers[] = {
      {},                  // clang
      {1, -10, 242, 10},   // GCC, DWARF 2: prologue_end and epilogue_begin are special
      {1, -10, 242, 13},   // GCC
      {4, -3, 12, 13},     // fixed instructions
      {255, 127, 1, 10},   // the most that can be added to an address,
      {1, -128, 255, 10},  // and to a line
      {1, -5, 0, 13},      // nothing can be added
      {1, -1, 4, 255},     // one special opcode
      {1, -1, 4, 6},       // negate_stmt and those behind it are special
  };
  for (const LineHeader& header : headers) {
    SCOPED_TRACE(testing::PrintToString(header.line_base));
    const unsigned range = header.line_range;
    LineOps ops;
    ops.SetAddress(0x1000);
    uint64_t address = 0x1000;
    uint32_t line = 1;
    struct Expected {
      uint64_t address;
      uint32_t line;
    };
    std::vector<Expected> rows;
    const auto advance_of = [&](unsigned opcode) {
      return range == 0 ? 0 : (opcode - header.opcode_base) / range * header.minimum_instruction;
    };
    for (unsigned opcode = header.opcode_base; opcode < 256; ++opcode) {
      // Far enough ahead that no line is below 0, and a row of its own.
      ops.raw().U8(kLnsAdvancePc).Uleb(0x10'000).U8(kLnsAdvanceLine).Sleb(1'000).U8(opcode);
      address += uint64_t{0x10'000} * header.minimum_instruction + advance_of(opcode);
      line += 1'000;
      if (range != 0) {
        line += static_cast<uint32_t>(header.line_base +
                                      static_cast<int>((opcode - header.opcode_base) % range));
      }
      rows.push_back({address, line});
      ops.raw().U8(kLnsSetColumn).Uleb(opcode * 7);
      for (const uint8_t silent : {kLnsNegateStmt, kLnsSetBasicBlock, kLnsSetPrologueEnd}) {
        if (silent < header.opcode_base) ops.raw().U8(silent);
      }
      if (kLnsConstAddPc < header.opcode_base) {
        ops.raw().U8(kLnsConstAddPc);
        address += advance_of(255);
      }
    }
    ops.End(0x10);
    address += uint64_t{0x10} * header.minimum_instruction;
    std::vector<std::string> expected;
    for (size_t i = 0; i < rows.size(); ++i) {
      char text[80];
      std::snprintf(text, sizeof(text), "%lx-%lx 1:%u", rows[i].address,
                    i + 1 < rows.size() ? rows[i + 1].address : address, rows[i].line);
      expected.push_back(text);
    }
    const Ran ran = RunOps(ops, {}, header);
    EXPECT_EQ(ran.rows, expected);
    EXPECT_FALSE(ran.counts.damaged);
  }
}

TEST(LineProgramTest, LineZeroIsKept) {
  const Ran ran = RunOps(LineOps().SetAddress(0x1000).Row(4, 0).Row(-5, 4).Row(7, 4).End(4));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1004 1:5", "1004-1008 1:0", "1008-100c 1:7"));
}

TEST(LineProgramTest, SequencesComeInAnyOrder) {
  const Ran ran = RunOps(LineOps()
                             .SetAddress(0x3000)
                             .Row(2, 0)
                             .End(4)
                             .SetAddress(0x1000)
                             .Row(0, 0)
                             .End(4)
                             .SetAddress(0x2000)
                             .Row(1, 0)
                             .End(4));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1004 1:1", "2000-2004 1:2", "3000-3004 1:3"));
}

TEST(LineProgramTest, OfOverlappingSequencesTheOneThatEndsFirstSpeaks) {
  const Ran ran = RunOps(LineOps()
                             .SetAddress(0x1000)
                             .Row(0, 0)
                             .Row(1, 0x20)
                             .End(0x20)
                             .SetAddress(0x1010)
                             .Row(9, 0)
                             .End(0x20));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1010 1:1", "1010-1030 1:10", "1030-1040 1:2"));
}

TEST(LineProgramTest, TwoSequencesOfTheSameCodeAreOne) {
  const Ran ran = RunOps(
      LineOps().SetAddress(0x1000).Row(0, 0).End(0x20).SetAddress(0x1000).Row(9, 0).End(0x20));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1020 1:1"));
}

TEST(LineProgramTest, RowsThatGoBackwardsAreSorted) {
  LineOps ops;
  ops.SetAddress(0x1010).Row(0, 0).Row(1, 4).SetAddress(0x1000).Row(1, 0).SetAddress(0x1020);
  const Ran ran = RunOps(ops.End(0));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1010 1:3", "1010-1014 1:1", "1014-1020 1:2"));
}

TEST(LineProgramTest, ARowThatWasPassedOverCountsWhenRowsGoBackwards) {
  // 0x1000 line 1, again line 1 at 0x1008, then line 2 back at 0x1004.
  LineOps ops;
  ops.SetAddress(0x1000).Row(0, 0).Row(0, 8).SetAddress(0x1004).Row(1, 0).SetAddress(0x1010);
  const Ran ran = RunOps(ops.End(0));
  EXPECT_THAT(ran.rows, ElementsAre("1000-1004 1:1", "1004-1008 1:2", "1008-1010 1:1"));
}

// They are looked at twice, wherever the row stands that tells.
TEST(LineProgramTest, WhatFollowsARowThatGoesBackwardsIsThereOnce) {
  LineOps ops;
  ops.SetAddress(0x1010).Row(1, 0).SetAddress(0x1000).Row(1, 0);
  ops.raw().U8(0).Uleb(8).U8(kLneDefineFile).Text("x.h").Uleb(0).Uleb(0).Uleb(0);
  ops.File(5).Row(1, 4).End(0x10);
  // A last row goes backwards, in a sequence that has no end; one before it was passed over.
  LineOps cut;
  cut.SetAddress(0x1010).Row(9, 0).SetAddress(0x1030).Row(0, 0).SetAddress(0x1020).Row(0, 0);
  cut.SetAddress(0x1025).Row(5, 0).SetAddress(0x1040).End(0);
  cut.SetAddress(0x2010).Row(1, 0).SetAddress(0x2000).Row(1, 0);
  const SectionBytes bytes = LineProgram4(ops);
  DwarfSections sections;
  sections.line = bytes.bytes();
  LineProgram program;
  ASSERT_TRUE(program.Open(sections, 0, 8));
  LineRows rows;
  const CodeFilter filter({});
  program.Run(filter, &rows);
  EXPECT_THAT(RowsOf(rows), ElementsAre("1000-1004 1:3", "1004-1010 5:4", "1010-1014 1:2"));
  std::string path;
  ASSERT_TRUE(program.PathOf(5, "/comp", &path));
  EXPECT_EQ(path, "/comp/x.h");
  EXPECT_FALSE(program.PathOf(6, "/comp", &path));
  EXPECT_THAT(RunOps(cut).rows, ElementsAre("1010-1025 1:10", "1025-1030 1:15", "1030-1040 1:10"));
}

TEST(LineProgramTest, SequencesWithoutRowsOrSizeAreNone) {
  const Ran ran = RunOps(LineOps().SetAddress(0x1000).End(4).SetAddress(0x2000).Row(1, 0).End(0));
  EXPECT_THAT(ran.rows, IsEmpty());
  EXPECT_EQ(ran.counts.dropped, 0u);
}

TEST(LineProgramTest, ASequenceWithoutEndIsNone) {
  const Ran ran =
      RunOps(LineOps().SetAddress(0x2000).Row(1, 0).End(4).SetAddress(0x1000).Row(1, 0));
  EXPECT_THAT(ran.rows, ElementsAre("2000-2004 1:2"));
  EXPECT_FALSE(ran.counts.damaged);
}

TEST(LineProgramTest, ASequenceThatEndsBeforeItsRowsKeepsThoseBelow) {
  LineOps ops;
  ops.SetAddress(0x1000).Row(0, 0).Row(1, 0x10).Row(1, 0x10).SetAddress(0x1008);
  EXPECT_THAT(RunOps(ops.End(0)).rows, ElementsAre("1000-1008 1:1"));
}

TEST(LineProgramTest, TombstonesAreDroppedAndCounted) {
  LineOps ops;
  for (const uint64_t start : {uint64_t{0}, uint64_t{1}, UINT64_MAX - 2, UINT64_MAX - 1}) {
    ops.SetAddress(start).Row(1, 0).Row(1, 0).End(1);
  }
  ops.SetAddress(0).Row(1, 0).Row(1, 8).SetAddress(0).Row(1, 0).End(4);  // two functions in one
  ops.SetAddress(0x1000).Row(1, 0).End(4);
  const Ran ran = RunOps(ops);
  EXPECT_THAT(ran.rows, testing::Contains("1000-1004 1:2"));
  EXPECT_GE(ran.counts.dropped, 4u);
  const Ran inside = RunOps(ops, {{0x1000, 0x2000}});
  EXPECT_THAT(inside.rows, ElementsAre("1000-1004 1:2"));
  EXPECT_EQ(inside.counts.dropped, 5u);
}

TEST(LineProgramTest, UnknownOpcodesArePassedOver) {
  LineOps ops;
  ops.SetAddress(0x1000);
  ops.raw().U8(0).Uleb(4).U8(0x80).U8(1).U8(2).U8(3);  // of a vendor
  ops.raw().U8(kLnsSetIsa).Uleb(300);
  ops.raw().U8(kLnsSetColumn).Uleb(7).U8(kLnsNegateStmt).U8(kLnsConstAddPc);
  ops.Row(1, 0);
  EXPECT_THAT(RunOps(ops.End(1)).rows, ElementsAre("1011-1012 1:2"));
}

TEST(LineProgramTest, DamageEndsTheProgramButKeepsWhatCameBefore) {
  LineOps ops;
  ops.SetAddress(0x1000).Row(1, 0).End(4);
  ops.raw().U8(0).Uleb(200).U8(kLneSetAddress);
  const Ran ran = RunOps(ops);
  EXPECT_THAT(ran.rows, ElementsAre("1000-1004 1:2"));
  EXPECT_TRUE(ran.counts.damaged);
}

std::string PathIn(const SectionBytes& bytes, uint64_t file) {
  DwarfSections sections;
  sections.line = bytes.bytes();
  LineProgram program;
  EXPECT_TRUE(program.Open(sections, 0, 8));
  std::string path;
  return program.PathOf(file, "/comp", &path) ? path : "none";
}

TEST(LineProgramTest, PathsAreJoinedAsTheVersionsSay) {
  for (const uint16_t version : {uint16_t{2}, uint16_t{3}, uint16_t{4}}) {
    const SectionBytes bytes = LineProgram4(LineOps(), version);
    EXPECT_EQ(PathIn(bytes, 0), "none");
    EXPECT_EQ(PathIn(bytes, 1), "/comp/a.c");
    EXPECT_EQ(PathIn(bytes, 2), "/comp/sub/b.h");
    EXPECT_EQ(PathIn(bytes, 3), "/abs/c.h");
    EXPECT_EQ(PathIn(bytes, 4), "/d.h");
    EXPECT_EQ(PathIn(bytes, 5), "none");
  }
  const SectionBytes bytes = LineProgram5(LineOps());
  EXPECT_EQ(PathIn(bytes, 0), "/comp/a.c");
  EXPECT_EQ(PathIn(bytes, 1), "/comp/sub/b.h");
  EXPECT_EQ(PathIn(bytes, 2), "/abs/c.h");
  EXPECT_EQ(PathIn(bytes, 3), "none");
}

// More files than any place of a table is known of, and one that the program itself defines.
TEST(LineProgramTest, EveryFileOfALongTableIsFound) {
  SectionBytes tables;
  tables.U8(1).U8(1).U8(1).U8(static_cast<uint8_t>(-5)).U8(14).U8(1);
  for (int i = 1; i <= 40; ++i) tables.Text("dir" + std::to_string(i));
  tables.U8(0);
  for (int i = 1; i <= 200; ++i) {
    tables.Text("file" + std::to_string(i)).Uleb(static_cast<uint64_t>(i) % 50).Uleb(0).Uleb(1000);
  }
  tables.U8(0);
  SectionBytes define;
  define.U8(kLneDefineFile).Text("late").Uleb(3).Uleb(0).Uleb(0);
  SectionBytes out;
  out.U32(0).U16(4).U32(tables.size()).Bytes(tables);
  out.U8(0).Uleb(define.size()).Bytes(define);
  out.SetU32(0, out.size() - 4);
  DwarfSections sections;
  sections.line = out.bytes();
  LineProgram program;
  ASSERT_TRUE(program.Open(sections, 0, 8));
  LineRows rows;
  const CodeFilter filter({});
  std::string path;
  EXPECT_FALSE(program.PathOf(201, "/comp", &path));
  program.Run(filter, &rows);
  for (int i = 1; i <= 200; ++i) {
    ASSERT_TRUE(program.PathOf(static_cast<uint64_t>(i), "/comp", &path)) << i;
    const int directory = i % 50;
    // There are 40 directories; 0 is that of the compilation.
    const std::string expected =
        directory == 0 || directory > 40 ? "" : "dir" + std::to_string(directory) + "/";
    EXPECT_EQ(path, "/comp/" + expected + "file" + std::to_string(i));
  }
  ASSERT_TRUE(program.PathOf(201, "/comp", &path));
  EXPECT_EQ(path, "/comp/dir3/late");
  EXPECT_FALSE(program.PathOf(202, "/comp", &path));
  EXPECT_FALSE(program.PathOf(UINT64_MAX, "/comp", &path));
}

TEST(LineProgramTest, AnyCutIsAnErrorOrLess) {
  const LineOps ops = LineOps().SetAddress(0x1000).Row(1, 0).Row(5, 4).End(4);
  for (const SectionBytes& whole : {LineProgram4(ops), LineProgram5(ops)}) {
    for (size_t size = 0; size < whole.size(); ++size) {
      // Of its own, so that a read beyond is seen.
      const std::vector<std::byte> cut(whole.bytes().begin(),
                                       whole.bytes().begin() + static_cast<std::ptrdiff_t>(size));
      DwarfSections sections;
      sections.line = cut;
      LineProgram program;
      EXPECT_FALSE(program.Open(sections, 0, 8));  // the length leads out
    }
  }
}

// Random sequences that do not overlap, against a map from every address.
TEST(LineRowsTest, SeekFindsWhatEveryAddressHas) {
  std::mt19937 random(7);
  LineRows rows;
  std::map<uint64_t, std::pair<uint32_t, uint32_t>> expected;
  uint64_t address = 0x1000;
  for (int sequence = 0; sequence < 20; ++sequence) {
    address += random() % 20;
    rows.Begin();
    const unsigned count = 1 + random() % 300;
    for (unsigned i = 0; i < count; ++i) {
      const uint32_t file = random() % 3;
      const uint32_t line = random() % 5 == 0 ? 0 : random() % 100000;
      ASSERT_TRUE(rows.Append(address, file, line));
      for (const uint64_t next = address + 1 + random() % 9; address < next; ++address) {
        expected[address] = {file, line};
      }
    }
    ASSERT_TRUE(rows.End(address));
  }
  rows.Finish();
  for (uint64_t at = 0xff0; at < address + 10; ++at) {
    LineRows::Reader reader(rows);
    const bool found = reader.Seek(at) && reader.row().start <= at;
    const auto truth = expected.find(at);
    ASSERT_EQ(found, truth != expected.end()) << at;
    if (found) {
      EXPECT_LT(at, reader.row().end);
      EXPECT_EQ(reader.row().file, truth->second.first);
      EXPECT_EQ(reader.row().line, truth->second.second);
    }
  }
}

}  // namespace
}  // namespace firewatch::symbolizer::dwarf
