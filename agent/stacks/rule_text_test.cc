// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/rule_text.h"

#include <gtest/gtest.h>

namespace firewatch::agent {
namespace {

fw_unwind_rule Rule(uint8_t base, uint8_t cfa, short offset) {
  fw_unwind_rule rule{};
  rule.base = base & 15;
  rule.cfa = cfa & 15;
  rule.cfa_offset = offset;
  rule.rbp_offset = rule.rbx_offset = FW_REGISTER_UNCHANGED;
  return rule;
}

TEST(RuleTextTest, NamesRegistersAndOffsets) {
  fw_unwind_rule rule = Rule(FW_REGISTER_RSP, FW_CFA_OFFSET, 48);
  EXPECT_EQ(RuleText(rule, {}), "cfa=rsp+48");
  rule.rbp_offset = -16;
  rule.rbx_offset = -24;
  EXPECT_EQ(RuleText(rule, {}), "cfa=rsp+48 rbp=cfa-16 rbx=cfa-24");
  rule.saved_from_rbp = 1;
  EXPECT_EQ(RuleText(rule, {}), "cfa=rsp+48 rbp=rbp-16 rbx=rbp-24");
}

TEST(RuleTextTest, SaysWhatIsNoOffsetFromARegister) {
  EXPECT_EQ(RuleText(Rule(0, FW_CFA_NONE, 0), {}), "none");
  EXPECT_EQ(RuleText(Rule(0, FW_CFA_ROOT, 0), {}), "root");
  EXPECT_EQ(RuleText(Rule(FW_REGISTER_RSP, FW_CFA_SIGNAL, 40), {}), "signal");
  fw_rule_slot slot{};
  slot.addend = 8;
  EXPECT_EQ(RuleText(Rule(FW_REGISTER_RBP, FW_CFA_DEREF, -16), slot), "cfa=*(rbp-16)+8");
  fw_unwind_rule popped = Rule(FW_REGISTER_RSP, FW_CFA_OFFSET, 0);
  popped.ra = FW_RA_IN_REGISTER;
  popped.ra_register = FW_REGISTER_RDI;
  EXPECT_EQ(RuleText(popped, {}), "cfa=rsp+0 ra=rdi");
}

}  // namespace
}  // namespace firewatch::agent
