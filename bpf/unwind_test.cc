// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The walk of bpf/unwind.h as a host program: the same text that runs in the kernel, on stacks,
// mappings and tables made by hand, under sanitizers. Frame pointers alone:
// unwind_frame_pointer_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "bpf/unwind_fixture.h"

namespace firewatch::bpf {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

// ---- rules ----

TEST_F(UnwindTest, FieldsOfARuleAreWhereItsStructHasThem) {
  const fw_u64 word = Rule{.base = kRbx,
                           .cfa = FW_CFA_DEREF,
                           .ra_register = 5,
                           .ra = FW_RA_AT_SLOT,
                           .saved_from_rbp = 1,
                           .two_slots = 1,
                           .offset = 0xfff0,
                           .rbp = 0x1234,
                           .rbx = 0xfff8}
                          .word();
  fw_unwind_rule rule;
  std::memcpy(&rule, &word, sizeof(rule));
  EXPECT_EQ(rule.base, fw_rule_base(word));
  EXPECT_EQ(rule.cfa, fw_rule_cfa(word));
  EXPECT_EQ(rule.ra_register, fw_rule_ra_register(word));
  EXPECT_EQ(rule.ra, fw_rule_ra(word));
  EXPECT_EQ(rule.saved_from_rbp, fw_rule_saved_from_rbp(word));
  EXPECT_EQ(rule.two_slots, fw_rule_two_slots(word));
  EXPECT_EQ(rule.cfa_offset, static_cast<long long>(fw_rule_cfa_offset(word)));
  EXPECT_EQ(rule.rbp_offset, static_cast<long long>(fw_rule_rbp_offset(word)));
  EXPECT_EQ(rule.rbx_offset, static_cast<long long>(fw_rule_rbx_offset(word)));
}

TEST_F(UnwindTest, FollowsStackPointerRulesToTheRoot) {
  AddCode({{kCode, RspPlus(24)}, {kCode + 0x100, RspPlus(8)}, {kCode + 0x200, kRoot}});
  Write(kStack + 16, Return(kCode + 0x110));
  Write(kStack + 24, Return(kCode + 0x210));
  EXPECT_THAT(Walk(kCode + 4), ElementsAre(CodeFrame(kCode + 4), CodeFrame(kCode + 0x110),
                                           CodeFrame(kCode + 0x210)));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
}

TEST_F(UnwindTest, ReturnAddressBehindItsFunctionBelongsToTheCall) {
  // A call that never returns ends its function: the return address is the next one's.
  AddCode({{kCode, RspPlus(8)}, {kCode + 0x100, kRoot}, {kCode + 0x110, RspPlus(8)}});
  Write(kStack, kCode + 0x110);
  EXPECT_THAT(Walk(), ElementsAre(CodeFrame(kCode), CodeFrame(kCode + 0x10f)));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
}

TEST_F(UnwindTest, RestoresRbpAndRbxForTheRulesThatNeedThem) {
  AddCode(
      {{kCode, {.offset = 32, .rbp = static_cast<fw_u64>(-16), .rbx = static_cast<fw_u64>(-24)}},
       {kCode + 0x100, {.base = kRbp, .offset = 16, .rbp = static_cast<fw_u64>(-16)}},
       {kCode + 0x200, {.base = kRbx, .offset = 16}},
       {kCode + 0x300, kRoot}});
  rbp() = reg(kRbx) = 1;
  Write(kStack + 8, kStack + 0x200);   // rbx
  Write(kStack + 16, kStack + 0x100);  // rbp
  Write(kStack + 24, Return(kCode + 0x100));
  Write(kStack + 0x100, 77);  // rbp
  Write(kStack + 0x108, Return(kCode + 0x200));
  Write(kStack + 0x208, Return(kCode + 0x300));
  EXPECT_THAT(Walk(), SizeIs(4));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
  EXPECT_EQ(rbp(), 77u);
  EXPECT_EQ(rsp(), kStack + 0x210);
}

TEST_F(UnwindTest, LeafMayKeepItsCfaInAnyRegister) {
  // OpenSSL: CFA = rax + 8 or r11 + 8 while rsp is something else.
  for (const fw_u64 base : {0u, 1u, 2u, 4u, 5u, 8u, 9u, 10u, 11u, 12u, 13u, 14u, 15u}) {
    process_ = {};
    AddCode({{kCode, {.base = base, .offset = 8}}, {kCode + 0x100, kRoot}});
    rsp() = kStack;
    reg(base) = kStack + 0x80;
    Write(kStack + 0x80, Return(kCode + 0x100));
    EXPECT_THAT(Walk(), SizeIs(2)) << base;
    EXPECT_EQ(end(), FW_STACK_END_ROOT);
  }
}

TEST_F(UnwindTest, PltSlotHasOneWordMoreAfterItsPush) {
  AddCode({{kCode, {.cfa = FW_CFA_PLT, .offset = 11}}, {kCode + 0x100, kRoot}});
  Write(kStack, 5);  // the pushed index, or the return address
  Write(kStack + 8, Return(kCode + 0x100));
  for (const fw_u64 at : {11u, 15u, 27u}) {
    rsp() = kStack;
    EXPECT_THAT(Walk(kCode + at), ElementsAre(CodeFrame(kCode + at), CodeFrame(kCode + 0x100)));
  }
  Write(kStack, Return(kCode + 0x100));
  for (const fw_u64 at : {0u, 6u, 10u, 26u}) {
    rsp() = kStack;
    EXPECT_THAT(Walk(kCode + at), ElementsAre(CodeFrame(kCode + at), CodeFrame(kCode + 0x100)));
  }
}

TEST_F(UnwindTest, RealignedStackFindsItsCfaThroughAWord) {
  // DRAP: CFA = *(rbp - 8); rbp and rbx are saved where rbp points.
  AddCode({{kCode,
            {.base = kRbp,
             .cfa = FW_CFA_DEREF,
             .saved_from_rbp = 1,
             .two_slots = 1,
             .offset = static_cast<fw_u64>(-8),
             .rbp = 0,
             .rbx = static_cast<fw_u64>(-16),
             .slot = 16}},
           {kCode + 0x100, kRoot}});
  rbp() = kStack + 0x40;
  Write(kStack + 0x30, 33);             // rbx
  Write(kStack + 0x38, kStack + 0x80);  // CFA - 16
  Write(kStack + 0x40, 66);             // rbp
  Write(kStack + 0x88, Return(kCode + 0x100));
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
  EXPECT_EQ(rsp(), kStack + 0x90);
  EXPECT_EQ(rbp(), 66u);
  EXPECT_EQ(reg(kRbx), 33u);
}

TEST_F(UnwindTest, OffsetsBeyond16BitsStandInTheSecondSlot) {
  AddCode({{kCode, {.cfa = FW_CFA_FAR, .two_slots = 1, .offset = 0, .slot = 0x100008}},
           {kCode + 0x100, kRoot}});
  Write(kStack + 0x100000, Return(kCode + 0x100));
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
}

TEST_F(UnwindTest, ReturnAddressMayStandAwayFromTheCfa) {
  AddCode({{kCode,
            {.ra = FW_RA_AT_SLOT,
             .two_slots = 1,
             .offset = 64,
             .slot = fw_u64{0xffffffe0} << 32}},  // -32
           {kCode + 0x100, kRoot}});
  Write(kStack + 32, Return(kCode + 0x100));
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
  EXPECT_EQ(rsp(), kStack + 64);
}

TEST_F(UnwindTest, LeafThatPoppedItsReturnAddressStaysInPlace) {
  // vfork: the return address is in rdi during the system call.
  AddCode({{kCode, {.ra_register = FW_REGISTER_RDI, .ra = FW_RA_IN_REGISTER, .offset = 0}},
           {kCode + 0x100, kRoot}});
  reg(FW_REGISTER_RDI) = Return(kCode + 0x100);
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
  EXPECT_EQ(rsp(), kStack);
}

TEST_F(UnwindTest, OnlyALeafMayStayInPlace) {
  AddCode({{kCode, {.ra_register = FW_REGISTER_RDI, .ra = FW_RA_IN_REGISTER, .offset = 0}}});
  reg(FW_REGISTER_RDI) = Return(kCode + 8);  // itself
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_NOT_ADVANCING);
}

