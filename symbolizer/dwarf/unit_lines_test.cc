// SPDX-License-Identifier: Apache-2.0
// The DWARF reader on entries that no compiler at hand makes, or not reliably.
#include "symbolizer/dwarf/unit_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/status.h"
#include "symbolizer/dwarf/dwarf_builder_for_test.h"
#include "symbolizer/dwarf/lookup.h"
#include "symbolizer/dwarf/names_for_test.h"
#include "symbolizer/index/line_build.h"
#include "symbolizer/index/line_table.h"

namespace firewatch::symbolizer::dwarf {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Codes of the abbreviations below.
enum : uint64_t {
  kUnit = 1,      // line program, children
  kFunction,      // name, low_pc, high_pc; children
  kInline,        // origin, low_pc, high_pc, call line; children
  kAbstract,      // name, declaration line; children
  kBlock,         // children
  kClass,         // children
  kBareFunction,  // name, low_pc, high_pc
  kBareInline,    // origin, low_pc, high_pc, call line
  kLoop,          // origin, low_pc, high_pc: a function
  kHidden,        // name through DW_FORM_indirect, low_pc, high_pc
  kConstant,      // origin, low_pc, high_pc, call line as an implicit constant
};

SectionBytes Abbreviations() {
  SectionBytes out;
  out.Bytes(Abbreviated(kUnit, kTagCompileUnit, true,
                        {{kAtCompDir, kFormString}, {kAtStmtList, kFormSecOffset}}));
  out.Bytes(Abbreviated(kFunction, kTagSubprogram, true,
                        {{kAtName, kFormString}, {kAtLowPc, kFormAddr}, {kAtHighPc, kFormData4}}));
  out.Bytes(Abbreviated(kInline, kTagInlinedSubroutine, true,
                        {{kAtAbstractOrigin, kFormRef4},
                         {kAtLowPc, kFormAddr},
                         {kAtHighPc, kFormData4},
                         {kAtCallFile, kFormData1},
                         {kAtCallLine, kFormData1}}));
  out.Bytes(
      Abbreviated(kAbstract, kTagSubprogram, true,
                  {{kAtName, kFormString}, {kAtDeclLine, kFormData1}, {kAtInline, kFormData1}}));
  out.Bytes(Abbreviated(kBlock, kTagLexicalBlock, true, {}));
  out.Bytes(Abbreviated(kClass, 0x13, true, {{kAtName, kFormString}}));
  out.Bytes(Abbreviated(kBareFunction, kTagSubprogram, false,
                        {{kAtName, kFormString}, {kAtLowPc, kFormAddr}, {kAtHighPc, kFormData4}}));
  out.Bytes(Abbreviated(kBareInline, kTagInlinedSubroutine, false,
                        {{kAtAbstractOrigin, kFormRef4},
                         {kAtLowPc, kFormAddr},
                         {kAtHighPc, kFormData4},
                         {kAtCallFile, kFormData1},
                         {kAtCallLine, kFormData1}}));
  out.Bytes(Abbreviated(
      kLoop, kTagSubprogram, false,
      {{kAtAbstractOrigin, kFormRef4}, {kAtLowPc, kFormAddr}, {kAtHighPc, kFormData4}}));
  out.Bytes(
      Abbreviated(kHidden, kTagSubprogram, false,
                  {{kAtName, kFormIndirect}, {kAtLowPc, kFormAddr}, {kAtHighPc, kFormUdata}}));
  // An implicit constant stands in the abbreviation, which the builder has no word for.
  out.Uleb(kConstant).Uleb(kTagInlinedSubroutine).U8(0);
  out.Uleb(kAtAbstractOrigin).Uleb(kFormRef4).Uleb(kAtLowPc).Uleb(kFormAddr);
  out.Uleb(kAtHighPc).Uleb(kFormData4).Uleb(kAtCallLine).Uleb(kFormImplicitConst).Sleb(77);
  out.Uleb(0).Uleb(0);
  return out.Uleb(0);
}

constexpr uint64_t kHeader4 = 11;  // of a unit of version 4

// Sections that own their bytes, and what is at some addresses of them.
class Program {
 public:
  Program(SectionBytes info, const LineOps& lines, SectionBytes abbreviations = Abbreviations())
      : info_(std::move(info)),
        abbreviations_(std::move(abbreviations)),
        line_(LineProgram4(lines)) {
    input_.main.info = info_.bytes();
    input_.main.abbrev = abbreviations_.bytes();
    input_.main.line = line_.bytes();
  }
  DwarfInput& input() { return input_; }
  LineBuildStats& stats() { return stats_; }

