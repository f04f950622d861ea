// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/cfi_rows.h"

#include "symbolizer/byte_cursor.h"

namespace firewatch::symbolizer {
namespace {

using Kind = CfiRule::Kind;

// DW_CFA_*: in the first three the low six bits are an operand.
enum : uint8_t {
  kAdvanceLoc = 0x40,
  kOffset = 0x80,
  kRestore = 0xc0,
  kNop = 0x00,
  kSetLoc = 0x01,
  kAdvanceLoc1 = 0x02,
  kAdvanceLoc2 = 0x03,
  kAdvanceLoc4 = 0x04,
  kOffsetExtended = 0x05,
  kRestoreExtended = 0x06,
  kUndefined = 0x07,
  kSameValue = 0x08,
  kRegister = 0x09,
  kRememberState = 0x0a,
  kRestoreState = 0x0b,
  kDefCfa = 0x0c,
  kDefCfaRegister = 0x0d,
  kDefCfaOffset = 0x0e,
  kDefCfaExpression = 0x0f,
  kExpression = 0x10,
  kOffsetExtendedSf = 0x11,
  kDefCfaSf = 0x12,
  kDefCfaOffsetSf = 0x13,
  kValOffset = 0x14,
  kValOffsetSf = 0x15,
  kValExpression = 0x16,
  kMipsAdvanceLoc8 = 0x1d,
  kGnuArgsSize = 0x2e,
  kGnuNegativeOffsetExtended = 0x2f,
};

constexpr uint64_t kRbx = 3;
constexpr uint64_t kRbp = 6;
constexpr uint64_t kReturnColumn = 16;

int64_t Product(uint64_t a, int64_t b) {  // wraps: hostile factors
  return static_cast<int64_t>(a * static_cast<uint64_t>(b));
}

class Machine {
 public:
  Machine(const CfiSection& section, const Cie& cie, const CfiState& initial, const Fde* fde,
          std::vector<CfiRow>* rows)
      : section_(section), cie_(cie), initial_(initial), state_(initial), fde_(fde), rows_(rows) {
    if (fde != nullptr) {
      location_ = fde->start;
      end_ = fde->start + fde->size;
      first_row_ = rows->size();
    }
  }

  CfiReason Run(std::span<const std::byte> instructions) {
    ByteCursor cursor(instructions);
    while (!cursor.at_end() && reason_ == CfiReason::kNone && !past_end_) {
      const uint8_t op = cursor.U8();
      const auto low = static_cast<uint8_t>(op & 0x3f);
      switch (op & 0xc0) {
        case kAdvanceLoc:
          Advance(low);
          break;
        case kOffset:
          SetAtCfa(low, Product(cursor.Uleb(), cie_.data_alignment));
          break;
        case kRestore:
          Restore(low);
          break;
        default:
          Extended(op, cursor);
      }
    }
    if (reason_ == CfiReason::kNone && !cursor.ok()) reason_ = CfiReason::kOperand;
    if (reason_ == CfiReason::kNone && fde_ != nullptr && !past_end_) EmitRow();
    return reason_;
  }
  const CfiState& state() const { return state_; }

 private:
  void Extended(uint8_t op, ByteCursor& cursor) {
    switch (op) {
      case kNop:
        break;
      case kSetLoc:
        SetLocation(cursor);
        break;
      case kAdvanceLoc1:
        Advance(cursor.U8());
        break;
      case kAdvanceLoc2:
        Advance(cursor.Fixed<uint16_t>());
        break;
      case kAdvanceLoc4:
        Advance(cursor.Fixed<uint32_t>());
        break;
      case kMipsAdvanceLoc8:
        Advance(cursor.Fixed<uint64_t>());
        break;
      case kRememberState:
        Remember();
        break;
      case kRestoreState:
        Recall();
        break;
      case kDefCfa:
      case kDefCfaSf:
      case kDefCfaRegister:
      case kDefCfaOffset:
      case kDefCfaOffsetSf:
      case kDefCfaExpression:
        DefineCfa(op, cursor);
        break;
      case kGnuArgsSize:
        cursor.Uleb();
        break;
      default:
        SetRegister(op, cursor);
    }
  }

  void DefineCfa(uint8_t op, ByteCursor& cursor) {
    if (op == kDefCfaExpression) {
      state_.cfa = CfaOfExpression(cursor.Take(cursor.Uleb()));
      return;
    }
    CfaRule cfa = {
        .kind = CfaRule::Kind::kOffset, .reg = state_.cfa.reg, .offset = state_.cfa.offset};
    if (op == kDefCfaRegister || op == kDefCfaOffset || op == kDefCfaOffsetSf) {
      // Part of a rule: there must be one of that form.
      if (state_.cfa.kind != CfaRule::Kind::kOffset) return Refuse(CfiReason::kExpressionOnly);
    }
    if (op == kDefCfa || op == kDefCfaSf || op == kDefCfaRegister) {
      const uint64_t reg = cursor.Uleb();
      if (reg >= kReturnColumn) cfa.kind = CfaRule::Kind::kOther;
      cfa.reg = static_cast<uint8_t>(reg & 0xf);
    }
    if (op == kDefCfa || op == kDefCfaOffset) cfa.offset = static_cast<int64_t>(cursor.Uleb());
    if (op == kDefCfaSf || op == kDefCfaOffsetSf) {
      cfa.offset = Product(static_cast<uint64_t>(cursor.Sleb()), cie_.data_alignment);
    }
    state_.cfa = cfa;
  }