// ---- signal frames ----

class SignalTest : public UnwindTest {
 protected:
  static constexpr fw_u64 kRestorer = kCode + 0x100;
  SignalTest() {
    AddCode({{kCode, RspPlus(8)},
             {kRestorer - 1, {.cfa = FW_CFA_SIGNAL, .offset = 40}},
             {kCode + 0x200, RspPlus(8)},
             {kCode + 0x300, kRoot}});
    Write(kStack, kRestorer);
  }
  // What was interrupted, in the frame whose ucontext is at `at`.
  void WriteContext(fw_u64 at, fw_u64 ip, fw_u64 sp) {
    for (fw_u64 i = 0; i < FW_SIGCONTEXT_WORDS; ++i) Write(at + 40 + 8 * i, 1000 + i);
    Write(at + 40 + 8 * 15, sp);
    Write(at + 40 + 8 * 16, ip);
  }
};

TEST_F(SignalTest, RestoresEveryRegisterAndTheExactAddress) {
  // Interrupted at the first instruction of a function: one less would be the function before.
  WriteContext(kStack + 8, kCode + 0x300, kStack + 0x400);
  EXPECT_THAT(Walk(),
              ElementsAre(CodeFrame(kCode), CodeFrame(kRestorer - 1), CodeFrame(kCode + 0x300)));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
  for (fw_u64 i = 0; i < 8; ++i) EXPECT_EQ(reg(8 + i), 1000 + i);
  EXPECT_EQ(reg(FW_REGISTER_RDI), 1008u);
  EXPECT_EQ(reg(FW_REGISTER_RSI), 1009u);
  EXPECT_EQ(rbp(), 1010u);
  EXPECT_EQ(reg(FW_REGISTER_RBX), 1011u);
  EXPECT_EQ(reg(FW_REGISTER_RDX), 1012u);
  EXPECT_EQ(reg(FW_REGISTER_RAX), 1013u);
  EXPECT_EQ(reg(FW_REGISTER_RCX), 1014u);
  EXPECT_EQ(rsp(), kStack + 0x400);
}

