// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/libdw_oracle_for_test.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>

#include <cstdlib>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::symbolizer {
namespace {

// Invented, but the same for both: a register's value, and what stands at an address.
uint64_t Mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}
uint64_t RegisterValue(uint64_t reg) { return Mix(reg + 1) & 0x7ffffffffff8; }
uint64_t MemoryAt(uint64_t address) { return Mix(address ^ 0x5bd1e995); }

constexpr int kRbx = 3;
constexpr int kRbp = 6;
constexpr int kReturnColumn = 16;

struct Value {
  uint64_t bits = 0;
  bool is_address = true;  // of memory that holds it; else it is the value itself
};

std::optional<uint64_t> Constant(const Dwarf_Op& op) {
  if (op.atom >= DW_OP_lit0 && op.atom <= DW_OP_lit31) return op.atom - DW_OP_lit0;
  switch (op.atom) {
    case DW_OP_const1u:
    case DW_OP_const1s:
    case DW_OP_const2u:
    case DW_OP_const2s:
    case DW_OP_const4u:
    case DW_OP_const4s:
    case DW_OP_const8u:
    case DW_OP_const8s:
    case DW_OP_constu:
    case DW_OP_consts:
      return op.number;
    default:
      return std::nullopt;
  }
}

std::optional<uint64_t> Binary(uint8_t atom, uint64_t a, uint64_t b) {
  switch (atom) {
    case DW_OP_plus:
      return a + b;
    case DW_OP_minus:
      return a - b;
    case DW_OP_and:
      return a & b;
    case DW_OP_or:
      return a | b;
    case DW_OP_mul:
      return a * b;
    case DW_OP_shl:
      return b > 63 ? 0 : a << b;
    case DW_OP_shr:
      return b > 63 ? 0 : a >> b;
    case DW_OP_ge:
      return static_cast<int64_t>(a) >= static_cast<int64_t>(b) ? 1 : 0;
    default:
      return std::nullopt;
  }
}

uint64_t ValueOf(uint64_t reg, uint64_t ip) {
  return reg == kReturnColumn ? ip : RegisterValue(reg);
}

// A stack machine for libdw's operations.
std::optional<Value> Evaluate(const Dwarf_Op* ops, size_t count, uint64_t ip, uint64_t cfa) {
  std::vector<uint64_t> stack;
  for (size_t i = 0; i < count; ++i) {
    const Dwarf_Op& op = ops[i];
    if (op.atom >= DW_OP_breg0 && op.atom <= DW_OP_breg31) {
      stack.push_back(ValueOf(op.atom - DW_OP_breg0, ip) + op.number);
    } else if (op.atom == DW_OP_bregx) {
      stack.push_back(ValueOf(op.number, ip) + op.number2);
    } else if (op.atom == DW_OP_regx || (op.atom >= DW_OP_reg0 && op.atom <= DW_OP_reg31)) {
      const uint64_t reg = op.atom == DW_OP_regx ? op.number : op.atom - DW_OP_reg0;
      return Value{.bits = ValueOf(reg, ip), .is_address = false};
    } else if (op.atom == DW_OP_call_frame_cfa) {
      stack.push_back(cfa);
    } else if (const auto constant = Constant(op)) {
      stack.push_back(*constant);
    } else if (op.atom == DW_OP_plus_uconst && !stack.empty()) {
      stack.back() += op.number;
    } else if (op.atom == DW_OP_deref && !stack.empty()) {
      stack.back() = MemoryAt(stack.back());
    } else if (op.atom == DW_OP_stack_value && !stack.empty()) {
      return Value{.bits = stack.back(), .is_address = false};
    } else if (op.atom != DW_OP_nop) {
      if (stack.size() < 2) return std::nullopt;
      const uint64_t b = stack.back();
      stack.pop_back();
      const auto result = Binary(op.atom, stack.back(), b);
      if (!result) return std::nullopt;
      stack.back() = *result;
    }
  }
  if (stack.empty()) return std::nullopt;
  return Value{.bits = stack.back()};
}

