// SPDX-License-Identifier: Apache-2.0
// Entries, rows and their merging, from bytes: odd, broken and hostile ones above all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <span>
#include <vector>

#include "symbolizer/byte_cursor.h"
#include "symbolizer/unwind/cfi_builder_for_test.h"
#include "symbolizer/unwind/table_builder.h"

namespace firewatch::symbolizer {
namespace {

using testing::ElementsAre;

// The code: file offset = address - 0x1000.
constexpr CodeSegment kCode = {.vaddr = 0x1000, .size = 0x10000, .file_offset = 0};

CfiSection SectionOf(const Bytes& bytes, bool is_debug_frame = false) {
  return {.bytes = std::as_bytes(std::span<const uint8_t>(bytes.data(), bytes.size())),
          .vaddr = CfiBuilder::kVaddr,
          .is_debug_frame = is_debug_frame};
}

UnwindBuild Build(const CfiBuilder& builder, uint64_t entry = 0) {
  const CfiSection section = SectionOf(builder.bytes);
  return BuildRows({&section, 1}, {&kCode, 1}, entry);
}

uint64_t Reason(const UnwindBuild& build, CfiReason reason) {
  return build.reasons[static_cast<size_t>(reason)];
}

// "offset:kind" per row, the kind OFFSET with its n.
std::vector<std::string> RowsOf(const UnwindBuild& build) {
  std::vector<std::string> rows;
  for (const TableRow& row : build.source.rows) {
    const fw_unwind_rule rule = RuleOf(build.source.rules[row.rule].rule);
    std::string text = std::to_string(row.offset) + ":";
    text += rule.cfa == FW_CFA_NONE   ? "none"
            : rule.cfa == FW_CFA_ROOT ? "root"
                                      : std::to_string(rule.cfa_offset);
    rows.push_back(text);
  }
  return rows;
}

// One CIE as usual, one FDE of 32 bytes at offset 0x20 with these instructions.
UnwindBuild OneFde(const Bytes& instructions) {
  CfiBuilder builder;
  builder.Fde(builder.Cie(), 0x1020, 32, instructions);
  return Build(builder);
}

TEST(CfiTest, RowsOfAFunctionAndNoneBehindIt) {
  EXPECT_THAT(RowsOf(OneFde({0x41, 0x0e, 16, 0x44, 0x0e, 8})),
              ElementsAre("32:8", "33:16", "37:8", "64:none"));
}

TEST(CfiTest, AllWaysToAdvance) {
  const Bytes instructions = {0x02, 1, 0x0e, 16, 0x03, 1, 0, 0x0e, 24, 0x04, 1, 0, 0, 0, 0x0e, 32};
  const Bytes set_loc = Bytes{0x01} + Little(uint64_t{0x1028}) + Bytes{0x0e, 40};
  const Bytes far = Bytes{0x1d} + Little(uint64_t{2}) + Bytes{0x0e, 48};
  EXPECT_THAT(RowsOf(OneFde(instructions + set_loc + far)),
              ElementsAre("32:8", "33:16", "34:24", "35:32", "40:40", "42:48", "64:none"));
}

TEST(CfiTest, AdvanceByNothingKeepsTheLastRule) {
  EXPECT_THAT(RowsOf(OneFde({0x0e, 16, 0x40, 0x0e, 24})), ElementsAre("32:24", "64:none"));
}

TEST(CfiTest, RowsPastTheEndAreCut) {
  EXPECT_THAT(RowsOf(OneFde({0x41, 0x0e, 16, 0x02, 200, 0x0e, 24})),
              ElementsAre("32:8", "33:16", "64:none"));
}

TEST(CfiTest, EqualNeighboursAreOneRowAlsoAcrossFunctions) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  builder.Fde(cie, 0x1020, 16, {0x44, 0x0e, 8});
  builder.Fde(cie, 0x1030, 16);
  EXPECT_THAT(RowsOf(Build(builder)), ElementsAre("32:8", "64:none"));
}

TEST(CfiTest, PaddingHasNoRowOfItsOwnButALongGapHas) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  builder.Fde(cie, 0x1020, 8);
  builder.Fde(cie, 0x1030, 7, {0x0e, 16});
  builder.Fde(cie, 0x1040, 7);
  EXPECT_THAT(RowsOf(Build(builder)), ElementsAre("32:8", "48:16", "55:none", "64:8", "71:none"));
}

