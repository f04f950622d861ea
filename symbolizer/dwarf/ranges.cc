// SPDX-License-Identifier: Apache-2.0
// Unit::RangesOf: low_pc and high_pc, .debug_ranges (DWARF 2 to 4), .debug_rnglists (5).
#include <cstdint>
#include <optional>
#include <vector>

#include "symbolizer/dwarf/unit.h"

namespace firewatch::symbolizer::dwarf {
namespace {

// All addresses of a size that end a list or stand for code that the linker left out: its maximum,
// and one less (lld, where the maximum means "base address").
bool IsTombstone(uint64_t address, unsigned size) {
  const uint64_t maximum = size == 4 ? UINT32_MAX : UINT64_MAX;
  return address >= maximum - 1;
}

void Append(uint64_t start, uint64_t end, std::vector<AddressRange>* out) {
  if (start < end) out->push_back({start, end});
}

}  // namespace

void Unit::RangesOf(const Attributes& attributes, size_t* budget,
                    std::vector<AddressRange>* out) const {
  if (attributes.Has(kSlotRanges)) {
    uint64_t offset = attributes.value[kSlotRanges];
    if (header_.shape.version < 5) {
      ReadDebugRanges(offset, budget, out);
      return;
    }
    if (attributes.form[kSlotRanges] == kFormRnglistx) {
      const std::optional<uint64_t> indexed = IndexedRangeList(offset);
      if (!indexed) return;
      offset = *indexed;
    }
    ReadRnglist(offset, budget, out);
    return;
  }
  const std::optional<uint64_t> low = AddressOf(attributes, kSlotLowPc);
  if (!low || !attributes.Has(kSlotHighPc)) return;
  uint64_t high = attributes.value[kSlotHighPc];
  if (const std::optional<uint64_t> address = AddressOf(attributes, kSlotHighPc)) {
    high = *address;
  } else if (__builtin_add_overflow(*low, high, &high)) {
    return;  // a tombstone, as a rule
  }
  Append(*low, high, out);
}

std::optional<uint64_t> Unit::IndexedRangeList(uint64_t index) const {
  const std::span<const std::byte> section = file_->sections().rnglists;
  const uint64_t size = header_.shape.offset_size;
  if (index > section.size() / size || rnglists_base_ > section.size()) return std::nullopt;
  ByteCursor cursor(section, rnglists_base_ + index * size);
  const uint64_t offset = cursor.Sized(static_cast<unsigned>(size));
  if (!cursor.ok() || offset > section.size()) return std::nullopt;
  return rnglists_base_ + offset;
}

void Unit::ReadRnglist(uint64_t offset, size_t* budget, std::vector<AddressRange>* out) const {
  ByteCursor cursor(file_->sections().rnglists, offset);
  const unsigned size = header_.shape.address_size;
  uint64_t base = low_pc_;
  for (; cursor.ok() && *budget > 0; --*budget) {
    const uint8_t kind = cursor.U8();
    uint64_t start = 0;
    uint64_t end = 0;
    bool gone = false;
    switch (kind) {
      case kRleEndOfList:
        return;
      case kRleBaseAddressx: {
        const std::optional<uint64_t> address = IndexedAddress(cursor.Uleb());
        base = address ? *address : UINT64_MAX;
        continue;
      }
      case kRleStartxEndx: {
        const std::optional<uint64_t> first = IndexedAddress(cursor.Uleb());
        const std::optional<uint64_t> second = IndexedAddress(cursor.Uleb());
        gone = !first || !second;
        start = first.value_or(0);
        end = second.value_or(0);
        break;
      }
      case kRleStartxLength: {
        const std::optional<uint64_t> first = IndexedAddress(cursor.Uleb());
        gone = !first;
        start = first.value_or(0);
        gone |= __builtin_add_overflow(start, cursor.Uleb(), &end);
        break;
      }
      case kRleOffsetPair: {
        const uint64_t first = cursor.Uleb();
        const uint64_t second = cursor.Uleb();
        gone = IsTombstone(base, size) || __builtin_add_overflow(base, first, &start) ||
               __builtin_add_overflow(base, second, &end);
        break;
      }
      case kRleBaseAddress:
        base = cursor.Sized(size);
        continue;
      case kRleStartEnd:
        start = cursor.Sized(size);
        end = cursor.Sized(size);
        break;
      case kRleStartLength:
        start = cursor.Sized(size);
        gone = __builtin_add_overflow(start, cursor.Uleb(), &end);
        break;
      default:
        return;  // the length of an unknown entry is not known either
    }
    if (cursor.ok() && !gone && !IsTombstone(start, size)) Append(start, end, out);
  }
}

// Pairs of offsets from a base; (maximum, address) sets the base, (0, 0) ends the list.
void Unit::ReadDebugRanges(uint64_t offset, size_t* budget, std::vector<AddressRange>* out) const {
  const std::span<const std::byte> section = address_sections_->ranges;
  if (__builtin_add_overflow(offset, ranges_base_, &offset)) return;
  ByteCursor cursor(section, offset);
  const unsigned size = header_.shape.address_size;
  const uint64_t maximum = size == 4 ? UINT32_MAX : UINT64_MAX;
  uint64_t base = low_pc_;
  for (; cursor.ok() && *budget > 0; --*budget) {
    const uint64_t first = cursor.Sized(size);
    const uint64_t second = cursor.Sized(size);
    if (!cursor.ok() || (first == 0 && second == 0)) return;
    if (first == maximum) {
      base = second;
      continue;
    }
    uint64_t start = 0;
    uint64_t end = 0;
    if (IsTombstone(base, size) || IsTombstone(first, size) ||
        __builtin_add_overflow(base, first, &start) || __builtin_add_overflow(base, second, &end)) {
      continue;
    }
    Append(start, end, out);
  }
}

}  // namespace firewatch::symbolizer::dwarf
