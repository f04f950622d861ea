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

std::optional<uint64_t> LineTable::PageOf(uint64_t vaddr) const {
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
  if (low == 0) return std::nullopt;
  const auto area = LoadAt<LineArea>(data_ + footer_.areas, low - 1);
  const uint64_t page_in_area = (vaddr - area.start) >> kLinePageShift;
  if (page_in_area >= area.page_count) return std::nullopt;
  return area.first_page + page_in_area;
}

void LineTable::Prefetch(uint64_t vaddr) const {
  const auto page = PageOf(vaddr);
  if (!page) return;
  const uint64_t at = LoadAt<uint32_t>(data_ + footer_.pages, *page);
  if (at < footer_.cell_data_bytes) __builtin_prefetch(data_ + footer_.cell_data + at);
}

// Page, cell, row. False when nothing is known there, or what is said makes no sense.
bool LineTable::FindChain(uint64_t vaddr, LineBlock* block, uint32_t* chain) const {
  const auto page = PageOf(vaddr);
  if (!page) return false;
  const std::byte* const pages = data_ + footer_.pages;
  const auto offset = static_cast<uint8_t>(vaddr & (kLinePageBytes - 1));

  // The last cell of the page that starts at or before the address. There are one or two.
  uint64_t at = LoadAt<uint32_t>(pages, *page);
  const uint64_t end = LoadAt<uint32_t>(pages, *page + 1);
  if (end > footer_.cell_data_bytes) return false;
  const std::byte* const data = data_ + footer_.cell_data;
  LineCell cell;
  const std::byte* starts = nullptr;
  while (at + sizeof(LineCell) < end) {
    LineCell next;
    std::memcpy(&next, data + at, sizeof(next));
    const std::byte* const next_starts = data + at + sizeof(next);
    if (static_cast<uint8_t>(*next_starts) > offset) break;
    const unsigned count = next.count_minus_1 + 1u;
    at += sizeof(next) + count + BytesOfBits(uint64_t{count} * next.bits);
    if (next.bits > 32 || at > end) return false;
    cell = next;
    starts = next_starts;
  }
  if (starts == nullptr) return false;
  const unsigned count = cell.count_minus_1 + 1u;
  const unsigned row = LastNotAbove(starts, count, offset);
  const uint32_t number = LoadBits(starts + count, uint64_t{row} * cell.bits, cell.bits);
  if (number == 0) return false;
  uint32_t first_chain;
  std::memcpy(&first_chain, cell.first_chain, sizeof(first_chain));
  const uint32_t block_number =
      cell.block[0] | uint32_t{cell.block[1]} << 8 | uint32_t{cell.block[2]} << 16;
  const uint64_t id = uint64_t{first_chain} + number - 1;
  if (block_number >= footer_.block_count) return false;
  *block = LoadAt<LineBlock>(data_ + footer_.blocks, block_number);
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
  const std::byte* const functions = data_ + footer_.functions;
  const unsigned function_bits = unsigned{footer_.function_name_bits} + footer_.function_file_bits +
                                 footer_.function_line_bits;
  const unsigned node_bits = NodeBits(block);
  size_t count = 0;
  for (size_t calls = 0; calls < kMaxCalls; ++calls) {
    bit = uint64_t{node} * node_bits;
    const uint32_t function = LoadBits(nodes, bit, block.node_function_bits);
    bit += block.node_function_bits;
    // Functions lie anywhere, and who asks for frames asks for them next.
    __builtin_prefetch(functions + (uint64_t{function} * function_bits >> 3));
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
