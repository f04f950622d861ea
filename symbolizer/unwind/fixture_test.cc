// SPDX-License-Identifier: Apache-2.0
// testdata/unwind_rules.S, assembled by clang: each form of rule as a real assembler and a real
// linker write it, from the ELF file to what the kernel side would find.
#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/unwind/libdw_oracle_for_test.h"
#include "symbolizer/unwind/survey_for_test.h"

namespace firewatch::symbolizer {
namespace {

constexpr short kUnchanged = FW_REGISTER_UNCHANGED;

// Parameter: how it was linked.
class UnwindFixtureTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    path_ = std::string(FIREWATCH_FIXTURES "/") + GetParam();
    auto built = BuildTableOf(path_);
    ASSERT_TRUE(built.ok()) << base::ToString(built.status());
    built_ = std::make_unique<BuiltTable>(*std::move(built));
    const base::UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    const FdByteSource source(fd.get());
    const auto elf = ElfReader::Open(source);
    ASSERT_TRUE(elf.ok());
    segments_ = elf->segments();
  }
  uint64_t OffsetOf(uint64_t vaddr) const {
    for (const ElfSegment& segment : segments_) {
      if (segment.executable && vaddr >= segment.vaddr &&
          vaddr - segment.vaddr < segment.file_size) {
        return segment.file_offset + vaddr - segment.vaddr;
      }
    }
    ADD_FAILURE() << "no segment";
    return 0;
  }
  // From the twin that still has its symbols; stripping moves nothing.
  static uint64_t AddressOf(const std::string& name) {
    const bool own = std::string(GetParam()) == "unwind_rules_debug_frame";
    const std::string twin =
        std::string(FIREWATCH_FIXTURES "/") + (own ? GetParam() : "unwind_rules");
    const base::UniqueFd fd(::open(twin.c_str(), O_RDONLY | O_CLOEXEC));
    const FdByteSource source(fd.get());
    const auto elf = ElfReader::Open(source);
    uint64_t address = 0;
    for (const ElfSection& section : elf->sections()) {
      if (section.type != SHT_SYMTAB) continue;
      const auto strings = elf->ReadStringsOf(section);
      (void)elf->ForEachSymbol(section, [&](const ElfSymbol& symbol) {
        if (strings->At(symbol.name) == name) address = symbol.value;
      });
    }
    EXPECT_NE(address, 0U) << name;
    return address;
  }
  UnwindTable::Rule RuleIn(const std::string& function, int64_t distance) const {
    return built_->table.Find(OffsetOf(AddressOf(function) + static_cast<uint64_t>(distance)));
  }
  void ExpectCfa(const UnwindTable::Rule& found, int kind, int base, int offset) {
    EXPECT_EQ(found.rule.cfa, kind);
    EXPECT_EQ(found.rule.base, base);
    EXPECT_EQ(found.rule.cfa_offset, offset);
  }

  std::string path_;
  std::unique_ptr<BuiltTable> built_;
  std::vector<ElfSegment> segments_;
};

TEST_P(UnwindFixtureTest, PushesMoveTheCfaAndSaveRegisters) {
  ExpectCfa(RuleIn("plain", 0), FW_CFA_OFFSET, FW_REGISTER_RSP, 8);
  EXPECT_EQ(RuleIn("plain", 0).rule.rbp_offset, kUnchanged);
  const auto inside = RuleIn("plain", 2);
  ExpectCfa(inside, FW_CFA_OFFSET, FW_REGISTER_RSP, 24);
  EXPECT_EQ(inside.rule.rbp_offset, -16);
  EXPECT_EQ(inside.rule.rbx_offset, -24);
  EXPECT_EQ(inside.rule.ra, FW_RA_AT_CFA);
  const auto end = RuleIn("plain", 5);
  ExpectCfa(end, FW_CFA_OFFSET, FW_REGISTER_RSP, 8);
  EXPECT_EQ(end.rule.rbx_offset, kUnchanged);
}

TEST_P(UnwindFixtureTest, RememberedStateComesBack) {
  ExpectCfa(RuleIn("remembers", 2), FW_CFA_OFFSET, FW_REGISTER_RSP, 8);
  const auto again = RuleIn("remembers", 3);
  ExpectCfa(again, FW_CFA_OFFSET, FW_REGISTER_RSP, 16);
  EXPECT_EQ(again.rule.rbx_offset, -16);
}

TEST_P(UnwindFixtureTest, OffsetBeyond16BitsTakesASlot) {
  const auto found = RuleIn("far_frame", 7);
  EXPECT_EQ(found.rule.cfa, FW_CFA_FAR);
  EXPECT_TRUE(found.rule.two_slots);
  EXPECT_EQ(found.slot.offset, 100008);
}