TEST_F(SignalTest, AlternateStackMayLieAboveOrBelow) {
  for (const fw_u64 interrupted : {kStack - 0x10000, kStack + 0x10000}) {
    rsp() = kStack;
    WriteContext(kStack + 8, kCode + 0x200, interrupted);
    Write(interrupted, Return(kCode + 0x300));
    EXPECT_THAT(Walk(), SizeIs(4));
    EXPECT_EQ(end(), FW_STACK_END_ROOT);
  }
}

TEST_F(SignalTest, ContextThatLeadsBackEndsTheWalk) {
  WriteContext(kStack + 8, kCode, kStack);
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_NOT_ADVANCING);
}

TEST_F(SignalTest, UnreadableContextEndsTheWalk) {
  rsp() = kStack + 4096 - 16;
  Write(rsp(), kRestorer);  // the context would be on the next page
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_BAD_READ);
}

TEST_F(SignalTest, SigreturnStubWithoutRulesIsKnownByItsCode) {
  const fw_u64 stub = kCode + 0x1000;
  const std::initializer_list<fw_u8> forms[] = {
      {0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05},
      {0xb8, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x90, 0x90}};
  process_.slabs.clear();
  process_.mappings.clear();
  AddCode({{kCode, RspPlus(8)}, {kCode + 0x300, kRoot}, {kCode + 0x400, kNone}});
  for (const auto& form : forms) {
    rsp() = kStack;
    WriteBytes(stub, form);
    Write(kStack, stub);
    WriteContext(kStack + 8, kCode + 0x300, kStack + 0x400);
    EXPECT_THAT(Walk(), SizeIs(3));
    EXPECT_EQ(end(), FW_STACK_END_ROOT);
  }
  WriteByte(stub + 1, 0x0e);  // another system call
  rsp() = kStack;
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_NO_RULE);
}

// ---- ends ----

TEST_F(UnwindTest, CutsAtTheLimitAndSaysSo) {
  AddCode({{kCode, RspPlus(16)}});
  for (fw_u64 i = 0; i < 2000; ++i) Write(kStack + 16 * i + 8, Return(kCode + i));
  EXPECT_THAT(Walk(), SizeIs(FW_MAX_USER_FRAMES));
  EXPECT_EQ(end(), FW_STACK_END_TRUNCATED);
  rsp() = kStack;
  first_ = FW_MAX_KERNEL_FRAMES;
  EXPECT_THAT(Walk(), SizeIs(FW_MAX_USER_FRAMES));
  EXPECT_EQ(walk_->next, FW_WALK_FRAMES);
  EXPECT_EQ(frames_[FW_MAX_KERNEL_FRAMES - 1], 0xdeadu);
}

TEST_F(UnwindTest, AStackOfExactlyTheLimitIsNotCut) {
  AddCode({{kCode, RspPlus(16)}, {kCode + 0x1000, kRoot}});
  for (fw_u64 i = 0; i + 1 < FW_MAX_USER_FRAMES; ++i) {
    Write(kStack + 16 * i + 8, Return(i + 2 == FW_MAX_USER_FRAMES ? kCode + 0x1000 : kCode + 8));
  }
  EXPECT_THAT(Walk(), SizeIs(FW_MAX_USER_FRAMES));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
}

