// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/rules.h"

#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>
#include <optional>

namespace firewatch::symbolizer {
namespace {

// struct sigcontext of x86-64: r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
constexpr int64_t kSigcontextRbp = 80;
constexpr int64_t kSigcontextRbx = 88;
constexpr int64_t kSigcontextRsp = 120;
constexpr int64_t kSigcontextRip = 128;

template <typename T>
bool Fits(int64_t value) {
  return value >= std::numeric_limits<T>::min() && value <= std::numeric_limits<T>::max();
}

// FW_REGISTER_UNCHANGED is no offset.
bool FitsSavedOffset(int64_t value) {
  return Fits<int16_t>(value) && value != FW_REGISTER_UNCHANGED;
}

fw_unwind_rule EmptyRule(fw_cfa_kind kind) {
  fw_unwind_rule rule;
  std::memset(&rule, 0, sizeof(rule));
  rule.cfa = static_cast<fw_u8>(kind) & 0xf;
  return rule;
}

bool IsSavedAt(const CfiRule& rule, uint8_t reg, int64_t offset) {
  return rule.kind == CfiRule::Kind::kAtRegister && rule.reg == reg && rule.offset == offset;
}

std::optional<RuleWords> SignalRule(const CfiState& state) {
  const CfaRule& cfa = state.cfa;
  if (cfa.kind != CfaRule::Kind::kDeref || cfa.reg != FW_REGISTER_RSP || cfa.addend != 0) {
    return std::nullopt;
  }
  const int64_t context = cfa.offset - kSigcontextRsp;
  if (!Fits<int16_t>(context) ||
      !IsSavedAt(state.return_address, FW_REGISTER_RSP, context + kSigcontextRip) ||
      !IsSavedAt(state.rbp, FW_REGISTER_RSP, context + kSigcontextRbp) ||
      !IsSavedAt(state.rbx, FW_REGISTER_RSP, context + kSigcontextRbx)) {
    return std::nullopt;
  }
  fw_unwind_rule rule = EmptyRule(FW_CFA_SIGNAL);
  rule.base = FW_REGISTER_RSP;
  rule.cfa_offset = static_cast<int16_t>(context);
  return WordsOf(rule, {});
}

// reg + n as an offset from the CFA, where the CFA is based on the same register.
CfiRule RelativeToCfa(const CfiRule& rule, const CfaRule& cfa) {
  if (rule.kind != CfiRule::Kind::kAtRegister || cfa.kind != CfaRule::Kind::kOffset ||
      rule.reg != cfa.reg || !Fits<int32_t>(rule.offset) || !Fits<int32_t>(cfa.offset)) {
    return rule;
  }
  return {.kind = CfiRule::Kind::kAtCfa, .offset = rule.offset - cfa.offset};
}

bool SetCfa(const CfaRule& cfa, fw_unwind_rule* rule, fw_rule_slot* slot) {
  rule->base = cfa.reg & 0xf;
  switch (cfa.kind) {
    case CfaRule::Kind::kOffset:
      if (Fits<int16_t>(cfa.offset)) {
        rule->cfa = FW_CFA_OFFSET;
        rule->cfa_offset = static_cast<int16_t>(cfa.offset);
        return true;
      }
      rule->cfa = FW_CFA_FAR;
      rule->two_slots = 1;
      slot->offset = static_cast<int32_t>(cfa.offset);
      return Fits<int32_t>(cfa.offset);
    case CfaRule::Kind::kDeref:
      rule->cfa = FW_CFA_DEREF;
      rule->two_slots = 1;
      rule->cfa_offset = static_cast<int16_t>(cfa.offset);
      slot->addend = static_cast<int32_t>(cfa.addend);
      return Fits<int16_t>(cfa.offset) && Fits<int32_t>(cfa.addend);
    case CfaRule::Kind::kPlt:
      rule->cfa = FW_CFA_PLT;
      rule->cfa_offset = static_cast<int16_t>(cfa.offset);
      return true;
    case CfaRule::Kind::kUnspecified:
    case CfaRule::Kind::kOther:
      return false;
  }
  return false;
}

bool SetReturnAddress(const CfiRule& where, fw_unwind_rule* rule, fw_rule_slot* slot) {
  switch (where.kind) {
    case CfiRule::Kind::kAtCfa:
      if (where.offset == -8) return true;  // FW_RA_AT_CFA
      rule->ra = FW_RA_AT_SLOT;
      rule->two_slots = 1;
      slot->ra_offset = static_cast<int32_t>(where.offset);  // the same place as far_ra_offset
      return Fits<int32_t>(where.offset);
    case CfiRule::Kind::kRegister:
      rule->ra = FW_RA_IN_REGISTER;
      rule->ra_register = where.reg & 0xf;
      return true;
    default:
      return false;
  }
}

bool SetSaved(const CfiState& state, fw_unwind_rule* rule) {
  const CfiRule saved[] = {RelativeToCfa(state.rbp, state.cfa),
                           RelativeToCfa(state.rbx, state.cfa)};
  int16_t offsets[] = {FW_REGISTER_UNCHANGED, FW_REGISTER_UNCHANGED};
  bool from_cfa = false;
  bool from_rbp = false;
  for (int i = 0; i < 2; ++i) {
    switch (saved[i].kind) {
      case CfiRule::Kind::kUnspecified:
      case CfiRule::Kind::kUndefined:
      case CfiRule::Kind::kSame:
        continue;
      case CfiRule::Kind::kAtCfa:
        from_cfa = true;
        break;
      case CfiRule::Kind::kAtRegister:
        if (saved[i].reg != FW_REGISTER_RBP) return false;
        from_rbp = true;
        break;
      default:
        return false;
    }
    if (!FitsSavedOffset(saved[i].offset)) return false;
    offsets[i] = static_cast<int16_t>(saved[i].offset);
  }
  if (from_cfa && from_rbp) return false;
  rule->saved_from_rbp = from_rbp;
  rule->rbp_offset = offsets[0];
  rule->rbx_offset = offsets[1];
  return true;
}

}  // namespace

static_assert(offsetof(fw_rule_slot, ra_offset) == offsetof(fw_rule_slot, far_ra_offset));

RuleWords WordsOf(const fw_unwind_rule& rule, const fw_rule_slot& slot) {
  return {.rule = std::bit_cast<uint64_t>(rule),
          .slot = rule.two_slots ? std::bit_cast<uint64_t>(slot) : 0};
}
fw_unwind_rule RuleOf(uint64_t word) { return std::bit_cast<fw_unwind_rule>(word); }
fw_rule_slot SlotOf(uint64_t word) { return std::bit_cast<fw_rule_slot>(word); }

RuleWords RootRule() { return WordsOf(EmptyRule(FW_CFA_ROOT), {}); }

RuleWords MakeRule(const CfiState& state, UnsaidPart* unsaid) {
  *unsaid = UnsaidPart::kNothing;
  if (state.return_address.kind == CfiRule::Kind::kUndefined) return RootRule();
  if (const auto signal = SignalRule(state)) return *signal;
  fw_unwind_rule rule = EmptyRule(FW_CFA_NONE);
  fw_rule_slot slot;
  std::memset(&slot, 0, sizeof(slot));
  if (!SetCfa(state.cfa, &rule, &slot)) {
    *unsaid = UnsaidPart::kCfa;
  } else if (!SetReturnAddress(RelativeToCfa(state.return_address, state.cfa), &rule, &slot)) {
    *unsaid = UnsaidPart::kReturnAddress;
  } else if (!SetSaved(state, &rule)) {
    *unsaid = UnsaidPart::kSavedRegister;
  } else {
    return WordsOf(rule, slot);
  }
  return {};
}

}  // namespace firewatch::symbolizer
