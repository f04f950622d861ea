// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/rule_text.h"

#include <fmt/format.h>

namespace firewatch::agent {
namespace {

constexpr const char* kRegisters[FW_REGISTER_COUNT] = {"rax", "rdx", "rcx", "rbx", "rsi", "rdi",
                                                       "rbp", "rsp", "r8",  "r9",  "r10", "r11",
                                                       "r12", "r13", "r14", "r15"};

std::string CfaText(const fw_unwind_rule& rule, const fw_rule_slot& slot) {
  const char* base = kRegisters[rule.base];
  switch (rule.cfa) {
    case FW_CFA_OFFSET:
      return fmt::format("cfa={}{:+}", base, rule.cfa_offset);
    case FW_CFA_DEREF:
      return fmt::format("cfa=*({}{:+}){:+}", base, rule.cfa_offset, slot.addend);
    case FW_CFA_PLT:
      return fmt::format("plt at {}", rule.cfa_offset);
    case FW_CFA_FAR:
      return fmt::format("cfa={}{:+}", base, slot.offset);
    default:
      return fmt::format("kind {}", static_cast<int>(rule.cfa));
  }
}

}  // namespace

std::string RuleText(const fw_unwind_rule& rule, const fw_rule_slot& slot) {
  if (rule.cfa == FW_CFA_NONE) return "none";
  if (rule.cfa == FW_CFA_ROOT) return "root";
  if (rule.cfa == FW_CFA_SIGNAL) return "signal";
  std::string text = CfaText(rule, slot);
  const char* from = rule.saved_from_rbp ? "rbp" : "cfa";
  if (rule.rbp_offset != FW_REGISTER_UNCHANGED) {
    text += fmt::format(" rbp={}{:+}", from, rule.rbp_offset);
  }
  if (rule.rbx_offset != FW_REGISTER_UNCHANGED) {
    text += fmt::format(" rbx={}{:+}", from, rule.rbx_offset);
  }
  if (rule.ra == FW_RA_IN_REGISTER) text += fmt::format(" ra={}", kRegisters[rule.ra_register]);
  if (rule.ra == FW_RA_AT_SLOT) text += fmt::format(" ra=cfa{:+}", slot.ra_offset);
  return text;
}

}  // namespace firewatch::agent
