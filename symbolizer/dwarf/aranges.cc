// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/aranges.h"

#include "symbolizer/byte_cursor.h"

namespace firewatch::symbolizer::dwarf {

void ForEachArange(std::span<const std::byte> section,
                   const std::function<void(uint64_t start, uint64_t end, uint64_t unit)>& visit) {
  uint64_t offset = 0;
  while (offset < section.size()) {
    ByteCursor cursor(section, offset);
    unsigned offset_size = 4;
    uint64_t length = cursor.U32();
    if (length == 0xffffffff) {
      length = cursor.U64();
      offset_size = 8;
    }
    if (!cursor.ok() || length > cursor.left()) return;
    const uint64_t end = cursor.position() + length;
    cursor.LimitTo(end);
    const uint16_t version = cursor.U16();
    const uint64_t unit = cursor.Sized(offset_size);
    const uint8_t address_size = cursor.U8();
    const uint8_t segment_size = cursor.U8();
    if (cursor.ok() && version == 2 && segment_size == 0 &&
        (address_size == 8 || address_size == 4)) {
      // Pairs begin at a multiple of their size.
      const uint64_t pair = uint64_t{2} * address_size;
      cursor.JumpTo(offset + (cursor.position() - offset + pair - 1) / pair * pair);
      while (cursor.ok() && cursor.left() >= pair) {
        const uint64_t start = cursor.Sized(address_size);
        const uint64_t size = cursor.Sized(address_size);
        uint64_t range_end;
        if (size != 0 && !__builtin_add_overflow(start, size, &range_end)) {
          visit(start, range_end, unit);
        }
      }
    }
    offset = end;
  }
}

}  // namespace firewatch::symbolizer::dwarf
