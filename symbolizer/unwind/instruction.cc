// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/instruction.h"

#include <cstring>

namespace firewatch::symbolizer {
namespace {

using Kind = Instruction::Kind;
constexpr uint8_t kRsp = 4;

// Immediate bytes behind opcode, ModRM and displacement.
enum Form : uint8_t {
  kBad,   // not in 64-bit mode, or not ours to follow
  kNone,  // opcode only
  kImm8,
  kImm16,
  kImm32,    // 16 bits with prefix 66
  kImmFull,  // 64 bits with REX.W (mov reg, imm)
  kAddress,  // 64 bits
  kModrm,
  kModrm8,
  kModrm32,
  kGroup3b,  // F6: test has an immediate
  kGroup3,   // F7
};

Form OneByteForm(uint8_t op) {
  if (op < 0x40) {
    const uint8_t low = op & 7;
    return low < 4 ? kModrm : low == 4 ? kImm8 : low == 5 ? kImm32 : kBad;
  }
  if (op < 0x50) return kBad;  // REX, taken as prefixes
  if (op < 0x60) return kNone;
  if (op >= 0x70 && op < 0x80) return kImm8;
  if (op >= 0xb0 && op < 0xb8) return kImm8;
  if (op >= 0xb8 && op < 0xc0) return kImmFull;
  if (op >= 0x84 && op < 0x90) return kModrm;
  if (op >= 0x90 && op < 0xa0) return op == 0x9a ? kBad : kNone;
  if (op >= 0xa0 && op < 0xa4) return kAddress;
  if (op >= 0xa4 && op < 0xb0) return op == 0xa8 ? kImm8 : op == 0xa9 ? kImm32 : kNone;
  if (op >= 0xd8 && op < 0xe0) return kModrm;
  if (op >= 0xe0 && op < 0xe8) return kImm8;
  if (op >= 0xec && op < 0xf0) return kNone;
  switch (op) {
    case 0x63:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xfe:
    case 0xff:
      return kModrm;
    case 0x68:
      return kImm32;
    case 0x69:
    case 0x81:
    case 0xc7:
      return kModrm32;
    case 0x6a:
    case 0xeb:
    case 0xcd:
      return kImm8;
    case 0x6b:
    case 0x80:
    case 0x83:
    case 0xc0:
    case 0xc1:
    case 0xc6:
      return kModrm8;
    case 0xe8:
    case 0xe9:
      return kImm32;
    case 0xf6:
      return kGroup3b;
    case 0xf7:
      return kGroup3;
    case 0xc3:
    case 0xcc:
    case 0xd7:
    case 0xf4:
    case 0xf5:
    case 0xf8:
    case 0xf9:
    case 0xfc:
    case 0xfd:
      return kNone;
    default:
      return kBad;  // enter, leave, far calls, interrupts, ret with a number
  }
}

Form TwoByteForm(uint8_t op) {
  if (op >= 0x80 && op < 0x90) return kImm32;
  if (op >= 0xc8 && op < 0xd0) return kNone;
  if (op >= 0x30 && op < 0x34) return kNone;
  switch (op) {
    case 0x05:
    case 0x0b:
    case 0x31:
    case 0x77:
    case 0xa2:
      return kNone;
    case 0x70:
    case 0x71:
    case 0x72:
    case 0x73:
    case 0xa4:
    case 0xac:
    case 0xba:
    case 0xc2:
    case 0xc4:
    case 0xc5:
    case 0xc6:
      return kModrm8;
    case 0xa0:
    case 0xa1:
    case 0xa8:
    case 0xa9:  // push and pop of fs, gs
    case 0x00:
    case 0x01:
    case 0x02:
    case 0x04:
    case 0x06:
    case 0x07:
    case 0x08:
    case 0x09:
    case 0x0a:
    case 0x0c:
    case 0x0e:
    case 0x0f:
    case 0x24:
    case 0x25:
    case 0x26:
    case 0x27:
    case 0x34:
    case 0x35:
    case 0x36:
    case 0x37:
    case 0x39:
    case 0x3b:
    case 0x3c:
    case 0x3d:
    case 0x3e:
    case 0x3f:
    case 0x7a:
    case 0x7b:
    case 0xa6:
    case 0xa7:
    case 0xaa:
      return kBad;
    default:
      return kModrm;
  }
}

class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> code) : code_(code) {}