enum class Found { kValue, kUndefined, kUnknown };

Found RegisterOf(Dwarf_Frame* frame, int reg, uint64_t ip, uint64_t cfa, uint64_t* value) {
  Dwarf_Op memory[3];
  Dwarf_Op* ops = nullptr;
  size_t count = 0;
  if (dwarf_frame_register(frame, reg, memory, &ops, &count) != 0) return Found::kUnknown;
  if (count == 0 && ops == memory) return Found::kUndefined;
  if (count == 0) {
    *value = RegisterValue(static_cast<uint64_t>(reg));
    return Found::kValue;
  }
  const auto found = Evaluate(ops, count, ip, cfa);
  if (!found) return Found::kUnknown;
  *value = found->is_address ? MemoryAt(found->bits) : found->bits;
  return Found::kValue;
}

std::optional<CallerRegisters> CallerOf(Dwarf_Frame* frame, uint64_t ip) {
  CallerRegisters caller;
  uint64_t value = 0;
  // The return address first: where it is undefined, nothing else counts.
  if (RegisterOf(frame, kReturnColumn, ip, 0, &value) == Found::kUndefined) {
    caller.root = true;
    return caller;
  }
  Dwarf_Op* ops = nullptr;
  size_t count = 0;
  if (dwarf_frame_cfa(frame, &ops, &count) != 0 || count == 0) return std::nullopt;
  const auto cfa = Evaluate(ops, count, ip, 0);
  if (!cfa) return std::nullopt;
  caller.cfa = cfa->bits;
  if (RegisterOf(frame, kReturnColumn, ip, caller.cfa, &caller.return_address) != Found::kValue) {
    return std::nullopt;
  }
  const Found rbp = RegisterOf(frame, kRbp, ip, caller.cfa, &value);
  if (rbp == Found::kUnknown) return std::nullopt;
  if (rbp == Found::kValue) caller.rbp = value;
  const Found rbx = RegisterOf(frame, kRbx, ip, caller.cfa, &value);
  if (rbx == Found::kUnknown) return std::nullopt;
  if (rbx == Found::kValue) caller.rbx = value;
  return caller;
}

class OracleImpl final : public LibdwOracle {
 public:
  ~OracleImpl() override {
    if (own_cfi_ != nullptr) dwarf_cfi_end(own_cfi_);
    if (dwarf_ != nullptr) dwarf_end(dwarf_);
    if (elf_ != nullptr) elf_end(elf_);
  }
  absl::Status Start(const std::string& path) {
    elf_version(EV_CURRENT);
    fd_.Reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd_.valid()) return base::ErrnoStatus(errno, path);
    elf_ = elf_begin(fd_.get(), ELF_C_READ_MMAP, nullptr);
    if (elf_ == nullptr) return base::InvalidArgument("{}: libelf refuses it", path);
    own_cfi_ = dwarf_getcfi_elf(elf_);
    dwarf_ = dwarf_begin_elf(elf_, DWARF_C_READ, nullptr);
    debug_cfi_ = dwarf_ == nullptr ? nullptr : dwarf_getcfi(dwarf_);
    if (own_cfi_ == nullptr && debug_cfi_ == nullptr) return base::NotFound("{}: no CFI", path);
    return absl::OkStatus();
  }
  std::optional<OracleRow> At(uint64_t vaddr) override {
    Dwarf_Frame* frame = nullptr;
    if (own_cfi_ == nullptr || dwarf_cfi_addrframe(own_cfi_, vaddr, &frame) != 0) {
      if (debug_cfi_ == nullptr || dwarf_cfi_addrframe(debug_cfi_, vaddr, &frame) != 0) {
        return std::nullopt;
      }
    }
    OracleRow row;
    dwarf_frame_info(frame, &row.start, &row.end, nullptr);
    row.caller = CallerOf(frame, vaddr);
    std::free(frame);
    return row;
  }

 private:
  base::UniqueFd fd_;
  Elf* elf_ = nullptr;
  Dwarf_CFI* own_cfi_ = nullptr;
  Dwarf* dwarf_ = nullptr;
  Dwarf_CFI* debug_cfi_ = nullptr;  // belongs to dwarf_
};

}  // namespace

