// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/line_table.h"

#include <algorithm>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

using base::DataLoss;

// A hostile table may have a chain of as many calls as it has nodes; the writer cuts at 200.
constexpr size_t kMaxCalls = 1024;

template <typename T>
T LoadAt(const std::byte* table, uint64_t index) {
  T value;
  std::memcpy(&value, table + index * sizeof(T), sizeof(T));
  return value;
}

bool Fits(uint64_t offset, uint64_t bytes, uint64_t size) {
  return offset <= size && bytes <= size - offset;
}

unsigned NodeBits(const LineBlock& block) {
  return unsigned{block.node_function_bits} + block.node_parent_bits + block.node_file_bits +
         block.node_line_bits;
}

unsigned ChainBits(const LineBlock& block) {
  return unsigned{block.chain_node_bits} + block.chain_file_bits + block.chain_line_bits;
}

uint64_t FilesBytes(const LineBlock& block) {
  return BytesOfBits(uint64_t{block.file_count} * block.file_name_bits);
}

uint64_t NodesBytes(const LineBlock& block) {
  return BytesOfBits(uint64_t{block.node_count} * NodeBits(block));
}

uint64_t BlockBytes(const LineBlock& block) {
  return FilesBytes(block) + NodesBytes(block) +
         BytesOfBits(uint64_t{block.chain_count} * ChainBits(block));
}

bool WidthsAreSound(const LineBlock& block) {
  const uint8_t widths[] = {block.file_name_bits,  block.node_function_bits, block.node_parent_bits,
                            block.node_file_bits,  block.node_line_bits,     block.chain_node_bits,
                            block.chain_file_bits, block.chain_line_bits};
  return std::all_of(std::begin(widths), std::end(widths), [](uint8_t bits) { return bits <= 32; });
}

// The last of `count` ascending bytes that is not above `offset`; the first one when all are.
unsigned LastNotAbove(const std::byte* starts, unsigned count, uint8_t offset) {
  unsigned first = 0;
  while (count > 1) {
    const unsigned half = count / 2;
    first += static_cast<uint8_t>(starts[first + half]) <= offset ? half : 0;
    count -= half;
  }
  return first;
}

}  // namespace

absl::StatusOr<LineTable> LineTable::Parse(std::span<const std::byte> section,
                                           uint32_t name_count) {
  LineTable table;
  const uint64_t size = section.size();
  if (size < sizeof(LinesFooter)) return DataLoss("lines: {} bytes are no footer", size);
  LinesFooter& footer = table.footer_;
  std::memcpy(&footer, section.data() + size - sizeof(footer), sizeof(footer));
  if (footer.version != kLinesVersion) {
    return DataLoss("lines: version {}, not {}", footer.version, kLinesVersion);
  }
  const unsigned function_bits =
      unsigned{footer.function_name_bits} + footer.function_file_bits + footer.function_line_bits;
  if (footer.function_name_bits > 32 || footer.function_file_bits > 32 ||
      footer.function_line_bits > 32) {
    return DataLoss("lines: functions of {} bits", function_bits);
  }
  const uint64_t end = size - sizeof(LinesFooter);
  if (!Fits(footer.areas, uint64_t{footer.area_count} * sizeof(LineArea), size) ||
      !Fits(footer.pages, (uint64_t{footer.page_count} + 1) * sizeof(uint32_t), size) ||
      !Fits(footer.cells, uint64_t{footer.cell_count} * sizeof(LineCell), size) ||
      !Fits(footer.blocks, uint64_t{footer.block_count} * sizeof(LineBlock), size) ||
      !Fits(footer.cell_data, footer.cell_data_bytes, end) ||
      !Fits(0, footer.block_data_bytes, end) ||
      !Fits(footer.functions, BytesOfBits(uint64_t{footer.function_count} * function_bits), end)) {
    return DataLoss("lines: a table leaves the section of {} bytes", size);
  }
  table.data_ = section.data();
  table.name_count_ = name_count;
  for (uint32_t i = 0; i < footer.area_count; ++i) {
    const auto area = LoadAt<LineArea>(table.data_ + footer.areas, i);
    if (!Fits(area.first_page, area.page_count, footer.page_count)) {
      return DataLoss("lines: area {} leaves the table of pages", i);
    }
  }
  for (uint32_t i = 0; i < footer.block_count; ++i) {
    const auto block = LoadAt<LineBlock>(table.data_ + footer.blocks, i);
    if (!WidthsAreSound(block) || !Fits(block.data, BlockBytes(block), footer.block_data_bytes)) {
      return DataLoss("lines: block {} leaves the section", i);
    }
  }
  return table;
}