TEST_F(UnwindTest, FrameThatIsNotAboveItsCalleeEndsTheWalk) {
  AddCode({{kCode, RspPlus(0)},
           {kCode + 0x100, {.offset = static_cast<fw_u64>(-16)}},
           {kCode + 0x200, {.base = kRbp, .offset = 16, .rbp = static_cast<fw_u64>(-16)}}});
  rbp() = kStack - 64;
  for (fw_u64 i = 0; i < 32; ++i) Write(kStack - 128 + 8 * i, Return(kCode));
  for (const fw_u64 ip : {kCode, kCode + 0x100, kCode + 0x200}) {
    rsp() = kStack;
    EXPECT_THAT(Walk(ip), ElementsAre(CodeFrame(ip)));
    EXPECT_EQ(end(), FW_STACK_END_NOT_ADVANCING);
  }
}

TEST_F(UnwindTest, UnreadableStackEndsTheWalkWithWhatIsKnown) {
  AddCode({{kCode, RspPlus(8)}, {kCode + 0x100, RspPlus(0x2000)}});
  Write(kStack, Return(kCode + 0x100));
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_BAD_READ);
}

TEST_F(UnwindTest, ReturnToNowhereIsNotAFrame) {
  AddCode({{kCode, RspPlus(8)}});
  AddMapping(0x10000000, 0x10001000, FW_MAPPING_NONE);  // there, but not executable
  for (const fw_u64 address :
       {fw_u64{0}, fw_u64{1}, fw_u64{0x600000}, fw_u64{0x10000010}, fw_u64{1} << 56, ~fw_u64{0}}) {
    rsp() = kStack;
    Write(kStack, address);
    EXPECT_THAT(Walk(), ElementsAre(CodeFrame(kCode))) << std::hex << address;
    EXPECT_EQ(end(), FW_STACK_END_NO_MAPPING);
  }
}

TEST_F(UnwindTest, CallThroughANullPointerKeepsItsLeaf) {
  EXPECT_THAT(Walk(0), ElementsAre(0u));
  EXPECT_EQ(end(), FW_STACK_END_NO_MAPPING);
}

// The registers that a signal frame holds are the process's own affair.
TEST_F(UnwindTest, AnInterruptedAddressThatIsNoneLooksLikeNoFile) {
  const fw_u64 garbage = FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | 0x77'0000'1234;
  EXPECT_THAT(Walk(garbage), ElementsAre(0x77'0000'1234u));
  EXPECT_EQ(end(), FW_STACK_END_NO_MAPPING);
}

// ---- without a rule ----

TEST_F(UnwindTest, SaysWhyThereIsNoRule) {
  AddCode({{kCode + 0x100, RspPlus(8)}, {kCode + 0x200, kNone}});
  fw_mapping& other = AddMapping(0x600000, 0x601000, FW_MAPPING_FILE);
  other.file_id = 8;
  other.table = FW_NO_TABLE;
  AddMapping(0x700000, 0x701000, FW_MAPPING_NEW_FILE);
  AddMapping(0x800000, 0x801000, FW_MAPPING_ANONYMOUS);
  const std::map<fw_u64, fw_stack_end> expected = {
      {kCode, FW_STACK_END_NO_RULE},            // on the page, before the first row
      {kCode + 0x210, FW_STACK_END_NO_RULE},    // between functions
      {kCode + 0x10000, FW_STACK_END_NO_RULE},  // behind the last page
      {0x600010, FW_STACK_END_NO_TABLE},       {0x700010, FW_STACK_END_NO_TABLE},
      {0x800010, FW_STACK_END_NO_MAPPING}};
  for (const auto& [ip, why] : expected) {
    EXPECT_THAT(Walk(ip), SizeIs(1)) << std::hex << ip;
    EXPECT_EQ(end(), why) << std::hex << ip;
  }
  EXPECT_THAT(Walk(0x600010), ElementsAre(FileFrame(8, 0x10)));
  EXPECT_THAT(Walk(0x700010), ElementsAre(0x700010u));
  process_.tables[0].state = FW_TABLE_ABSENT;
  EXPECT_THAT(Walk(kCode + 0x100), SizeIs(1));
  EXPECT_EQ(end(), FW_STACK_END_NO_TABLE);
}