  Instruction Run() {
    Prefixes();
    map_ = 0;
    Form form;
    op_ = Byte();
    if (op_ == 0xc4 || op_ == 0xc5) {
      form = Vex();
    } else if (op_ == 0x0f) {
      form = LongOpcode();
    } else {
      form = OneByteForm(op_);
    }
    if (form == kBad) return {};
    Operands(form);
    if (!ok_ || at_ > 15) return {};
    Instruction result = Meaning();
    result.length = static_cast<uint8_t>(at_);
    return result;
  }

 private:
  uint8_t Byte() {
    if (at_ >= code_.size()) {
      ok_ = false;
      return 0;
    }
    return static_cast<uint8_t>(code_[at_++]);
  }
  int64_t Signed(size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= uint64_t{Byte()} << (8 * i);
    const unsigned shift = static_cast<unsigned>(64 - 8 * bytes);
    return bytes == 0 ? 0 : static_cast<int64_t>(value << shift) >> shift;
  }

  void Prefixes() {
    for (;; ++at_) {
      if (at_ >= code_.size()) return;
      const auto byte = static_cast<uint8_t>(code_[at_]);
      if (byte == 0x66) {
        operand16_ = true;
      } else if (byte == 0xf3 || byte == 0xf2) {
        repeat_ = byte;
      } else if (byte == 0x67) {
        address32_ = true;
      } else if (byte != 0x2e && byte != 0x36 && byte != 0x3e && byte != 0x26 && byte != 0x64 &&
                 byte != 0x65 && byte != 0xf0) {
        break;
      }
    }
    if ((static_cast<uint8_t>(code_[at_]) & 0xf0) == 0x40) rex_ = Byte();
  }

  Form LongOpcode() {
    op_ = Byte();
    map_ = 1;
    if (op_ == 0x38) {
      op_ = Byte();
      map_ = 2;
      return kModrm;
    }
    if (op_ == 0x3a) {
      op_ = Byte();
      map_ = 3;
      return kModrm8;
    }
    return TwoByteForm(op_);
  }

  // Two or three bytes, with inverted REX bits and the opcode map in them.
  Form Vex() {
    const bool three = op_ == 0xc4;
    const uint8_t first = Byte();
    map_ = three ? first & 31 : 1;
    if ((first & 0x80) == 0) rex_ |= 4;
    if (three && (first & 0x20) == 0) rex_ |= 1;
    if (three) vex_register_ = static_cast<uint8_t>(~Byte() >> 3 & 15);
    is_vex_ = true;
    op_ = Byte();
    if (map_ == 1) return TwoByteForm(op_);
    return map_ == 2 ? kModrm : map_ == 3 ? kModrm8 : kBad;
  }

  void Modrm() {
    has_modrm_ = true;
    modrm_ = Byte();
    const uint8_t mod = modrm_ >> 6;
    const uint8_t rm = modrm_ & 7;
    if (mod == 3) return;
    uint8_t base = rm;
    if (rm == 4) {
      sib_ = Byte();
      base = sib_ & 7;
    }
    const bool is_address = mod == 0 && base == 5;
    displacement_ = Signed(mod == 1 ? 1 : mod == 2 || is_address ? 4 : 0);
  }

  void Operands(Form form) {
    const size_t word = operand16_ ? 2 : 4;
    if (form >= kModrm) Modrm();
    const bool has_test = (modrm_ >> 3 & 7) < 2;
    switch (form) {
      case kImm8:
      case kModrm8:
        immediate_ = Signed(1);
        break;
      case kImm16:
        immediate_ = Signed(2);
        break;
      case kImm32:
      case kModrm32:
        immediate_ = Signed(IsJump() ? 4 : word);
        break;
      case kImmFull:
        immediate_ = Signed((rex_ & 8) != 0 ? 8 : word);
        break;
      case kAddress:
        immediate_ = Signed(address32_ ? 4 : 8);
        break;
      case kGroup3b:
        immediate_ = Signed(has_test ? 1 : 0);
        break;
      case kGroup3:
        immediate_ = Signed(has_test ? word : 0);
        break;
      default:
        break;
    }
  }
  bool IsJump() const {
    return map_ == 0 ? op_ == 0xe8 || op_ == 0xe9 : map_ == 1 && (op_ & 0xf0) == 0x80;
  }

