// SPDX-License-Identifier: Apache-2.0
// From a row's state to the 8-byte rule of bpf/include/unwind_table.h.
#pragma once

#include <compare>
#include <cstdint>

#include "bpf/include/unwind_table.h"
#include "symbolizer/unwind/cfi_rows.h"

namespace firewatch::symbolizer {

// A rule and its second slot as two words; equal rules are equal words. {0, 0}: FW_CFA_NONE.
struct RuleWords {
  uint64_t rule = 0;
  uint64_t slot = 0;  // 0 unless the rule takes two slots
  bool two_slots() const { return (rule >> 15 & 1) != 0; }
  bool none() const { return rule == 0; }
  friend auto operator<=>(const RuleWords&, const RuleWords&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const RuleWords& words) {
    return H::combine(std::move(state), words.rule, words.slot);
  }
};

RuleWords WordsOf(const fw_unwind_rule& rule, const fw_rule_slot& slot);
fw_unwind_rule RuleOf(uint64_t word);
fw_rule_slot SlotOf(uint64_t word);

// The rule that says the same as the state, in this order:
//   1. return address undefined: ROOT, whatever the rest
//   2. all registers where rt_sigreturn finds them: SIGNAL
//   3. CFA: OFFSET, FAR beyond 16 bits, DEREF, PLT
//   4. return address: at CFA - 8, elsewhere at the CFA (slot), in a register
//   5. rbp, rbx: saved relative to the CFA, or both to rbp (realigned stacks), or unchanged. An
//      undefined one counts as unchanged: nobody may need it.
// NONE when a part of it cannot be said: a wrong caller is worse than none. `unsaid` is then that
// part.
enum class UnsaidPart : uint8_t { kNothing, kCfa, kReturnAddress, kSavedRegister, kCount };
RuleWords MakeRule(const CfiState& state, UnsaidPart* unsaid);

// The rule of a function that ends every stack, e.g. a process's entry point without CFI.
RuleWords RootRule();

}  // namespace firewatch::symbolizer
