// SPDX-License-Identifier: Apache-2.0
// Line programs of .debug_line, versions 2 to 5: the table of files, and the rows as disjoint
// segments of code that say the same.
//
// What producers and linkers do to the order of rows is taken as it comes: sequences in any order,
// rows that go backwards within one, sequences that overlap, have no rows or no end. Where two
// sequences overlap, the one that ends first speaks (as in LLVM, which finds sequences by their
// end); of several rows at one address, the last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "symbolizer/dwarf/code_filter.h"
#include "symbolizer/dwarf/cursor.h"
#include "symbolizer/dwarf/input.h"

namespace firewatch::symbolizer::dwarf {

struct LineRow {
  uint64_t address;
  uint32_t file;  // index in the program's table of files
  uint32_t line;  // 0: code without a line

  static constexpr uint32_t kEnd = UINT32_MAX;  // `file`: no sequence goes on from here
};

class LineProgram {
 public:
  // Reads the header. `address_size` is the unit's. False when the header cannot be read; what was
  // read of the tables stays usable.
  bool Open(const DwarfSections& sections, uint64_t offset, uint8_t address_size);

  // Sets `*path` to the path of a file, joined as LLVM does (the compilation directory before what
  // is relative, nothing normalized). False for an index that is not in the table.
  bool PathOf(uint64_t file, std::string_view comp_dir, std::string* path) const;

  struct Counts {
    uint64_t sequences = 0;
    uint64_t dropped = 0;  // are no code, not counting those that are empty
    bool damaged = false;  // stopped before the end of the program
  };
  // Sets `*out` to the segments of the whole program, ascending, each row up to the next; the last
  // one is a kEnd. Ends early, with `damaged`, at more than kMaxRows.
  Counts Run(const CodeFilter& filter, std::vector<LineRow>* out);

  static constexpr size_t kMaxRows = size_t{1} << 26;

 private:
  struct File {
    std::string_view name;
    uint64_t directory;
  };
  struct Sequence {
    size_t first;  // rows
    size_t end;
    uint64_t end_address;
  };

  void ReadTables(Cursor& cursor);
  bool ReadTables5(Cursor& cursor, const DwarfSections& sections);
  void EndSequence(uint64_t address, const CodeFilter& filter, Counts* counts);
  bool Execute(const CodeFilter& filter, bool merge, Counts* counts);
  void Arrange(std::vector<LineRow>* out);
  void ArrangeOverlaps(std::vector<LineRow>* out);

  std::span<const std::byte> program_;
  uint16_t version_ = 0;
  uint8_t offset_size_ = 4;
  uint8_t address_size_ = 8;
  uint8_t minimum_instruction_ = 1;
  int8_t line_base_ = 0;
  uint8_t line_range_ = 1;
  uint8_t opcode_base_ = 1;
  uint8_t operand_counts_[256] = {};
  std::vector<std::string_view> directories_;
  std::vector<File> files_;
  // Of a run.
  std::vector<LineRow> rows_;
  std::vector<Sequence> sequences_;
  size_t sequence_start_ = 0;
  bool unsorted_ = false;
};

}  // namespace firewatch::symbolizer::dwarf