  uint8_t RegField() const { return static_cast<uint8_t>((modrm_ >> 3 & 7) | (rex_ & 4) << 1); }
  uint8_t RmField() const { return static_cast<uint8_t>((modrm_ & 7) | (rex_ & 1) << 3); }
  bool RmIsRegister() const { return has_modrm_ && modrm_ >> 6 == 3; }
  // The memory operand is disp(%rsp).
  bool RmIsStack() const {
    return has_modrm_ && modrm_ >> 6 != 3 && (modrm_ & 7) == 4 && sib_ == 0x24 && (rex_ & 3) == 0;
  }

  static Instruction Ordinary(int64_t stack = 0) {
    return {.kind = Kind::kOrdinary, .stack = stack};
  }
  Instruction To(Kind kind) const {
    return {.kind = kind, .target = static_cast<int64_t>(at_) + immediate_};
  }

  Instruction Meaning() const {
    if (is_vex_) {
      // BMI instructions write general registers.
      const bool general = map_ != 1 && ((op_ & 0xf0) == 0xf0);
      return general && (RegField() == kRsp || vex_register_ == kRsp) ? Instruction{} : Ordinary();
    }
    if (map_ == 0) return MeaningOfOneByte();
    if (map_ == 1) return MeaningOfTwoBytes();
    const bool general = map_ == 2 && (op_ & 0xf0) == 0xf0 && RegField() == kRsp;  // movbe, crc32
    return general ? Instruction{} : Ordinary();
  }

  Instruction MeaningOfOneByte() const {
    const uint8_t low = static_cast<uint8_t>((op_ & 7) | (rex_ & 1) << 3);
    if ((op_ & 0xf8) == 0x50) {
      return operand16_ ? Instruction{} : Instruction{.kind = Kind::kPush, .reg = low, .stack = 8};
    }
    if ((op_ & 0xf8) == 0x58) {
      if (operand16_ || low == kRsp) return {};
      return {.kind = Kind::kPop, .reg = low, .stack = -8};
    }
    if ((op_ & 0xf0) == 0x70 || (op_ & 0xfc) == 0xe0) return To(Kind::kBranch);
    switch (op_) {
      case 0x68:
      case 0x6a:
      case 0x9c:
        return operand16_ ? Instruction{} : Ordinary(8);
      case 0x9d:
        return operand16_ ? Instruction{} : Ordinary(-8);
      case 0x90:
        return {.kind = (rex_ & 1) != 0 ? Kind::kOrdinary : Kind::kPadding};
      case 0x94:
        return (rex_ & 1) != 0 ? Ordinary() : Instruction{};  // xchg rax, rsp
      case 0xcc:
        return {.kind = Kind::kPadding};
      case 0xc3:
        return {.kind = Kind::kReturn};
      case 0xe9:
      case 0xeb:
        return To(Kind::kJump);
      case 0xf4:
        return {.kind = Kind::kLeaves};
      case 0x8f:
        return RmIsRegister() ? Instruction{} : Ordinary(-8);
      case 0xff:
        return MeaningOfGroup5();
      case 0x80:
      case 0x81:
      case 0x83:
        return MeaningOfGroup1();
      case 0x8d:
        if (RegField() != kRsp) return Ordinary();
        return RmIsStack() && (rex_ & 8) != 0 ? Ordinary(-displacement_) : Instruction{};
      default:
        return has_modrm_ && WritesRsp() ? Instruction{} : Ordinary();
    }
  }

