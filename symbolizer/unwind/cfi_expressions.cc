// SPDX-License-Identifier: Apache-2.0
// The expressions of call frame instructions that occur in practice, recognized and not evaluated:
//   reg + n                  registers of a realigned frame (breg6 n), of a signal frame (breg7 n)
//   *(reg + n) + m           CFA of a realigned frame (breg6 -8; deref), of a signal frame
//   rsp + 8 + ((rip & 15) >= n) * 8     the lazy-binding part of .plt, as linkers write it
#include <optional>

#include "symbolizer/byte_cursor.h"
#include "symbolizer/unwind/cfi_rows.h"

namespace firewatch::symbolizer {
namespace {

enum : uint8_t {
  kDeref = 0x06,
  kConst1u = 0x08,
  kConst1s = 0x09,
  kConst2u = 0x0a,
  kConst2s = 0x0b,
  kConst4u = 0x0c,
  kConst4s = 0x0d,
  kConst8u = 0x0e,
  kConst8s = 0x0f,
  kConstu = 0x10,
  kConsts = 0x11,
  kAnd = 0x1a,
  kMinus = 0x1c,
  kPlus = 0x22,
  kPlusUconst = 0x23,
  kShl = 0x24,
  kGe = 0x2a,
  kLit0 = 0x30,
  kLit31 = 0x4f,
  kBreg0 = 0x70,
  kBreg31 = 0x8f,
  kBregx = 0x92,
  kNop = 0x96,
};

constexpr uint8_t kRsp = 7;
constexpr uint8_t kRip = 16;
constexpr size_t kMaxExpressionBytes = 64;

// value = reg + offset, then perhaps *value + addend.
struct Linear {
  uint8_t reg = 0;
  int64_t offset = 0;
  bool deref = false;
  int64_t addend = 0;
};

std::optional<uint8_t> TakeBase(ByteCursor& cursor, int64_t* offset) {
  const uint8_t op = cursor.U8();
  uint64_t reg = 0;
  if (op >= kBreg0 && op <= kBreg31) {
    reg = op - kBreg0;
  } else if (op == kBregx) {
    reg = cursor.Uleb();
  } else {
    return std::nullopt;
  }
  *offset = cursor.Sleb();
  if (!cursor.ok() || reg > kRip) return std::nullopt;
  return static_cast<uint8_t>(reg);
}

std::optional<int64_t> TakeConstant(uint8_t op, ByteCursor& cursor) {
  if (op >= kLit0 && op <= kLit31) return op - kLit0;
  switch (op) {
    case kConst1u:
      return cursor.U8();
    case kConst1s:
      return cursor.Fixed<int8_t>();
    case kConst2u:
      return cursor.Fixed<uint16_t>();
    case kConst2s:
      return cursor.Fixed<int16_t>();
    case kConst4u:
      return cursor.Fixed<uint32_t>();
    case kConst4s:
      return cursor.Fixed<int32_t>();
    case kConst8u:
    case kConst8s:
      return cursor.Fixed<int64_t>();
    case kConstu:
      return static_cast<int64_t>(cursor.Uleb());
    case kConsts:
      return cursor.Sleb();
    default:
      return std::nullopt;
  }
}

int64_t Sum(int64_t a, int64_t b) {  // wraps, as the stack machine does
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

std::optional<Linear> AsLinear(std::span<const std::byte> expression) {
  if (expression.empty() || expression.size() > kMaxExpressionBytes) return std::nullopt;
  ByteCursor cursor(expression);
  Linear linear;
  const auto reg = TakeBase(cursor, &linear.offset);
  if (!reg || *reg == kRip) return std::nullopt;
  linear.reg = *reg;
  while (!cursor.at_end()) {
    int64_t& sum = linear.deref ? linear.addend : linear.offset;
    const uint8_t op = cursor.U8();
    if (op == kNop) continue;
    if (op == kDeref && !linear.deref) {
      linear.deref = true;
    } else if (op == kPlusUconst) {
      sum = Sum(sum, static_cast<int64_t>(cursor.Uleb()));
    } else if (const auto constant = TakeConstant(op, cursor)) {
      const uint8_t operation = cursor.U8();
      if (operation == kPlus) {
        sum = Sum(sum, *constant);
      } else if (operation == kMinus) {
        sum = static_cast<int64_t>(static_cast<uint64_t>(sum) - static_cast<uint64_t>(*constant));
      } else {
        return std::nullopt;
      }
    } else {
      return std::nullopt;
    }
  }
  if (!cursor.ok()) return std::nullopt;
  return linear;
}

// breg7 8; breg16 0; lit15; and; litN; ge; lit3; shl; plus -> N
std::optional<int64_t> PltLimit(std::span<const std::byte> expression) {
  if (expression.size() > kMaxExpressionBytes) return std::nullopt;
  ByteCursor cursor(expression);
  int64_t stack_offset = 0;
  int64_t ip_offset = 0;
  const auto stack = TakeBase(cursor, &stack_offset);
  const auto ip = TakeBase(cursor, &ip_offset);
  if (stack != kRsp || stack_offset != 8 || ip != kRip || ip_offset != 0) return std::nullopt;
  if (cursor.U8() != kLit0 + 15 || cursor.U8() != kAnd) return std::nullopt;
  const uint8_t limit = cursor.U8();
  if (limit < kLit0 || limit > kLit0 + 15) return std::nullopt;
  for (const uint8_t op : {uint8_t{kGe}, uint8_t{kLit0 + 3}, uint8_t{kShl}, uint8_t{kPlus}}) {
    if (cursor.U8() != op) return std::nullopt;
  }
  if (!cursor.at_end() || !cursor.ok()) return std::nullopt;
  return limit - kLit0;
}

}  // namespace

CfaRule CfaOfExpression(std::span<const std::byte> expression) {
  if (const auto linear = AsLinear(expression)) {
    return {.kind = linear->deref ? CfaRule::Kind::kDeref : CfaRule::Kind::kOffset,
            .reg = linear->reg,
            .offset = linear->offset,
            .addend = linear->addend};
  }
  if (const auto limit = PltLimit(expression)) {
    return {.kind = CfaRule::Kind::kPlt, .reg = kRsp, .offset = *limit};
  }
  return {.kind = CfaRule::Kind::kOther};
}

CfiRule PlaceOfExpression(std::span<const std::byte> expression) {
  const auto linear = AsLinear(expression);
  if (!linear || linear->deref) return {.kind = CfiRule::Kind::kOther};
  return {.kind = CfiRule::Kind::kAtRegister, .reg = linear->reg, .offset = linear->offset};
}

}  // namespace firewatch::symbolizer