TEST_F(UnwindTest, FramePointerLeadsThroughCodeWithoutRulesBackToTables) {
  AddCode({{kCode, RspPlus(24)}, {kCode + 0x100, kRoot}});
  AddMapping(0x800000, 0x801000, FW_MAPPING_ANONYMOUS);
  rbp() = kStack + 0x20;
  Write(kStack + 0x20, kStack + 0x40);
  Write(kStack + 0x28, Return(0x800020));
  Write(kStack + 0x40, 0);
  Write(kStack + 0x48, Return(kCode + 8));
  Write(kStack + 0x60, Return(kCode + 0x100));
  EXPECT_THAT(Walk(0x800010),
              ElementsAre(0x800010u, 0x800020u, CodeFrame(kCode + 8), CodeFrame(kCode + 0x100)));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
}

TEST_F(UnwindTest, FramePointerIsNotTrustedWithoutCodeBehindIt) {
  AddCode({});
  rbp() = kStack + 0x20;
  Write(kStack + 0x20, kStack + 0x40);
  for (const fw_u64 address : {fw_u64{0}, fw_u64{0x600000}, fw_u64{1} << 60}) {
    Write(kStack + 0x28, address);
    EXPECT_THAT(Walk(), SizeIs(1));
    EXPECT_EQ(end(), FW_STACK_END_NO_TABLE);
  }
  rbp() = kStack + 0x100000;  // not readable
  EXPECT_THAT(Walk(), SizeIs(1));
  EXPECT_EQ(end(), FW_STACK_END_NO_TABLE);
}

