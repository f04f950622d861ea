// SPDX-License-Identifier: Apache-2.0
// Debug sections in one string of bytes, for fuzzing: per section its number (the order in
// DwarfSections, 16 more in the supplementary file, 32 more in the package), a 32-bit size, its
// bytes. testdata/dwarf/pack_sections.py makes them of an ELF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "symbolizer/dwarf/input.h"

namespace firewatch::symbolizer {

// Each section has memory of its own, so that a read beyond it is seen.
class PackedSections {
 public:
  explicit PackedSections(std::span<const uint8_t> packed) {
    size_t at = 0;
    while (packed.size() - at >= 5) {
      const uint8_t number = packed[at];
      uint32_t size;
      std::memcpy(&size, packed.data() + at + 1, sizeof(size));
      at += 5;
      if (size > packed.size() - at) size = static_cast<uint32_t>(packed.size() - at);
      const auto* bytes = reinterpret_cast<const std::byte*>(packed.data() + at);
      owned_.push_back(std::make_unique<std::vector<std::byte>>(bytes, bytes + size));
      at += size;
      DwarfSections& file = number >= 32 ? input_.dwp : number >= 16 ? input_.alt : input_.main;
      std::span<const std::byte>* const sections[] = {
          &file.info,        &file.abbrev,  &file.str,      &file.line,
          &file.line_str,    &file.ranges,  &file.rnglists, &file.addr,
          &file.str_offsets, &file.aranges, &file.cu_index};
      if (number % 16 < std::size(sections)) *sections[number % 16] = *owned_.back();
    }
  }
  const DwarfInput& input() const { return input_; }

 private:
  std::vector<std::unique_ptr<std::vector<std::byte>>> owned_;
  DwarfInput input_;
};

}  // namespace firewatch::symbolizer