// Area, page, cell, row. False when nothing is known there, or what is said makes no sense.
bool LineTable::FindChain(uint64_t vaddr, LineBlock* block, uint32_t* chain) const {
  // The last area that starts at or before the address. There are few.
  uint32_t low = 0;
  uint32_t high = footer_.area_count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (LoadAt<LineArea>(data_ + footer_.areas, middle).start <= vaddr) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return false;
  const auto area = LoadAt<LineArea>(data_ + footer_.areas, low - 1);
  const uint64_t page_in_area = (vaddr - area.start) >> kLinePageShift;
  if (page_in_area >= area.page_count) return false;
  const uint64_t page = area.first_page + page_in_area;
  const std::byte* const pages = data_ + footer_.pages;
  const auto offset = static_cast<uint8_t>((vaddr - area.start) & (kLinePageBytes - 1));

  uint32_t first_cell = LoadAt<uint32_t>(pages, page);
  uint32_t end_cell = LoadAt<uint32_t>(pages, page + 1);
  if (first_cell >= end_cell || end_cell > footer_.cell_count) return false;
  const std::byte* const cells = data_ + footer_.cells;
  auto cell = LoadAt<LineCell>(cells, first_cell);
  if (cell.start > offset) return false;
  while (end_cell - first_cell > 1) {  // more than one is rare, many are rarer
    const uint32_t middle = first_cell + (end_cell - first_cell) / 2;
    const auto candidate = LoadAt<LineCell>(cells, middle);
    if (candidate.start <= offset) {
      first_cell = middle;
      cell = candidate;
    } else {
      end_cell = middle;
    }
  }
  if (cell.block >= footer_.block_count ||
      !Fits(cell.data, sizeof(LineCellHead), footer_.cell_data_bytes)) {
    return false;
  }
  const std::byte* const data = data_ + footer_.cell_data + cell.data;
  LineCellHead head;
  std::memcpy(&head, data, sizeof(head));
  const unsigned count = head.count_minus_1 + 1u;
  const std::byte* const starts = data + sizeof(head);
  if (head.bits > 32 ||
      !Fits(cell.data, sizeof(head) + count + BytesOfBits(uint64_t{count} * head.bits),
            footer_.cell_data_bytes)) {
    return false;
  }
  const unsigned row = LastNotAbove(starts, count, offset);
  if (static_cast<uint8_t>(starts[row]) > offset) return false;
  const uint32_t number = LoadBits(starts + count, uint64_t{row} * head.bits, head.bits);
  if (number == 0) return false;
  uint32_t first_chain;
  std::memcpy(&first_chain, head.first_chain, sizeof(first_chain));
  std::memcpy(block, data_ + footer_.blocks + uint64_t{cell.block} * sizeof(LineBlock),
              sizeof(*block));
  const uint64_t id = uint64_t{first_chain} + number - 1;
  if (id >= block->chain_count) return false;
  *chain = static_cast<uint32_t>(id);
  return true;
}

uint32_t LineTable::FileName(const LineBlock& block, uint32_t file) const {
  if (file >= block.file_count) return 0;
  const uint32_t name =
      LoadBits(data_ + block.data, uint64_t{file} * block.file_name_bits, block.file_name_bits);
  return name < name_count_ ? name : 0;
}

size_t LineTable::Find(uint64_t vaddr, std::span<LineFrame> out) const {
  LineBlock block;
  uint32_t chain;
  if (out.empty() || !FindChain(vaddr, &block, &chain)) return 0;
  const std::byte* const nodes = data_ + block.data + FilesBytes(block);
  const std::byte* const chains = nodes + NodesBytes(block);
  uint64_t bit = uint64_t{chain} * ChainBits(block);
  uint32_t node = LoadBits(chains, bit, block.chain_node_bits);
  bit += block.chain_node_bits;
  uint32_t file = LoadBits(chains, bit, block.chain_file_bits);
  bit += block.chain_file_bits;
  uint32_t line = LoadBits(chains, bit, block.chain_line_bits);

  if (node == 0 || node >= block.node_count) {
    out[0] = {kNoFunction, FileName(block, file), line, false};
    return 1;
  }
  const unsigned node_bits = NodeBits(block);
  size_t count = 0;
  for (size_t calls = 0; calls < kMaxCalls; ++calls) {
    bit = uint64_t{node} * node_bits;
    const uint32_t function = LoadBits(nodes, bit, block.node_function_bits);
    bit += block.node_function_bits;
    const uint32_t parent = LoadBits(nodes, bit, block.node_parent_bits);
    bit += block.node_parent_bits;
    const bool inlined = parent != 0 && parent < node;
    LineFrame& frame = out[std::min(count, out.size() - 1)];
    frame = {function < footer_.function_count ? function : kNoFunction, FileName(block, file),
             line, inlined};
    count = std::min(count + 1, out.size());
    if (!inlined) break;
    file = LoadBits(nodes, bit, block.node_file_bits);
    bit += block.node_file_bits;
    line = LoadBits(nodes, bit, block.node_line_bits);
    node = parent;
  }
  return count;
}

LineTable::Function LineTable::FunctionAt(uint32_t id) const {
  if (id >= footer_.function_count) return {};
  const unsigned bits = unsigned{footer_.function_name_bits} + footer_.function_file_bits +
                        footer_.function_line_bits;
  const std::byte* const functions = data_ + footer_.functions;
  uint64_t bit = uint64_t{id} * bits;
  Function function;
  function.name = LoadBits(functions, bit, footer_.function_name_bits);
  bit += footer_.function_name_bits;
  function.file = LoadBits(functions, bit, footer_.function_file_bits);
  bit += footer_.function_file_bits;
  function.line = LoadBits(functions, bit, footer_.function_line_bits);
  if (function.name >= name_count_) function.name = 0;
  if (function.file >= name_count_) function.file = 0;
  return function;
}

}  // namespace firewatch::symbolizer
