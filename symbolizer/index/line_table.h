// SPDX-License-Identifier: Apache-2.0
// From an address to the chain of inlined calls there, with files and lines: the reader of the
// `lines` section of a symbol index (line_table_format.h, docs/formats.md, "Lines"). A lookup is a
// search in one small cell and a walk along parents in bit-packed records: no allocation, nothing
// is decoded beforehand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "symbolizer/index/line_table_format.h"

namespace firewatch::symbolizer {

inline constexpr uint32_t kNoFunction = UINT32_MAX;

// One frame of the chain at an address, as a debugger shows it.
struct LineFrame {
  uint32_t function;  // for LineTable::FunctionAt; kNoFunction when only a line is known
  uint32_t file;      // name id of the path; 0 unknown
  uint32_t line;      // 0 unknown
  bool inlined;       // false: the physical function, the last of the chain
};

// A view on bytes that must outlive it and stay as they are. Immutable; any thread.
class LineTable {
 public:
  struct Function {
    uint32_t name;  // name id: the linkage name, or DW_AT_name where there is none; 0 unknown
    uint32_t file;  // name id of the path of the declaration; 0 unknown
    uint32_t line;  // of the declaration; 0 unknown
  };

  // A table without rows.
  LineTable() = default;

  // DataLoss when it is not a section of this version or one of its tables leaves it. Takes time
  // proportional to the number of blocks (about one per 4,096 chains), not to the number of rows:
  // what the bits of a row say is checked when it is read, so that any bytes are safe to look up.
  // Name ids that are not below `name_count` read as 0.
  static absl::StatusOr<LineTable> Parse(std::span<const std::byte> section, uint32_t name_count);

  // The chain at `vaddr`, innermost first; 0 when no row covers it. Returns the length of the chain
  // that was written: a chain that is longer than `out` keeps its innermost frames and, in the
  // last place, the physical function.
  size_t Find(uint64_t vaddr, std::span<LineFrame> out) const;

  // Find in three steps, for who looks several addresses up at once or has something else to look
  // up meanwhile. A chain of some ten reads leads to the frames, each known from the one before;
  // all searches make one read together and ask for the memory of their next, so that they wait
  // for it at the same time. As many searches as addresses, in all steps the same.
  class Search {
    friend class LineTable;
    bool found_;      // as far as the steps have come; what is not found is not set
    uint8_t offset_;  // of the address in its page
    uint64_t page_;
    uint64_t cells_, cells_end_;  // of the page, in the cell data
    uint32_t block_number_;
    uint64_t chain_;  // number in the block
    LineBlock block_;
    uint32_t node_, file_, line_;  // of the chain
  };
  void FindCells(std::span<const uint64_t> vaddrs, std::span<Search> searches) const;
  void FindChains(std::span<Search> searches) const;
  // The same of one address: asks for the memory of its cells alone, as nothing else is done
  // between the other reads.
  void FindCells(uint64_t vaddr, Search* search) const;
  void FindChain(Search* search) const;
  // As Find; asks for the memory of FunctionAt of each frame.
  size_t Frames(const Search& search, std::span<LineFrame> out) const;

  uint32_t function_count() const { return footer_.function_count; }
  // All zero for an id that Find did not give.
  Function FunctionAt(uint32_t id) const;

  // Rows as they are stored (a row that reaches into further pages counts once in each).
  uint64_t row_count() const { return footer_.row_count; }
  uint32_t block_count() const { return footer_.block_count; }

 private:
  // The page of `vaddr`, or nothing.
  std::optional<uint64_t> PageOf(uint64_t vaddr) const;
  // The steps. False: nothing is known there, or what is said makes no sense. kAhead: ask for the
  // memory of the next one.
  bool ReadArea(uint64_t vaddr, Search& search) const;
  bool ReadPage(Search& search) const;
  template <bool kAhead>
  bool ReadCells(Search& search) const;
  template <bool kAhead>
  bool ReadBlock(Search& search) const;
  template <bool kAhead>
  void ReadChain(Search& search) const;
  uint32_t FileName(const LineBlock& block, uint32_t file) const;

  const std::byte* data_ = nullptr;
  LinesFooter footer_ = {};
  uint32_t name_count_ = 0;
};

}  // namespace firewatch::symbolizer