TEST_F(UnwindTest, FramePointerIsTrustedWhereMappingsCannotBeRead) {
  process_.mappings_unreadable = true;
  rbp() = kStack + 0x20;
  Write(kStack + 0x20, 0);
  Write(kStack + 0x28, Return(kCode + 16));
  EXPECT_THAT(Walk(), ElementsAre(kCode, kCode + 16));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

// ---- caches ----

TEST_F(UnwindTest, RuleOfAFrameIsSearchedOnce) {
  AddCode({{kCode, RspPlus(16)}, {kCode + 0x100, kRoot}});
  Write(kStack + 8, Return(kCode + 0x100));
  EXPECT_THAT(Walk(), SizeIs(2));
  process_.table_look_ups = 0;
  rsp() = kStack;
  EXPECT_THAT(Walk(), SizeIs(2));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
  EXPECT_EQ(process_.table_look_ups, 0u);
}

TEST_F(UnwindTest, AbsenceOfARuleIsNotKept) {
  AddCode({});
  EXPECT_THAT(Walk(), SizeIs(1));
  EXPECT_EQ(end(), FW_STACK_END_NO_TABLE);
  TableBuilder().Load({{kCodeOffset, kRoot}}, process_, 0);
  EXPECT_THAT(Walk(), SizeIs(1));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
}

TEST_F(UnwindTest, TwoSlotRuleIsNotKept) {
  AddCode({{kCode, {.cfa = FW_CFA_FAR, .two_slots = 1, .slot = 8}}, {kCode + 0x100, kRoot}});
  Write(kStack, Return(kCode + 0x100));
  for (int i = 0; i < 2; ++i) {
    rsp() = kStack;
    process_.table_look_ups = 0;
    EXPECT_THAT(Walk(), SizeIs(2));
    EXPECT_GE(process_.table_look_ups, 1u);
  }
}

TEST_F(UnwindTest, MappingIsLookedUpOncePerWalk) {
  AddCode({{kCode, RspPlus(8)}, {kCode + 0x100, kRoot}});
  fw_mapping& other = AddMapping(0x600000, 0x601000, FW_MAPPING_FILE);
  other.file_id = 8;
  other.table = 1;
  TableBuilder().Load({{0, RspPlus(8)}}, process_, 1);
  for (fw_u64 i = 0; i < 100; ++i) {
    Write(kStack + 8 * i, Return(i == 99 ? kCode + 0x100 : i % 2 ? kCode : 0x600000));
  }
  EXPECT_THAT(Walk(), SizeIs(101));
  EXPECT_EQ(end(), FW_STACK_END_ROOT);
  EXPECT_EQ(process_.mapping_look_ups, 2u);
}

TEST_F(UnwindTest, MoreMappingsThanTheCacheHoldsGiveTheSameFrames) {
  constexpr fw_u64 kMappings = 40;
  for (fw_u64 i = 0; i < kMappings; ++i) {
    fw_mapping& mapping = AddMapping(0x600000 + 0x1000 * i, 0x601000 + 0x1000 * i, FW_MAPPING_FILE);
    mapping.file_id = static_cast<fw_u32>(100 + i);
    mapping.table = static_cast<fw_u32>(i);
    TableBuilder().Load({{0, RspPlus(8)}}, process_, static_cast<fw_u32>(i));
  }
  std::vector<fw_u64> expected;
  std::mt19937 random(3);
  for (fw_u64 i = 0; i < 300; ++i) {
    const fw_u64 chosen = random() % kMappings;
    Write(kStack + 8 * i, Return(0x600010 + 0x1000 * chosen));
    expected.push_back(FileFrame(100 + chosen, 0x10));
  }
  expected.insert(expected.begin(), FileFrame(100, 0));
  Write(kStack + 8 * 300, 0);
  EXPECT_EQ(Walk(0x600000), expected);
  EXPECT_LT(process_.mapping_look_ups, 300u);
}

TEST_F(UnwindTest, FileOffsetThatDoesNotFitIntoAFrameGivesTheAddress) {
  AddCode({{kCode, kRoot}});
  process_.mappings[0].file_offset = fw_u64{1} << FW_FRAME_FILE_OFFSET_BITS;
  EXPECT_THAT(Walk(), ElementsAre(kCode));
  EXPECT_EQ(end(), FW_STACK_END_NO_TABLE);
}

// ---- the search against a slow twin ----

class SearchTest : public UnwindTest {
 protected:
  // Rows at `count` random places of a few pages, with rules out of `kinds` different ones.
  void Compare(size_t count, size_t kinds, fw_u32 unused_slots, unsigned seed) {
    std::mt19937 random(seed);
    process_ = {};
    AddCode({});
    constexpr fw_u64 kBytes = 3 << FW_PAGE_SHIFT;
    Rows rows;
    rows[kCodeOffset] = RspPlus(8);
    rows[kCodeOffset + kBytes] = kNone;  // the table covers whole pages up to its last row
    for (size_t i = 0; i < count; ++i) {
      const fw_u64 kind = random() % (kinds + 1);
      rows[kCodeOffset + random() % kBytes] = kind == kinds ? kNone : RspPlus(16 + 8 * kind);
    }
    TableBuilder(unused_slots).Load(rows, process_, 0);
    walk_->mapping_count = 0;
    for (int i = 0; i < 1000; ++i) {
      fw_u64 offset = kCodeOffset + random() % kBytes;
      if (i % 3 == 0)
        offset = std::next(rows.begin(), static_cast<long>(random() % rows.size()))->first;
      const Rule& expected = std::prev(rows.upper_bound(offset))->second;
      walk_->address = kCode + offset - kCodeOffset;
      fw_find_mapping(walk_.get());
      fw_search_rule(walk_.get());
      ASSERT_EQ(walk_->rule, expected.cfa == FW_CFA_NONE ? 0 : expected.word())
          << std::hex << offset << " seed " << seed;
    }
  }
};

TEST_F(SearchTest, FindsWhatASlowSearchFinds) {
  unsigned seed = 0;
  for (const size_t rows : {0u, 1u, 2u, 3u, 10u, 500u, 4000u, 20000u}) {
    for (const size_t kinds : {1u, 50u, 190u}) Compare(rows, kinds, 0, ++seed);
  }
}

TEST_F(SearchTest, FindsRareRulesOfAPage) { Compare(400, 60, 250, 1); }
TEST_F(SearchTest, FindsRulesOfAPageWithManyRareOnes) { Compare(2000, 300, 250, 2); }

TEST_F(SearchTest, FindsTheLastRowOfAFullPage) {
  AddCode({});
  Rows rows;
  for (fw_u64 i = 0; i < FW_PAGE_ROWS_MAX; ++i) rows[kCodeOffset + i] = RspPlus(8 + 8 * (i % 100));
  TableBuilder().Load(rows, process_, 0);
  for (const fw_u64 place : {fw_u64{0}, fw_u64{1}, fw_u64{8191}, fw_u64{FW_PAGE_ROWS_MAX - 1}}) {
    walk_->address = kCode + place;
    fw_find_mapping(walk_.get());
    fw_search_rule(walk_.get());
    EXPECT_EQ(walk_->rule, RspPlus(8 + 8 * (place % 100)).word());
  }
}

}  // namespace
}  // namespace firewatch::bpf