  // "function file:line" innermost first; the index and a cold lookup agree.
  std::vector<std::string> At(uint64_t address) {
    VectorSink section;
    NamesForTest names;
    const auto built = BuildLines(input_, {}, names, section);
    EXPECT_TRUE(built.ok()) << base::ToString(built.status());
    if (!built.ok()) return {"error"};
    stats_ = *built;
    const auto table = LineTable::Parse(section.bytes(), static_cast<uint32_t>(names.size()));
    EXPECT_TRUE(table.ok());
    LineFrame frames[300];
    std::vector<std::string> chain;
    const size_t count = table->Find(address, frames);
    for (size_t i = 0; i < count; ++i) {
      chain.push_back(std::string(names.NameOf(table->FunctionAt(frames[i].function).name)) + " " +
                      std::string(names.NameOf(frames[i].file)) + ":" +
                      std::to_string(frames[i].line));
    }
    std::vector<LookupAnswer> cold;
    UnitCounts counts;
    EXPECT_TRUE(LookupAddresses(input_, std::vector<uint64_t>{address}, &cold, &counts).ok());
    std::vector<std::string> cold_chain;
    for (const LookupFrame& frame : cold[0].frames) {
      cold_chain.push_back(std::string(frame.function) + " " + frame.file + ":" +
                           std::to_string(frame.line));
    }
    EXPECT_EQ(chain, cold_chain);
    return chain;
  }