  Instruction MeaningOfGroup1() const {
    if (!RmIsRegister() || RmField() != kRsp || op_ == 0x80) return Ordinary();
    const uint8_t operation = modrm_ >> 3 & 7;
    if (operation == 7) return Ordinary();  // cmp
    if ((rex_ & 8) == 0 || (operation != 0 && operation != 5)) return {};
    return Ordinary(operation == 5 ? immediate_ : -immediate_);
  }

  Instruction MeaningOfGroup5() const {
    switch (modrm_ >> 3 & 7) {
      case 2:
        return Ordinary();  // call
      case 4:
        return {.kind = Kind::kLeaves};
      case 6:
        return operand16_ ? Instruction{} : Ordinary(8);
      case 0:
      case 1:
        return RmIsRegister() && RmField() == kRsp ? Instruction{} : Ordinary();
      default:
        return {};
    }
  }

  // Of the ordinary instructions: is rsp what they write?
  bool WritesRsp() const {
    const bool rm = RmIsRegister() && RmField() == kRsp;
    const bool reg = RegField() == kRsp;
    if (op_ < 0x40) {
      if ((op_ & 0x38) == 0x38) return false;  // cmp
      return (op_ & 2) != 0 ? reg : rm;
    }
    switch (op_) {
      case 0x84:
      case 0x85:
        return false;  // test
      case 0x86:
      case 0x87:
        return rm || (RmIsRegister() && reg) || reg;
      case 0x88:
      case 0x89:
      case 0x8c:
        return rm;
      case 0x63:
      case 0x69:
      case 0x6b:
      case 0x8a:
      case 0x8b:
        return reg;
      case 0xf6:
      case 0xf7:
        return rm && (modrm_ >> 3 & 7) >= 2;
      default:
        return op_ >= 0xd8 && op_ < 0xe0 ? false : rm;  // x87 has its own registers
    }
  }

  Instruction MeaningOfTwoBytes() const {
    if ((op_ & 0xf0) == 0x80) return To(Kind::kBranch);
    if (op_ == 0x0b) return {.kind = Kind::kLeaves};
    if (op_ == 0x1f) return {.kind = Kind::kPadding};
    if ((op_ & 0xf8) == 0xc8) {
      return (op_ & 7) == kRsp && (rex_ & 1) == 0 ? Instruction{} : Ordinary();  // bswap
    }
    const bool rm = RmIsRegister() && RmField() == kRsp;
    const bool reg = RegField() == kRsp;
    const bool writes_reg = (op_ & 0xf0) == 0x40 || op_ == 0xaf || op_ == 0xb6 || op_ == 0xb7 ||
                            (op_ >= 0xb8 && op_ <= 0xbf && op_ != 0xba) || op_ == 0x2c ||
                            op_ == 0x2d || op_ == 0x50 || op_ == 0xd7 || op_ == 0xc5;
    const bool writes_rm = op_ == 0xa4 || op_ == 0xa5 || op_ == 0xab || op_ == 0xac ||
                           op_ == 0xad || op_ == 0xb0 || op_ == 0xb1 || op_ == 0xb3 ||
                           op_ == 0xba || op_ == 0xbb || op_ == 0xc0 || op_ == 0xc1 ||
                           op_ == 0x7e || (op_ & 0xf0) == 0x90 || op_ == 0xc7;
    return (writes_reg && reg) || (writes_rm && rm) || (op_ == 0xc1 && reg) ? Instruction{}
                                                                            : Ordinary();
  }

  const std::span<const std::byte> code_;
  size_t at_ = 0;
  bool ok_ = true;
  bool operand16_ = false;
  bool address32_ = false;
  uint8_t repeat_ = 0;
  uint8_t rex_ = 0;  // also what VEX says of it
  bool is_vex_ = false;
  uint8_t vex_register_ = 0;
  uint8_t map_ = 0;
  uint8_t op_ = 0;
  bool has_modrm_ = false;
  uint8_t modrm_ = 0;
  uint8_t sib_ = 0;
  int64_t displacement_ = 0;
  int64_t immediate_ = 0;
};

}  // namespace

Instruction DecodeInstruction(std::span<const std::byte> code) {
  if (code.empty()) return {};
  return Decoder(code).Run();
}

}  // namespace firewatch::symbolizer