TEST(CfiTest, EveryInstructionOfARegisterIsRead) {
  // Of r12, which is not kept: operands must be skipped exactly, the last one shows it.
  const Bytes all = {0x05, 12,   2,    0x11, 12,   0x7e, 0x2f, 12,   2,  0x06, 12,
                     0x07, 12,   0x08, 12,   0x09, 12,   13,   0x10, 12, 2,    0x77,
                     8,    0x14, 12,   1,    0x15, 12,   0x7f, 0x16, 12, 2,    0x77,
                     8,    0x8c, 2,    0xcc, 0x2e, 0x90, 1,    0x00};
  EXPECT_THAT(RowsOf(OneFde(all + Bytes{0x0e, 80})), ElementsAre("32:80", "64:none"));
}

TEST(CfiTest, SignedFormsScaleByTheDataAlignment) {
  EXPECT_THAT(RowsOf(OneFde({0x13, 0x7e, 0x41, 0x12, 7, 0x7d})),
              ElementsAre("32:16", "33:24", "64:none"));
}

struct Refused {
  const char* name;
  Bytes instructions;
  CfiReason reason;
};
class RefusedTest : public testing::TestWithParam<Refused> {};

TEST_P(RefusedTest, FunctionHasNoRowsAndItsNeighbourHas) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  builder.Fde(cie, 0x1020, 32, GetParam().instructions);
  builder.Fde(cie, 0x1040, 32);
  const UnwindBuild build = Build(builder);
  EXPECT_EQ(Reason(build, GetParam().reason), 1U);
  EXPECT_EQ(build.source.counts.fdes_refused, 1U);
  EXPECT_EQ(build.source.counts.fdes, 2U);
  EXPECT_THAT(RowsOf(build), ElementsAre("64:8", "96:none"));
}

Bytes Repeat(const Bytes& bytes, int times) {
  Bytes out;
  for (int i = 0; i < times; ++i) out += bytes;
  return out;
}