  // The instructions that give one register a rule.
  void SetRegister(uint8_t op, ByteCursor& cursor) {
    const uint64_t reg = cursor.Uleb();
    switch (op) {
      case kOffsetExtended:
        return SetAtCfa(reg, Product(cursor.Uleb(), cie_.data_alignment));
      case kOffsetExtendedSf:
        return SetAtCfa(reg, Product(static_cast<uint64_t>(cursor.Sleb()), cie_.data_alignment));
      case kGnuNegativeOffsetExtended:
        return SetAtCfa(reg, Product(0 - cursor.Uleb(), cie_.data_alignment));
      case kRestoreExtended:
        return Restore(reg);
      case kUndefined:
        return Set(reg, {.kind = Kind::kUndefined});
      case kSameValue:
        return Set(reg, {.kind = Kind::kSame});
      case kRegister: {
        const uint64_t holder = cursor.Uleb();
        if (holder >= kReturnColumn) return Set(reg, {.kind = Kind::kOther});
        return Set(reg, {.kind = Kind::kRegister, .reg = static_cast<uint8_t>(holder)});
      }
      case kExpression:
        // Most are of registers that are not kept: do not look.
        if (RuleOf(reg) == nullptr) return cursor.Skip(cursor.Uleb());
        return Set(reg, PlaceOfExpression(cursor.Take(cursor.Uleb())));
      case kValExpression:
        cursor.Skip(cursor.Uleb());
        return Set(reg, {.kind = Kind::kOther});
      case kValOffset:
        cursor.Uleb();
        return Set(reg, {.kind = Kind::kOther});
      case kValOffsetSf:
        cursor.Sleb();
        return Set(reg, {.kind = Kind::kOther});
      default:
        return Refuse(CfiReason::kInstruction);
    }
  }

  template <typename State>
  static auto RuleIn(State& state, uint64_t reg) -> decltype(&state.rbp) {
    switch (reg) {
      case kReturnColumn:
        return &state.return_address;
      case kRbp:
        return &state.rbp;
      case kRbx:
        return &state.rbx;
      default:
        return nullptr;
    }
  }
  CfiRule* RuleOf(uint64_t reg) { return RuleIn(state_, reg); }
  void Set(uint64_t reg, const CfiRule& rule) {
    if (CfiRule* place = RuleOf(reg)) *place = rule;
  }
  void SetAtCfa(uint64_t reg, int64_t offset) {
    Set(reg, {.kind = Kind::kAtCfa, .offset = offset});
  }
  void Restore(uint64_t reg) {
    if (const CfiRule* rule = RuleIn(initial_, reg)) Set(reg, *rule);
  }

  void Remember() {
    if (stack_.size() == kMaxRememberedStates) return Refuse(CfiReason::kStateStack);
    stack_.push_back(state_);
  }
  void Recall() {
    if (stack_.empty()) return Refuse(CfiReason::kStateStack);
    state_ = stack_.back();
    stack_.pop_back();
  }

  void Advance(uint64_t delta) { MoveTo(location_ + delta * cie_.code_alignment); }
  void SetLocation(ByteCursor& cursor) {
    const std::byte* here = cursor.rest().data();
    const auto offset = static_cast<uint64_t>(here - section_.bytes.data());
    const auto to =
        ReadEncodedPointer(section_, cie_.pointer_encoding, section_.vaddr + offset, cursor);
    if (!to) return Refuse(cursor.ok() ? CfiReason::kPointer : CfiReason::kOperand);
    MoveTo(*to);
  }
  void MoveTo(uint64_t to) {
    if (fde_ == nullptr || to == location_) return;  // a CIE has no place
    if (to < location_) return Refuse(CfiReason::kLocation);
    EmitRow();
    location_ = to;
    past_end_ = to >= end_;
  }
  void EmitRow() {
    if (rows_->size() - first_row_ == kMaxRowsPerFde) return Refuse(CfiReason::kLimit);
    rows_->push_back({.vaddr = location_, .state = state_});
  }
  void Refuse(CfiReason reason) { reason_ = reason; }

  const CfiSection& section_;
  const Cie& cie_;
  const CfiState& initial_;
  CfiState state_;
  const Fde* fde_;
  std::vector<CfiRow>* rows_;
  size_t first_row_ = 0;
  uint64_t location_ = 0;
  uint64_t end_ = 0;
  bool past_end_ = false;
  CfiReason reason_ = CfiReason::kNone;
  std::vector<CfiState> stack_;
};

}  // namespace

CfiReason RunCie(const CfiSection& section, const Cie& cie, CfiState* initial) {
  const CfiState unspecified;
  Machine machine(section, cie, unspecified, nullptr, nullptr);
  const CfiReason reason = machine.Run(cie.instructions);
  *initial = machine.state();
  return reason;
}

CfiReason RunFde(const CfiSection& section, const Cie& cie, const CfiState& initial, const Fde& fde,
                 std::vector<CfiRow>* rows) {
  return Machine(section, cie, initial, &fde, rows).Run(fde.instructions);
}

}  // namespace firewatch::symbolizer