 private:
  SectionBytes info_, abbreviations_, line_;
  DwarfInput input_;
  LineBuildStats stats_;
};

LineOps OneLine() { return LineOps().SetAddress(0x1000).Row(9, 0).End(0x100); }

SectionBytes Unit(const SectionBytes& children, uint16_t version = 4) {
  SectionBytes entries;
  entries.Uleb(kUnit).Text("/c").U32(0).Bytes(children).U8(0);
  return UnitOf(version, 0, entries);
}
// Offset of the first child in such a unit of version 4.
constexpr uint64_t kFirstChild = kHeader4 + 1 + 3 + 4;

SectionBytes AbstractLeaf() {
  return SectionBytes().Uleb(kAbstract).Text("leaf").U8(3).U8(1).U8(0);
}

TEST(UnitLinesTest, InlinedCallsBelowBlocksAndClassesAreFound) {
  SectionBytes children = AbstractLeaf();
  children.Uleb(kFunction).Text("f").U64(0x1000).U32(0x40);
  children.Uleb(kBlock).Uleb(kBlock);
  children.Uleb(kInline).U32(kFirstChild).U64(0x1010).U32(0x20).U8(2).U8(20);
  children.Uleb(kBareInline).U32(kFirstChild).U64(0x1014).U32(4).U8(3).U8(30);
  children.U8(0).U8(0).U8(0);
  // A function in a class in the function, with inlined code of its own.
  children.Uleb(kClass).Text("Local");
  children.Uleb(kFunction).Text("Local::g").U64(0x1080).U32(0x10);
  children.Uleb(kBareInline).U32(kFirstChild).U64(0x1084).U32(4).U8(1).U8(40);
  children.U8(0).U8(0).U8(0);
  Program program(Unit(children), OneLine());
  EXPECT_THAT(program.At(0x1000), ElementsAre("f /c/a.c:10"));
  EXPECT_THAT(program.At(0x1010), ElementsAre("leaf /c/a.c:10", "f /c/sub/b.h:20"));
  EXPECT_THAT(program.At(0x1015),
              ElementsAre("leaf /c/a.c:10", "leaf /abs/c.h:30", "f /c/sub/b.h:20"));
  EXPECT_THAT(program.At(0x1018), ElementsAre("leaf /c/a.c:10", "f /c/sub/b.h:20"));
  EXPECT_THAT(program.At(0x1030), ElementsAre("f /c/a.c:10"));
  EXPECT_THAT(program.At(0x1085), ElementsAre("leaf /c/a.c:10", "Local::g /c/a.c:40"));
  EXPECT_EQ(program.stats().functions, 2u);
  EXPECT_EQ(program.stats().inlined, 3u);
}

// What no compiler writes; the attributes of a class are not read.
TEST(UnitLinesTest, AnOriginThatIsNoFunctionGivesNoName) {
  SectionBytes children;
  children.Uleb(kClass).Text("Thing").U8(0);
  children.Uleb(kFunction).Text("f").U64(0x1000).U32(0x40);
  children.Uleb(kBareInline).U32(kFirstChild).U64(0x1010).U32(8).U8(1).U8(20).U8(0);
  Program program(Unit(children), OneLine());
  EXPECT_THAT(program.At(0x1011), ElementsAre(" /c/a.c:10", "f /c/a.c:20"));
  EXPECT_THAT(program.At(0x1020), ElementsAre("f /c/a.c:10"));
  EXPECT_EQ(program.stats().names_missing, 1u);
  EXPECT_EQ(program.stats().units_bad, 0u);
}

TEST(UnitLinesTest, CodeWithoutALineKeepsItsChain) {
  SectionBytes children = AbstractLeaf();
  children.Uleb(kFunction).Text("f").U64(0x5000).U32(0x40);
  children.Uleb(kBareInline).U32(kFirstChild).U64(0x5010).U32(8).U8(1).U8(20).U8(0);
  Program program(Unit(children), OneLine());
  EXPECT_THAT(program.At(0x5011), ElementsAre("leaf :0", "f /c/a.c:20"));
  EXPECT_THAT(program.At(0x5030), ElementsAre("f :0"));
  EXPECT_THAT(program.At(0x1080), ElementsAre(" /c/a.c:10"));  // and a line without a function
  EXPECT_THAT(program.At(0x1100), IsEmpty());
}

TEST(UnitLinesTest, TombstonesHideNothing) {
  SectionBytes children;
  for (const uint64_t gone : {uint64_t{0}, uint64_t{1}, UINT64_MAX, UINT64_MAX - 1}) {
    children.Uleb(kBareFunction).Text("gone").U64(gone).U32(0x2000);
  }
  children.Uleb(kBareFunction).Text("kept").U64(0x1000).U32(0x10);
  Program program(Unit(children), OneLine());
  EXPECT_THAT(program.At(0x1004), ElementsAre("kept /c/a.c:10"));
  EXPECT_THAT(program.At(0x10), IsEmpty());
  program.input().executable = {{0x1000, 0x1100}};
  EXPECT_THAT(program.At(0x1004), ElementsAre("kept /c/a.c:10"));
  EXPECT_EQ(program.stats().functions, 1u);
  EXPECT_GE(program.stats().ranges_dropped, 2u);
}

TEST(UnitLinesTest, CodeAtZeroIsThereWhenItIsExecutable) {
  SectionBytes children;
  children.Uleb(kBareFunction).Text("first").U64(0).U32(0x10);
  Program program(Unit(children), OneLine());
  program.input().executable = {{0, 0x2000}};
  EXPECT_THAT(program.At(4), ElementsAre("first :0"));
}

TEST(UnitLinesTest, RareFormsAreRead) {
  SectionBytes children = AbstractLeaf();
  children.Uleb(kHidden).Uleb(kFormString).Text("hidden").U64(0x1000).Uleb(0x10);
  children.Uleb(kFunction).Text("f").U64(0x1020).U32(0x10);
  children.Uleb(kConstant).U32(kFirstChild).U64(0x1024).U32(4).U8(0);
  Program program(Unit(children), OneLine());
  EXPECT_THAT(program.At(0x1001), ElementsAre("hidden /c/a.c:10"));
  EXPECT_THAT(program.At(0x1025), ElementsAre("leaf /c/a.c:10", "f :77"));
}

TEST(UnitLinesTest, OriginsInACircleEnd) {
  SectionBytes children;
  children.Uleb(kLoop).U32(kFirstChild).U64(0x1000).U32(0x10);
  Program program(Unit(children), OneLine());
  EXPECT_THAT(program.At(0x1001), ElementsAre(" /c/a.c:10"));
  EXPECT_EQ(program.stats().names_missing, 1u);
}

TEST(UnitLinesTest, OriginsOutsideTheUnitAreNone) {
  SectionBytes children;
  children.Uleb(kLoop).U32(0xfffffff0).U64(0x1000).U32(0x10);
  Program program(Unit(children), OneLine());
  EXPECT_THAT(program.At(0x1001), ElementsAre(" /c/a.c:10"));
}

TEST(UnitLinesTest, OfTwoUnitsWithTheSameCodeTheFirstSpeaks) {
  SectionBytes info;
  info.Bytes(Unit(SectionBytes().Uleb(kBareFunction).Text("first").U64(0x1000).U32(0x10)));
  info.Bytes(Unit(SectionBytes().Uleb(kBareFunction).Text("second").U64(0x1000).U32(0x10)));
  info.Bytes(Unit(SectionBytes().Uleb(kBareFunction).Text("third").U64(0x1008).U32(0x18)));
  Program program(info, OneLine());
  EXPECT_THAT(program.At(0x1004), ElementsAre("first /c/a.c:10"));
  EXPECT_THAT(program.At(0x100c), ElementsAre("first /c/a.c:10"));
  EXPECT_THAT(program.At(0x1010), ElementsAre("third /c/a.c:10"));
  EXPECT_GE(program.stats().overlaps, 2u);
}

TEST(UnitLinesTest, ChainsAreCutAtADepthThatNobodyReaches) {
  SectionBytes children = AbstractLeaf();
  children.Uleb(kFunction).Text("f").U64(0x1000).U32(0x80);
  constexpr int kDepth = 100000;
  for (int i = 0; i < kDepth; ++i) {
    children.Uleb(kInline).U32(kFirstChild).U64(0x1000).U32(0x40).U8(1).U8(5);
  }
  for (int i = 0; i <= kDepth; ++i) children.U8(0);
  Program program(Unit(children), OneLine());
  const std::vector<std::string> chain = program.At(0x1000);
  EXPECT_EQ(chain.size(), FunctionWalk::kMaxDepth + 1);
  EXPECT_EQ(chain.back(), "f /c/a.c:5");
}

TEST(UnitLinesTest, DamageInOneUnitLeavesTheOthers) {
  SectionBytes info;
  info.Bytes(Unit(SectionBytes().Uleb(99)));  // no such abbreviation
  info.Bytes(Unit(SectionBytes().Uleb(kBareFunction).Text("kept").U64(0x1000).U32(0x10)));
  info.U32(0x7fffffff).U16(4);  // leads out of the section
  Program program(info, OneLine());
  EXPECT_THAT(program.At(0x1004), ElementsAre("kept /c/a.c:10"));
  EXPECT_EQ(program.stats().units_bad, 2u);
}

TEST(UnitLinesTest, NothingReadableIsAnError) {
  Program program(SectionBytes().U32(0x7fffffff).U16(4), OneLine());
  VectorSink section;
  NamesForTest names;
  EXPECT_EQ(BuildLines(program.input(), {}, names, section).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(BuildLines(DwarfInput(), {}, names, section).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(UnitLinesTest, AnyCutOfASectionIsSafe) {
  SectionBytes children = AbstractLeaf();
  children.Uleb(kFunction).Text("f").U64(0x1000).U32(0x40);
  children.Uleb(kBareInline).U32(kFirstChild).U64(0x1010).U32(8).U8(1).U8(20).U8(0);
  const SectionBytes info = Unit(children);
  const SectionBytes abbreviations = Abbreviations();
  const SectionBytes line = LineProgram4(OneLine());
  const auto cut = [](const SectionBytes& bytes, size_t size) {
    return std::vector<std::byte>(bytes.bytes().begin(),
                                  bytes.bytes().begin() + static_cast<std::ptrdiff_t>(size));
  };
  for (size_t i = 0; i <= info.size(); ++i) {
    for (size_t k = 0; k <= abbreviations.size(); k += 3) {
      const std::vector<std::byte> info_cut = cut(info, i);
      const std::vector<std::byte> abbreviations_cut = cut(abbreviations, k);
      const std::vector<std::byte> line_cut = cut(line, std::min(line.size(), i));
      DwarfInput input;
      input.main.info = info_cut;
      input.main.abbrev = abbreviations_cut;
      input.main.line = line_cut;
      VectorSink section;
      NamesForTest names;
      (void)BuildLines(input, {}, names, section);
    }
  }
}

// A list of many ranges that every function claims would be read again and again.
TEST(UnitLinesTest, ListsThatAreSharedCostNoMoreThanTheyMay) {
  SectionBytes abbreviations;
  abbreviations.Bytes(Abbreviated(kUnit, kTagCompileUnit, true,
                                  {{kAtCompDir, kFormString}, {kAtStmtList, kFormSecOffset}}));
  abbreviations.Bytes(Abbreviated(kFunction, kTagSubprogram, false, {{kAtRanges, kFormSecOffset}}));
  abbreviations.U8(0);
  SectionBytes ranges;
  constexpr uint64_t kRanges = 20000;
  for (uint64_t i = 0; i < kRanges; ++i) ranges.U64(0x1000 + 2 * i).U64(0x1001 + 2 * i);
  ranges.U64(0).U64(0);
  SectionBytes children;
  for (int i = 0; i < 20000; ++i) children.Uleb(kFunction).U32(0);
  Program program(Unit(children), OneLine(), abbreviations);
  program.input().main.ranges = ranges.bytes();
  EXPECT_THAT(program.At(0x1002), ElementsAre(" /c/a.c:10"));
  EXPECT_EQ(program.stats().units_bad, 1u);
  EXPECT_LT(program.stats().functions, 100u);
}

// Units of dwz that are only referred to have a line program, but no code.
TEST(UnitLinesTest, PartialUnitsHaveNoCode) {
  SectionBytes abbreviations;
  abbreviations.Bytes(Abbreviated(kUnit, kTagPartialUnit, true,
                                  {{kAtCompDir, kFormString}, {kAtStmtList, kFormSecOffset}}));
  abbreviations.Bytes(Abbreviations());
  SectionBytes function;
  function.Uleb(kBareFunction).Text("f").U64(0x1000).U32(0x10);
  Program program(Unit(function), OneLine(), abbreviations);
  EXPECT_THAT(program.At(0x1004), IsEmpty());
}

// 280,000 units with one table have been seen in the field.
TEST(AbbreviationsTest, UnitsShareATable) {
  SectionBytes abbreviations;
  for (uint64_t code = 2; code < 2000; ++code) {
    abbreviations.Bytes(Abbreviated(code + 100, kTagVariable, false, {{kAtName, kFormStrp}}));
  }
  abbreviations.Bytes(Abbreviations());
  SectionBytes info;
  constexpr uint64_t kUnits = 20000;
  for (uint64_t i = 0; i < kUnits; ++i) {
    info.Bytes(
        Unit(SectionBytes().Uleb(kBareFunction).Text("f").U64(0x10000 + i * 0x10).U32(0x10)));
  }
  DwarfSections sections;
  sections.info = info.bytes();
  sections.abbrev = abbreviations.bytes();
  const InfoFile file(sections, nullptr);
  ASSERT_EQ(file.unit_offsets().size(), kUnits);
  const UnitShape shape = {.version = 4};
  const auto first = file.abbreviations().Get(0, shape, false);
  ASSERT_NE(first, nullptr);
  for (uint64_t i = 1; i < kUnits; ++i) {
    ASSERT_EQ(file.abbreviations().Get(0, shape, false), first);
  }
  Program program(info, OneLine(), abbreviations);
  EXPECT_THAT(program.At(0x10000 + 0x10 * (kUnits - 1)), ElementsAre("f :0"));
  EXPECT_EQ(program.stats().functions, kUnits);
}

// Tables that begin at every byte of one would take quadratic time.
TEST(AbbreviationsTest, TablesThatOverlapCostNoMoreThanTheyMay) {
  SectionBytes abbreviations;
  for (int i = 0; i < 20000; ++i) abbreviations.U8(1);
  abbreviations.U32(0);
  AbbreviationCache cache(abbreviations.bytes());
  uint64_t compiled = 0;
  for (uint64_t offset = 0; offset < 20000; ++offset) {
    compiled += cache.Get(offset, {.version = 4}, true) != nullptr ? 1 : 0;
  }
  EXPECT_LT(compiled, 1000u);
}

// Each unit tries again what no unit can use: that costs, too.
TEST(AbbreviationsTest, ATableWithoutAnEndCostsWhatWasRead) {
  for (const uint64_t tag : {uint64_t{kTagVariable}, uint64_t{kTagSubprogram}}) {
    SectionBytes abbreviations;
    abbreviations.Bytes(Abbreviated(1, kTagCompileUnit, false, {})).Uleb(0);
    const uint64_t endless = abbreviations.size();
    abbreviations.Uleb(1).Uleb(tag).U8(0);
    for (int i = 0; i < 10000; ++i) abbreviations.Uleb(kAtDeclLine).Uleb(kFormData1);
    AbbreviationCache cache(abbreviations.bytes());
    ASSERT_NE(cache.Get(0, {.version = 4}, false), nullptr);
    for (int i = 0; i < 200; ++i) EXPECT_EQ(cache.Get(endless, {.version = 4}, false), nullptr);
    EXPECT_EQ(cache.Get(0, {.version = 4}, false), nullptr) << tag;
  }
}

}  // namespace
}  // namespace firewatch::symbolizer::dwarf