INSTANTIATE_TEST_SUITE_P(
    Cfi, RefusedTest,
    testing::Values(
        Refused{"UnknownInstruction", {0x41, 0x3f}, CfiReason::kInstruction},
        Refused{"OperandCut", {0x0c, 0x87}, CfiReason::kOperand},
        Refused{"EndlessLeb", Bytes{0x0e} + Bytes(20, 0x80) + Bytes{0}, CfiReason::kOperand},
        Refused{"ExpressionLongerThanTheRest", {0x0f, 0xff, 0x01, 0x77}, CfiReason::kOperand},
        Refused{"ExpressionOfAllMemory", Bytes{0x10, 6} + Bytes(9, 0xff) + Bytes{1},
                CfiReason::kOperand},
        Refused{"RestoreWithoutRemember", {0x0b}, CfiReason::kStateStack},
        Refused{"RememberForEver", Repeat({0x0a}, 1000), CfiReason::kStateStack},
        Refused{"BackInPlace", Bytes{0x01} + Little(uint64_t{0x1000}), CfiReason::kLocation},
        Refused{"AdvanceWrapsAround", Bytes{0x41, 0x1d} + Little(~uint64_t{0}),
                CfiReason::kLocation},
        Refused{"OffsetOfAnExpression",
                {0x0f, 2, 0x77, 8, 0x41, 0x0f, 3, 0x77, 8, 6, 0x0e, 16},
                CfiReason::kExpressionOnly}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(CfiTest, RefusedFunctionAfterRowsLeavesNone) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  builder.Fde(cie, 0x1020, 32);
  builder.Fde(cie, 0x1040, 32, {0x41, 0x0e, 16, 0x41, 0x3f});
  EXPECT_THAT(RowsOf(Build(builder)), ElementsAre("32:8", "64:none"));
}

TEST(CfiTest, CieVersionsAndAugmentations) {
  CfiBuilder builder;
  uint64_t at = 0x1000;
  for (const uint8_t version : Bytes{1, 3, 4}) {
    builder.Fde(builder.Cie(CfiBuilder::Usual(), "", {}, version), at += 0x20, 32);
  }
  // pcrel sdata4; personality absptr; LSDA; signal frame. Then an unknown letter behind z.
  const uint32_t full = builder.Cie(CfiBuilder::Usual(), "zPLRSB",
                                    Bytes{0x00} + Little(uint64_t{1}) + Bytes{0x1b, 0x1b});
  const auto pc = static_cast<uint32_t>(CfiBuilder::kVaddr + builder.bytes.size() + 8);
  at += 0x20;
  builder.RawFde(full, Little(static_cast<uint32_t>(at) - pc) + Little(uint32_t{32}) + Bytes{0});
  const uint32_t unknown = builder.Cie(CfiBuilder::Usual(), "zQ", {1, 2, 3});
  at += 0x20;
  builder.RawFde(unknown, Little(at) + Little(uint64_t{32}) + Bytes{0});
  const UnwindBuild build = Build(builder);
  EXPECT_EQ(build.source.counts.fdes, 5U);
  EXPECT_EQ(build.source.counts.fdes_refused, 0U);
  EXPECT_THAT(RowsOf(build), ElementsAre("32:8", "192:none"));
}

TEST(CfiTest, PointersOfEveryEncoding) {
  CfiSection section;
  section.text_vaddr = 0x4000;
  section.data_vaddr = 0x5000;
  section.read_pointer = [](uint64_t vaddr) { return std::optional<uint64_t>(vaddr + 0x100); };
  const Bytes value = {0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0};
  const Bytes negative = {0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  const auto read = [&section](uint8_t encoding, const Bytes& bytes, uint64_t vaddr) {
    ByteCursor cursor(std::as_bytes(std::span<const uint8_t>(bytes.data(), bytes.size())));
    return ReadEncodedPointer(section, encoding, vaddr, cursor).value_or(0xdead);
  };
  for (const uint8_t format : Bytes{0, 1, 2, 3, 4, 8, 9, 10, 11, 12}) {
    EXPECT_EQ(read(format, value, 0), 0x10U) << unsigned{format};
    EXPECT_EQ(read(format | 0x10, value, 0x2000), 0x2010U) << unsigned{format};
  }
  EXPECT_EQ(read(0x1a, negative, 0x2000), 0x1ff0U);
  EXPECT_EQ(read(0x1b, negative, 0x2000), 0x1ff0U);
  EXPECT_EQ(read(0x12, negative, 0x2000), 0x2000U + 0xfff0);
  EXPECT_EQ(read(0x23, value, 0), 0x4010U);
  EXPECT_EQ(read(0x33, value, 0), 0x5010U);
  EXPECT_EQ(read(0x50, Bytes{9, 9, 9} + value, 0x2005), 0x10U);  // aligned: three bytes skipped
  EXPECT_EQ(read(0x80, value, 0), 0x110U);
  EXPECT_EQ(read(0xff, value, 0), 0xdeadU);  // omitted
  EXPECT_EQ(read(0x07, value, 0), 0xdeadU);
  EXPECT_EQ(read(0x40, value, 0), 0xdeadU);  // relative to a function
  EXPECT_EQ(read(0x03, {1, 2}, 0), 0xdeadU);
  section.text_vaddr.reset();
  section.read_pointer = nullptr;
  EXPECT_EQ(read(0x23, value, 0), 0xdeadU);
  EXPECT_EQ(read(0x80, value, 0), 0xdeadU);
}

struct BrokenCie {
  const char* name;
  Bytes body;  // behind the id
  CfiReason reason;
};
class BrokenCieTest : public testing::TestWithParam<BrokenCie> {};

TEST_P(BrokenCieTest, ItsFunctionsAreRefused) {
  CfiBuilder builder;
  const uint32_t broken = builder.Entry(Little(uint32_t{0}) + GetParam().body);
  builder.Fde(broken, 0x1020, 32);
  builder.Fde(builder.Cie(), 0x1040, 32);
  const UnwindBuild build = Build(builder);
  EXPECT_EQ(Reason(build, GetParam().reason), 1U);
  EXPECT_THAT(RowsOf(build), ElementsAre("64:8", "96:none"));
}

INSTANTIATE_TEST_SUITE_P(
    Cfi, BrokenCieTest,
    testing::Values(
        BrokenCie{"Version2", {2, 0, 1, 0x78, 16}, CfiReason::kCieVersion},
        BrokenCie{"Empty", {}, CfiReason::kCieVersion},
        BrokenCie{"EndlessAugmentation", {1, 'z', 'z', 'z'}, CfiReason::kCieTruncated},
        BrokenCie{"UnknownAugmentation", {1, 'Q', 0, 1, 0x78, 16}, CfiReason::kCieAugmentation},
        BrokenCie{"AddressOf4Bytes", {4, 0, 4, 0, 1, 0x78, 16}, CfiReason::kCieAddressSize},
        BrokenCie{"ReturnColumn8", {1, 0, 1, 0x78, 8}, CfiReason::kCieReturnColumn},
        BrokenCie{"AugmentationPastTheEnd",
                  {1, 'z', 'R', 0, 1, 0x78, 16, 200, 0x1b},
                  CfiReason::kCieTruncated},
        BrokenCie{"PersonalityOfNoEncoding",
                  {1, 'z', 'P', 0, 1, 0x78, 16, 2, 0x0f, 0},
                  CfiReason::kPointer},
        BrokenCie{"BadInstruction", {1, 0, 1, 0x78, 16, 0x3f}, CfiReason::kInstruction}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(CfiTest, CiePointersThatHitNoCieAreRefused) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  const uint32_t fde = builder.Fde(cie, 0x1020, 32);
  builder.Fde(fde, 0x1040, 32);                                          // an FDE
  builder.Fde(cie + 4, 0x1060, 32);                                      // the middle of a CIE
  builder.Fde(static_cast<uint32_t>(builder.bytes.size()), 0x1080, 32);  // itself
  builder.RawFde(0, Little(uint64_t{0x10a0}) + Little(uint64_t{32}));
  const UnwindBuild build = Build(builder);
  EXPECT_EQ(Reason(build, CfiReason::kCiePointer), 3U);
  EXPECT_THAT(RowsOf(build), ElementsAre("32:8", "64:none", "160:8", "192:none"));
}

TEST(CfiTest, CiePointerJustBeforeTheSectionOfNoCie) {
  CfiBuilder builder;
  builder.Entry(Little(uint32_t{5}) + Little(uint64_t{0x1020}) + Little(uint64_t{32}));
  EXPECT_EQ(Reason(Build(builder), CfiReason::kCiePointer), 1U);
}

TEST(CfiTest, LengthsThatLie) {
  for (const Bytes& tail : {Little(uint32_t{0x7fffffff}), Little(uint32_t{0xfffffff5}),
                            Little(uint32_t{0xffffffff}) + Little(~uint64_t{0}),
                            Little(uint32_t{0xffffffff}) + Little(uint64_t{1} << 32),
                            Little(uint32_t{0xffffffff}), Little(uint32_t{3}) + Bytes{0, 0, 0}}) {
    CfiBuilder builder;
    builder.Fde(builder.Cie(), 0x1020, 32);
    builder.bytes += tail;
    const UnwindBuild build = Build(builder);
    EXPECT_EQ(Reason(build, CfiReason::kLength), 1U);
    EXPECT_THAT(RowsOf(build), ElementsAre("32:8", "64:none"));
  }
}

TEST(CfiTest, Length64BitHasAFourByteIdInEhFrame) {
  CfiBuilder builder;
  builder.Cie();
  const Bytes body = Little(static_cast<uint32_t>(builder.bytes.size() + 12)) +
                     Little(uint64_t{0x1020}) + Little(uint64_t{32});
  builder.bytes += Little(uint32_t{0xffffffff}) + Little(uint64_t{body.size()}) + body;
  EXPECT_THAT(RowsOf(Build(builder)), ElementsAre("32:8", "64:none"));
}

TEST(CfiTest, ZeroLengthIsSteppedOverUnlessTheSizeIsAGuess) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  builder.Fde(cie, 0x1020, 32);
  builder.bytes += Little(uint32_t{0});
  builder.Fde(cie, 0x1040, 32, {0x0e, 16});
  EXPECT_THAT(RowsOf(Build(builder)), ElementsAre("32:8", "64:16", "96:none"));
  CfiSection guess = SectionOf(builder.bytes);
  guess.ends_at_zero = true;
  EXPECT_THAT(RowsOf(BuildRows({&guess, 1}, {&kCode, 1}, 0)), ElementsAre("32:8", "64:none"));
}

TEST(CfiTest, RangesThatAreEmptyOutsideOrWrapAround) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  builder.Fde(cie, 0x1020, 0);
  builder.Fde(cie, 0, 32);
  builder.Fde(cie, 0x1040, ~uint64_t{0});
  builder.Fde(cie, 0x10ff0, 0x1000);  // past the segment: cut
  const UnwindBuild build = Build(builder);
  EXPECT_EQ(Reason(build, CfiReason::kEmpty), 1U);
  EXPECT_EQ(Reason(build, CfiReason::kNoCode), 1U);
  EXPECT_EQ(Reason(build, CfiReason::kRange), 1U);
  EXPECT_EQ(build.source.counts.fdes_refused, 1U);
  EXPECT_THAT(RowsOf(build), ElementsAre("65520:8", "65536:none"));
}

TEST(CfiTest, OverlapsAreResolvedTheSameWayInAnyOrder) {
  for (const bool reverse : {false, true}) {
    CfiBuilder builder;
    const uint32_t cie = builder.Cie();
    if (!reverse) builder.Fde(cie, 0x1020, 64);
    builder.Fde(cie, 0x1030, 16, {0x0e, 16});
    if (reverse) builder.Fde(cie, 0x1020, 64);
    builder.Fde(cie, 0x1030, 32, {0x0e, 24});  // the same start: the first stays
    const UnwindBuild build = Build(builder);
    EXPECT_EQ(Reason(build, CfiReason::kCovered), 1U);
    EXPECT_THAT(RowsOf(build), ElementsAre("32:8", "48:16", "64:none"));
  }
}

TEST(CfiTest, DebugFrameFillsWhatEhFrameDoesNotCover) {
  CfiBuilder eh;
  eh.Fde(eh.Cie(), 0x1040, 32);
  CfiBuilder debug(true);
  const uint32_t cie = debug.Cie(CfiBuilder::Usual(), "", {}, 4);
  debug.Fde(cie, 0x1030, 32, {0x0e, 32});  // reaches into the other
  debug.Fde(cie, 0x1048, 8, {0x0e, 40});
  debug.Fde(cie, 0x1080, 32, {0x0e, 48});
  const CfiSection sections[] = {SectionOf(eh.bytes), SectionOf(debug.bytes, true)};
  const UnwindBuild build = BuildRows(sections, {&kCode, 1}, 0);
  EXPECT_EQ(Reason(build, CfiReason::kCovered), 2U);
  EXPECT_THAT(RowsOf(build), ElementsAre("64:8", "96:none", "128:48", "160:none"));
}

TEST(CfiTest, EntryPointEndsAtTheNextFunctionAndNeedsNoneWhereOneCoversIt) {
  CfiBuilder builder;
  builder.Fde(builder.Cie(), 0x1040, 32);
  EXPECT_THAT(RowsOf(Build(builder, 0x1020)), ElementsAre("32:root", "64:8", "96:none"));
  EXPECT_THAT(RowsOf(Build(builder, 0x1100)),
              ElementsAre("64:8", "96:none", "256:root", "384:none"));
  EXPECT_THAT(RowsOf(Build(builder, 0x1050)), ElementsAre("64:8", "96:none"));
  EXPECT_THAT(RowsOf(Build(builder, 0x90000000)), ElementsAre("64:8", "96:none"));
}

// A gap behind every function, and a section in every gap: quadratic if each gap met all sections.
TEST(CfiTest, ManyGapsAndManySectionsCostTheirSum) {
  constexpr uint64_t kFunctions = 100'000;
  CfiBuilder builder;
  const uint32_t cie = builder.Cie();
  BareCode bare;
  for (uint64_t i = 0; i < kFunctions; ++i) {
    builder.Fde(cie, 0x1000 + i * 64, 32);
    bare.sections.push_back({.offset = i * 64 + 32, .size = 32});
  }
  uint64_t reads = 0;
  bare.read = [&reads](uint64_t, uint64_t) {
    ++reads;
    return std::span<const std::byte>();
  };
  const CfiSection section = SectionOf(builder.bytes);
  const CodeSegment code = {.vaddr = 0x1000, .size = kFunctions * 64, .file_offset = 0};
  const auto start = std::chrono::steady_clock::now();
  const UnwindBuild build = BuildRows({&section, 1}, {&code, 1}, 0, bare);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_EQ(build.source.rows.size(), 2 * kFunctions);
  EXPECT_EQ(reads, kMaxBareCodeBytes / 32);
}

// Every FDE of a section of 2 MB runs a CIE of 1 MB: quadratic if the CIE ran each time.
TEST(CfiTest, LongCieOfManyFunctionsCostsOnce) {
  CfiBuilder builder;
  const uint32_t cie = builder.Cie(CfiBuilder::Usual() + Bytes(1 << 20, 0x00));
  for (int i = 0; i < 40'000; ++i) builder.Fde(cie, 0x1000 + static_cast<uint64_t>(i), 1);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Build(builder).source.counts.fdes, 40'000U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

}  // namespace
}  // namespace firewatch::symbolizer