absl::StatusOr<std::unique_ptr<LibdwOracle>> LibdwOracle::Open(const std::string& path) {
  auto oracle = std::make_unique<OracleImpl>();
  RETURN_IF_ERROR(oracle->Start(path));
  return oracle;
}

std::optional<CallerRegisters> EvaluateRule(const UnwindTable::Rule& found, uint64_t ip) {
  const fw_unwind_rule& rule = found.rule;
  const auto offset = static_cast<uint64_t>(int64_t{rule.cfa_offset});
  const uint64_t base = RegisterValue(rule.base);
  CallerRegisters caller;
  switch (rule.cfa) {
    case FW_CFA_ROOT:
      caller.root = true;
      return caller;
    case FW_CFA_OFFSET:
      caller.cfa = base + offset;
      break;
    case FW_CFA_DEREF:
      caller.cfa = MemoryAt(base + offset) + static_cast<uint64_t>(int64_t{found.slot.addend});
      break;
    case FW_CFA_PLT:
      caller.cfa = base + 8 + ((ip & 15) >= offset ? 8 : 0);
      break;
    case FW_CFA_SIGNAL:
      caller.cfa = MemoryAt(base + offset + 120);
      caller.return_address = MemoryAt(base + offset + 128);
      caller.rbp = MemoryAt(base + offset + 80);
      caller.rbx = MemoryAt(base + offset + 88);
      return caller;
    case FW_CFA_FAR:
      caller.cfa = base + static_cast<uint64_t>(int64_t{found.slot.offset});
      break;
    default:
      return std::nullopt;
  }
  if (rule.ra == FW_RA_IN_REGISTER) {
    caller.return_address = RegisterValue(rule.ra_register);
  } else {
    const int64_t at = rule.ra == FW_RA_AT_SLOT ? found.slot.ra_offset : -8;
    caller.return_address = MemoryAt(caller.cfa + static_cast<uint64_t>(at));
  }
  const uint64_t from = rule.saved_from_rbp ? RegisterValue(FW_REGISTER_RBP) : caller.cfa;
  const auto saved = [from](int reg, short at) {
    return at == FW_REGISTER_UNCHANGED ? RegisterValue(static_cast<uint64_t>(reg))
                                       : MemoryAt(from + static_cast<uint64_t>(int64_t{at}));
  };
  caller.rbp = saved(kRbp, rule.rbp_offset);
  caller.rbx = saved(kRbx, rule.rbx_offset);
  return caller;
}

bool Agree(const CallerRegisters& oracle, const CallerRegisters& ours) {
  if (oracle.root || ours.root) return oracle.root == ours.root;
  return oracle.cfa == ours.cfa && oracle.return_address == ours.return_address &&
         (!oracle.rbp || oracle.rbp == ours.rbp) && (!oracle.rbx || oracle.rbx == ours.rbx);
}

std::string Describe(const CallerRegisters& caller) {
  if (caller.root) return "root";
  return fmt::format("cfa {:x} ra {:x} rbp {:x} rbx {:x}", caller.cfa, caller.return_address,
                     caller.rbp.value_or(0), caller.rbx.value_or(0));
}

std::string Describe(const UnwindTable::Rule& found) {
  const fw_unwind_rule& rule = found.rule;
  return fmt::format("base {} cfa {} ra {}/{} from_rbp {} n {} rbp {} rbx {} slot {} {}",
                     unsigned{rule.base}, unsigned{rule.cfa}, unsigned{rule.ra},
                     unsigned{rule.ra_register}, unsigned{rule.saved_from_rbp}, rule.cfa_offset,
                     rule.rbp_offset, rule.rbx_offset, found.slot.addend, found.slot.ra_offset);
}

}  // namespace firewatch::symbolizer
