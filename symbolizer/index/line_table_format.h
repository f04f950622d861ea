// SPDX-License-Identifier: Apache-2.0
// The bytes of the `lines` section, drawn in docs/formats.md, "Lines". Little endian; offsets are
// from the start of the section, which is 8-byte aligned. Writer (line_table_writer.h) and reader
// (line_table.h) are the only users.
//
//   area      a stretch of addresses with code, cut into pages of 256 bytes
//   page      the number of its first cell
//   cell      rows of one page and one block: where in the page each starts, and its chain
//   block     what some units say: files, nodes (calls, each with its parent), chains
//   chain     the innermost node at some code, and the file and line there
//   function  name, file and line of the declaration; shared by all blocks
//
// Everything below a cell is bit-packed with widths of its own per block, so that a number has no
// more bits than its block needs. A record is read with one or two unaligned 64-bit loads.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace firewatch::symbolizer {

static_assert(std::endian::native == std::endian::little);

inline constexpr uint32_t kLinesVersion = 1;
inline constexpr unsigned kLinePageShift = 8;
inline constexpr uint64_t kLinePageBytes = uint64_t{1} << kLinePageShift;

// At the end of the section: it is known last, and the section is written front to back.
struct LinesFooter {
  uint32_t version;
  uint32_t function_count;
  uint64_t row_count;
  uint32_t area_count;
  uint32_t page_count;  // the table of pages has one more, the number of cells
  uint32_t cell_count;
  uint32_t block_count;
  uint64_t block_data_bytes;  // which starts at 0
  uint64_t cell_data;
  uint64_t cell_data_bytes;
  uint64_t functions;
  uint64_t areas;
  uint64_t pages;
  uint64_t cells;
  uint64_t blocks;
  uint8_t function_name_bits;
  uint8_t function_file_bits;
  uint8_t function_line_bits;
  uint8_t padding[5];
};
static_assert(sizeof(LinesFooter) == 104);

// Ascending, disjoint.
struct LineArea {
  uint64_t start;  // a multiple of kLinePageBytes
  uint32_t first_page;
  uint32_t page_count;
};
static_assert(sizeof(LineArea) == 16);

// Cells of a page ascend by where they start in it.
struct LineCell {
  uint32_t data;       // offset in the cell data
  uint32_t start : 8;  // byte of the page
  uint32_t block : 24;
};
static_assert(sizeof(LineCell) == 8);

// In the cell data: this, count_minus_1 + 1 bytes (where in the page each row starts, ascending,
// the first at the cell's start), then as many packed numbers: 0, nothing is known; else chain
// first_chain + number - 1.
struct LineCellHead {
  uint8_t count_minus_1;
  uint8_t bits;
  uint8_t first_chain[4];
};
static_assert(sizeof(LineCellHead) == 6);

// In the block data, each from a whole byte on: name ids of files; nodes {function, parent, file,
// line}, of which 0 is none and a parent is below its child; chains {node, file, line}, of which 0
// is none. File 0 is "unknown".
struct LineBlock {
  uint64_t data;  // offset in the block data
  uint32_t file_count;
  uint32_t node_count;
  uint32_t chain_count;
  uint8_t file_name_bits;
  uint8_t node_function_bits;
  uint8_t node_parent_bits;
  uint8_t node_file_bits;
  uint8_t node_line_bits;
  uint8_t chain_node_bits;
  uint8_t chain_file_bits;
  uint8_t chain_line_bits;
  uint8_t padding[4];
};
static_assert(sizeof(LineBlock) == 32);

// A load of 64 bits may start at any byte of packed numbers, and all of them stand before the
// footer, which is longer than that.
static_assert(sizeof(LinesFooter) >= sizeof(uint64_t));

// `bits` is at most 32. The 8 bytes at bit_offset / 8 must be readable.
inline uint32_t LoadBits(const std::byte* bytes, uint64_t bit_offset, unsigned bits) {
  uint64_t word;
  std::memcpy(&word, bytes + (bit_offset >> 3), sizeof(word));
  return static_cast<uint32_t>((word >> (bit_offset & 7)) & ((uint64_t{1} << bits) - 1));
}

inline uint64_t BytesOfBits(uint64_t bits) { return (bits + 7) / 8; }

}  // namespace firewatch::symbolizer
