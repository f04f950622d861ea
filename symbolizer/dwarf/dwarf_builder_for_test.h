// SPDX-License-Identifier: Apache-2.0
// Bytes of debug sections, field by field, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "symbolizer/dwarf/constants.h"

namespace firewatch::symbolizer::dwarf {

class SectionBytes {
 public:
  SectionBytes& U8(uint64_t value) { return Fixed(value, 1); }
  SectionBytes& U16(uint64_t value) { return Fixed(value, 2); }
  SectionBytes& U32(uint64_t value) { return Fixed(value, 4); }
  SectionBytes& U64(uint64_t value) { return Fixed(value, 8); }
  SectionBytes& Uleb(uint64_t value) {
    do {
      U8((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
      value >>= 7;
    } while (value != 0);
    return *this;
  }
  SectionBytes& Sleb(int64_t value) {
    for (;;) {
      const auto low = static_cast<uint8_t>(value & 0x7f);
      value >>= 7;
      const bool last = (value == 0 && (low & 0x40) == 0) || (value == -1 && (low & 0x40) != 0);
      U8(last ? low : low | 0x80);
      if (last) return *this;
    }
  }
  SectionBytes& Text(std::string_view text) {
    for (const char c : text) U8(static_cast<uint8_t>(c));
    return U8(0);
  }
  SectionBytes& Bytes(const SectionBytes& other) {
    bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
    return *this;
  }
  SectionBytes& SetU32(size_t offset, uint64_t value) {
    for (size_t i = 0; i < 4; ++i) bytes_[offset + i] = static_cast<std::byte>(value >> (8 * i));
    return *this;
  }
  size_t size() const { return bytes_.size(); }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  SectionBytes& Fixed(uint64_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) bytes_.push_back(static_cast<std::byte>(value >> (8 * i)));
    return *this;
  }
  std::vector<std::byte> bytes_;
};

// One abbreviation; attributes are (attribute, form).
inline SectionBytes Abbreviated(uint64_t code, uint64_t tag, bool children,
                                std::initializer_list<std::pair<uint64_t, uint64_t>> attributes) {
  SectionBytes out;
  out.Uleb(code).Uleb(tag).U8(children ? 1 : 0);
  for (const auto& [attribute, form] : attributes) out.Uleb(attribute).Uleb(form);
  return out.Uleb(0).Uleb(0);
}

// A unit of DWARF 4 or 5 with the entries given, which include the end of children.
inline SectionBytes UnitOf(uint16_t version, uint64_t abbreviations, const SectionBytes& entries) {
  SectionBytes out;
  out.U32(0).U16(version);
  if (version >= 5) {
    out.U8(kUnitCompile).U8(8).U32(abbreviations);
  } else {
    out.U32(abbreviations).U8(8);
  }
  out.Bytes(entries);
  return out.SetU32(0, out.size() - 4);
}

// Opcodes of a line program.
class LineOps {
 public:
  LineOps& SetAddress(uint64_t address) {
    bytes_.U8(0).Uleb(9).U8(kLneSetAddress).U64(address);
    return *this;
  }
  LineOps& Row(int64_t advance_line, uint64_t advance_address) {
    if (advance_address != 0) bytes_.U8(kLnsAdvancePc).Uleb(advance_address);
    bytes_.U8(kLnsAdvanceLine).Sleb(advance_line).U8(kLnsCopy);
    return *this;
  }
  LineOps& File(uint64_t file) {
    bytes_.U8(kLnsSetFile).Uleb(file);
    return *this;
  }
  LineOps& End(uint64_t advance_address) {
    bytes_.U8(kLnsAdvancePc).Uleb(advance_address).U8(0).Uleb(1).U8(kLneEndSequence);
    return *this;
  }
  const SectionBytes& bytes() const { return bytes_; }
  SectionBytes& raw() { return bytes_; }

 private:
  SectionBytes bytes_;
};

// What a program's header says of its opcodes.
struct LineHeader {
  uint8_t minimum_instruction = 1;
  int8_t line_base = -5;
  uint8_t line_range = 14;
  uint8_t opcode_base = 13;
};

// A program of version 2 to 4: directories "sub" and "/abs"; files "a.c" (compilation directory),
// "b.h" (sub), "c.h" (/abs), "/d.h".
inline SectionBytes LineProgram4(const LineOps& ops, uint16_t version = 4,
                                 const LineHeader& header = {}) {
  SectionBytes tables;
  tables.U8(header.minimum_instruction);
  if (version >= 4) tables.U8(1);
  tables.U8(1).U8(static_cast<uint8_t>(header.line_base)).U8(header.line_range);
  tables.U8(header.opcode_base);
  constexpr uint8_t kOperands[] = {0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1};
  for (size_t opcode = 1; opcode < header.opcode_base; ++opcode) {
    tables.U8(opcode <= std::size(kOperands) ? kOperands[opcode - 1] : 0);
  }
  tables.Text("sub").Text("/abs").U8(0);
  tables.Text("a.c").Uleb(0).Uleb(0).Uleb(0);
  tables.Text("b.h").Uleb(1).Uleb(0).Uleb(0);
  tables.Text("c.h").Uleb(2).Uleb(0).Uleb(0);
  tables.Text("/d.h").Uleb(1).Uleb(0).Uleb(0);
  tables.U8(0);
  SectionBytes out;
  out.U32(0).U16(version).U32(tables.size()).Bytes(tables).Bytes(ops.bytes());
  return out.SetU32(0, out.size() - 4);
}

// Version 5, with MD5 sums: directories "/comp", "sub", "/abs"; files "a.c" (0), "b.h" (1),
// "c.h" (2).
inline SectionBytes LineProgram5(const LineOps& ops) {
  SectionBytes tables;
  tables.U8(1).U8(1).U8(1).U8(static_cast<uint8_t>(-5)).U8(14).U8(13);
  for (const int operands : {0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1}) {
    tables.U8(static_cast<uint64_t>(operands));
  }
  tables.U8(1).Uleb(kLnctPath).Uleb(kFormString);
  tables.Uleb(3).Text("/comp").Text("sub").Text("/abs");
  tables.U8(3).Uleb(kLnctPath).Uleb(kFormString).Uleb(kLnctDirectoryIndex).Uleb(kFormUdata);
  tables.Uleb(5).Uleb(kFormData16);
  tables.Uleb(3);
  for (const auto& [name, directory] : {std::pair("a.c", 0), {"b.h", 1}, {"c.h", 2}}) {
    tables.Text(name).Uleb(static_cast<uint64_t>(directory)).U64(0).U64(0);
  }
  SectionBytes out;
  out.U32(0).U16(5).U8(8).U8(0).U32(tables.size()).Bytes(tables).Bytes(ops.bytes());
  return out.SetU32(0, out.size() - 4);
}

}  // namespace firewatch::symbolizer::dwarf
