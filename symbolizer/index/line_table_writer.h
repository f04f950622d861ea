// SPDX-License-Identifier: Apache-2.0
// Writes the `lines` section of a symbol index (line_table_format.h; docs/formats.md, "Lines") from
// the lines of one unit after the other. What the units said is packed at once, so that the working
// memory stays near the size of the section however large the debug information is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "symbolizer/dwarf/interned.h"
#include "symbolizer/dwarf/unit_lines.h"
#include "symbolizer/index/line_cell_writer.h"
#include "symbolizer/index/line_table_format.h"
#include "symbolizer/index/name_interner.h"
#include "symbolizer/index/put_aside.h"
#include "symbolizer/index/row_codec.h"
#include "symbolizer/index/row_store.h"
#include "symbolizer/index/section_sink.h"

namespace firewatch::symbolizer {

// One thread at a time.
class LineTableWriter {
 public:
  // Both must outlive the writer. `put_aside`: for rows (row_store.h).
  LineTableWriter(NameInterner& names, SectionSink& sink, PutAside put_aside = nullptr);

  // A piece of the unit of this number, whose rows are those of `rows`; units in ascending order.
  // ResourceExhausted when what was added is more than the section can hold; then nothing more must
  // be added. Both are changed, their memory stays with the caller.
  absl::Status Add(uint64_t unit, dwarf::UnitLines&& piece, EncodedRows* rows);
  // The same with the rows of the piece itself.
  absl::Status Add(uint64_t unit, dwarf::UnitLines&& piece) {
    EncodedRows rows;
    EncodeRows(piece.rows, &rows);
    return Add(unit, std::move(piece), &rows);
  }

  // Writes the rest of the section. At most `max_rows` rows, as they are stored: a row that reaches
  // into further pages counts once in each. The writer is used up afterwards.
  absl::Status Finish(uint64_t max_rows);

  // After Finish.
  uint64_t row_count() const { return row_count_; }
  // Rows of a unit that were cut or dropped because another unit claims the same code.
  uint64_t overlaps() const { return overlaps_; }

 private:
  struct Function {
    uint32_t name;
    uint32_t file;
    uint32_t line;

    bool operator==(const Function&) const = default;
    uint64_t Hash() const {
      return dwarf::MixHash(dwarf::MixHash(0, uint64_t{name} << 32 | file), line);
    }
  };
  // A block under way: numbers are those of the block.
  struct Block {
    std::vector<uint32_t> files = {0};
    dwarf::IndexMap file_of_name;
    std::vector<dwarf::UnitLines::Node> nodes = {{}};
    std::vector<dwarf::UnitLines::Chain> chains = {{}};
  };
  // Rows without a gap, of one unit.
  struct Run {
    uint64_t start;
    uint64_t end;
    uint32_t piece;
    uint32_t offset;  // in the piece's rows
  };
  // The rows of a piece (EncodedRows).
  struct PieceRows {
    RowStore::Place place;
    uint64_t unit;
    uint32_t block;
    uint32_t first_chain;  // what is added to its chains to get those of the block
  };
  // A row of one of several runs that overlap.
  struct Claim {
    uint64_t start;
    uint64_t end;
    uint32_t block;
    uint32_t chain;
    uint32_t piece;
  };
  // Functions of the piece that an earlier unit has, too; in order of address.
  std::vector<AddressRange> ClaimedBefore(uint64_t unit, const dwarf::UnitLines& piece);
  // Takes them out of the piece, and all that they leave unused.
  void DropClaimed(std::span<const AddressRange> claimed, dwarf::UnitLines* piece);
  static void DropUnused(dwarf::UnitLines* piece);
  uint32_t NameOf(const char* name);
  uint32_t FileInBlock(uint32_t file);
  absl::Status FlushBlock();
  // Of the last of pieces_.
  void AddRows(const EncodedRows& rows);
  // Gives each row of a run to `take`, and an end.
  template <typename Take>
  void DecodeRun(const Run& run, const Take& take) const;
  void SortClaims();
  void MergeRuns(size_t first, size_t end, std::vector<LineBlockRow>* rows);
  absl::Status WriteFunctions(LinesFooter* footer);
  template <typename T>
  absl::Status WriteTable(std::span<const T> table, uint64_t* offset);

  NameInterner& names_;
  SectionOutput out_;
  // Strings of a section are known by where they are: most are merged, and reading them is slow.
  dwarf::IndexMap name_of_pointer_;
  dwarf::Interned<Function, 75> functions_;
  // Sizes of functions by where they start, of units before unit_; and what unit_ adds to them.
  // Linkers keep one of several copies of a function, and may let all units claim it.
  dwarf::IndexMap claimed_;
  std::vector<AddressRange> claims_of_unit_;
  uint64_t unit_ = 0;
  std::vector<dwarf::UnitLines::Row> rows_left_;  // of DropClaimed
  Block block_;
  std::vector<LineBlock> blocks_;
  std::vector<bool> has_function_;      // by chain; those of a block are one behind the other
  std::vector<uint64_t> first_chains_;  // of each block, in has_function_
  std::vector<PieceRows> pieces_;
  RowStore row_store_;
  std::vector<Run> runs_;
  std::vector<Claim> claims_;  // of MergeRuns, as the next two
  std::vector<Claim> merged_claims_;
  std::vector<size_t> claims_of_run_;  // where they start, and the end
  std::vector<uint32_t> scratch_;
  std::vector<uint32_t> file_names_;  // of the piece that is being added, as the next one
  std::vector<uint32_t> files_in_block_;
  std::vector<std::byte> packed_;
  uint64_t row_count_ = 0;
  uint64_t overlaps_ = 0;
};

}  // namespace firewatch::symbolizer
