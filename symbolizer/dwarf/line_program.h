// SPDX-License-Identifier: Apache-2.0
// Line programs of .debug_line, versions 2 to 5: the table of files, and the rows.
//
// What producers and linkers do to the order of rows is taken as it comes: sequences in any order,
// rows that go backwards within one, sequences that overlap, have no rows or no end. Where two
// sequences overlap, the one that ends first speaks (as in LLVM, which finds sequences by their
// end); of several rows at one address, the last.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "symbolizer/byte_cursor.h"
#include "symbolizer/dwarf/code_filter.h"
#include "symbolizer/dwarf/input.h"
#include "symbolizer/dwarf/line_files.h"
#include "symbolizer/dwarf/line_rows.h"

namespace firewatch::symbolizer::dwarf {

class LineProgram {
 public:
  // Reads the header. `sections` must outlive this. `address_size` is the unit's. False when the
  // header cannot be read; what was read of the tables stays usable.
  bool Open(const DwarfSections& sections, uint64_t offset, uint8_t address_size);

  // Of a file of the table (LineFiles::PathOf).
  bool PathOf(uint64_t file, std::string_view comp_dir, std::string* path) const {
    return files_.PathOf(file, comp_dir, path);
  }

  // Of header and program.
  uint64_t size_bytes() const { return size_bytes_; }

  struct Counts {
    uint64_t sequences = 0;  // of code
    uint64_t dropped = 0;    // are no code
    bool damaged = false;    // stopped before the end of the program
  };
  // Sets `*out` to the rows of all sequences that `filter` lets through.
  Counts Run(const CodeFilter& filter, LineRows* out);

 private:
  // One row that is not yet in order.
  struct UnsortedRow {
    uint64_t address;
    size_t number;
    uint32_t file;
    uint32_t line;
  };
  // How many LEB128 numbers follow an opcode that nobody knows; 0 is none of these.
  unsigned OperandsOf(uint8_t opcode) const {
    return static_cast<unsigned>(operand_counts_[opcode - size_t{1}]);
  }
  // What an opcode does, when that is no more than this.
  struct Effect {
    enum Kind : uint8_t { kOther, kRow, kColumn, kSilent };
    uint32_t advance = 0;  // of the address
    int16_t step = 0;      // of the line
    Kind kind = kOther;    // makes a row; has a column behind it; does neither
  };
  static_assert(sizeof(Effect) == sizeof(uint64_t));
  std::array<Effect, 256> Effects() const;
  enum class Order { kAsTheyCome, kSort };
  bool Execute(const CodeFilter& filter, Order order, LineRows* out, Counts* counts);
  bool EndSequence(uint64_t end, const CodeFilter& filter, Order order, LineRows* out,
                   Counts* counts);

  std::span<const std::byte> program_;
  uint64_t size_bytes_ = 0;
  uint16_t version_ = 0;
  uint8_t offset_size_ = 4;
  uint8_t address_size_ = 8;
  uint8_t minimum_instruction_ = 1;
  int8_t line_base_ = 0;
  uint8_t line_range_ = 1;
  uint8_t opcode_base_ = 1;
  std::span<const std::byte> operand_counts_;  // of the opcodes from 1 on
  LineFiles files_;
  std::vector<UnsortedRow> unsorted_;  // of a sequence, for Order::kSort
};

}  // namespace firewatch::symbolizer::dwarf