TEST_P(UnwindFixtureTest, CfaMayBeBasedOnAScratchRegister) {
  ExpectCfa(RuleIn("from_r11", 3), FW_CFA_OFFSET, 11, 8);
}

TEST_P(UnwindFixtureTest, RealignedStackIsReadThroughItsSlot) {
  const auto found = RuleIn("realigned", 1);
  ExpectCfa(found, FW_CFA_DEREF, FW_REGISTER_RBP, -8);
  EXPECT_EQ(found.slot.addend, 0);
  EXPECT_TRUE(found.rule.saved_from_rbp);
  EXPECT_EQ(found.rule.rbp_offset, 0);
  EXPECT_EQ(found.rule.rbx_offset, -24);
}

TEST_P(UnwindFixtureTest, ReturnAddressInARegisterOrElsewhere) {
  const auto popped = RuleIn("in_register", 1);
  EXPECT_EQ(popped.rule.ra, FW_RA_IN_REGISTER);
  EXPECT_EQ(popped.rule.ra_register, FW_REGISTER_RDI);
  ExpectCfa(popped, FW_CFA_OFFSET, FW_REGISTER_RSP, 0);
  const auto moved = RuleIn("elsewhere", 1);
  EXPECT_EQ(moved.rule.ra, FW_RA_AT_SLOT);
  EXPECT_EQ(moved.slot.ra_offset, -24);
}

TEST_P(UnwindFixtureTest, UndefinedReturnAddressIsARoot) {
  EXPECT_EQ(RuleIn("root", 0).rule.cfa, FW_CFA_ROOT);
  EXPECT_EQ(RuleIn("root", 4).rule.cfa, FW_CFA_ROOT);
}

TEST_P(UnwindFixtureTest, SignalFrameStartsAByteEarly) {
  ExpectCfa(RuleIn("sigreturn", -1), FW_CFA_SIGNAL, FW_REGISTER_RSP, 40);
  ExpectCfa(RuleIn("sigreturn", 0), FW_CFA_SIGNAL, FW_REGISTER_RSP, 40);
  EXPECT_EQ(RuleIn("sigreturn", -2).rule.cfa, FW_CFA_NONE);
}

TEST_P(UnwindFixtureTest, PltRuleDependsOnThePlaceInItsSlot) {
  ExpectCfa(RuleIn("plt", 0), FW_CFA_PLT, FW_REGISTER_RSP, 10);
}

TEST_P(UnwindFixtureTest, WhatCannotBeSaidHasNoRuleAndIsCounted) {
  EXPECT_EQ(RuleIn("unsaid", 0).rule.cfa, FW_CFA_OFFSET);
  EXPECT_EQ(RuleIn("unsaid", 1).rule.cfa, FW_CFA_NONE);
  EXPECT_EQ(built_->table.counts().rows_no_rule, 1U);
  EXPECT_EQ(built_->table.counts().fdes_refused, 0U);
}

TEST_P(UnwindFixtureTest, EntryPointWithoutCfiIsARoot) {
  EXPECT_TRUE(built_->build.entry_is_root);
  EXPECT_EQ(RuleIn("entry", 0).rule.cfa, FW_CFA_ROOT);
  EXPECT_EQ(RuleIn("entry", 6).rule.cfa, FW_CFA_ROOT);
}

TEST_P(UnwindFixtureTest, LibdwReadsTheSame) {
  const OracleCheck check = CompareWithLibdw({path_}, 100, 100, 1);
  EXPECT_GE(check.functions, 11U);
  EXPECT_TRUE(check.disagreements.empty()) << check.disagreements.front();
}

INSTANTIATE_TEST_SUITE_P(Linked, UnwindFixtureTest,
                         testing::Values("unwind_rules", "unwind_rules_stripped",
                                         "unwind_rules_no_sections", "unwind_rules_debug_frame"),
                         [](const auto& test) { return std::string(test.param); });

// 10,000 functions of at least 200 files of this machine, drawn with a fixed seed.
TEST(UnwindOracleTest, LibdwReadsTheSameOnThisMachine) {
  const auto files = ListElfFiles({"/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu"});
  if (files.size() < 200) GTEST_SKIP() << "only " << files.size() << " ELF files in /usr";
  const OracleCheck check = CompareWithLibdw(files, 10'000, 25, 20261122);
  EXPECT_GE(check.functions, 10'000U);
  EXPECT_GE(check.files, 200U);
  EXPECT_GE(check.rows, check.functions);
  // Rows that we cannot say are a handful in libraries of hand-written assembly.
  EXPECT_LE(check.rows_unsaid, check.rows / 1000);
  for (const std::string& text : check.disagreements) ADD_FAILURE() << text;
}

}  // namespace
}  // namespace firewatch::symbolizer
