// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/line_table.h"

#include <algorithm>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

using base::DataLoss;

// A hostile table may have a chain of as many calls as it has nodes; the writer cuts at 200.
constexpr size_t kMaxCalls = 1024;
constexpr size_t kCacheLine = 64;

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

// The parts of a block in a section that is at `data`.
const std::byte* Files(const std::byte* data, const LineBlock& block) { return data + block.data; }

const std::byte* Nodes(const std::byte* data, const LineBlock& block) {
  return Files(data, block) + FilesBytes(block);
}

const std::byte* Chains(const std::byte* data, const LineBlock& block) {
  return Nodes(data, block) + NodesBytes(block);
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

bool LineTable::ReadArea(uint64_t vaddr, Search& search) const {
  const auto page = PageOf(vaddr);
  if (!page) return false;
  search.offset_ = static_cast<uint8_t>(vaddr & (kLinePageBytes - 1));
  search.page_ = *page;
  return true;
}

bool LineTable::ReadPage(Search& search) const {
  const std::byte* const pages = data_ + footer_.pages;
  search.cells_ = LoadAt<uint32_t>(pages, search.page_);
  search.cells_end_ = LoadAt<uint32_t>(pages, search.page_ + 1);
  if (search.cells_end_ > footer_.cell_data_bytes || search.cells_ >= search.cells_end_) {
    return false;
  }
  // What is read of cells is seldom more than two lines.
  const std::byte* const cells = data_ + footer_.cell_data + search.cells_;
  __builtin_prefetch(cells);
  __builtin_prefetch(cells + kCacheLine);
  return true;
}

template <bool kAhead>
bool LineTable::ReadCells(Search& search) const {
  const uint8_t offset = search.offset_;
  // The last cell of the page that starts at or before the address. There are one or two.
  uint64_t at = search.cells_;
  const uint64_t end = search.cells_end_;
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
  search.chain_ = uint64_t{first_chain} + number - 1;
  search.block_number_ =
      cell.block[0] | uint32_t{cell.block[1]} << 8 | uint32_t{cell.block[2]} << 16;
  if (search.block_number_ >= footer_.block_count) return false;
  if constexpr (kAhead)
    __builtin_prefetch(data_ + footer_.blocks + search.block_number_ * sizeof(LineBlock));
  return true;
}

template <bool kAhead>
bool LineTable::ReadBlock(Search& search) const {
  search.block_ = LoadAt<LineBlock>(data_ + footer_.blocks, search.block_number_);
  const LineBlock& block = search.block_;
  if (search.chain_ >= block.chain_count) return false;
  if constexpr (kAhead)
    __builtin_prefetch(Chains(data_, block) + (search.chain_ * ChainBits(block) >> 3));
  return true;
}

template <bool kAhead>
void LineTable::ReadChain(Search& search) const {
  const LineBlock& block = search.block_;
  const std::byte* const chains = Chains(data_, block);
  uint64_t bit = search.chain_ * ChainBits(block);
  search.node_ = LoadBits(chains, bit, block.chain_node_bits);
  bit += block.chain_node_bits;
  search.file_ = LoadBits(chains, bit, block.chain_file_bits);
  bit += block.chain_file_bits;
  search.line_ = LoadBits(chains, bit, block.chain_line_bits);
  if constexpr (!kAhead) return;
  // Both may be numbers that are not in the block: nothing is read there then.
  __builtin_prefetch(Nodes(data_, block) + (uint64_t{search.node_} * NodeBits(block) >> 3));
  __builtin_prefetch(Files(data_, block) + (uint64_t{search.file_} * block.file_name_bits >> 3));
}

void LineTable::FindCells(std::span<const uint64_t> vaddrs, std::span<Search> searches) const {
  for (size_t i = 0; i < vaddrs.size(); ++i) {
    searches[i].found_ = ReadArea(vaddrs[i], searches[i]);
    if (!searches[i].found_) continue;
    __builtin_prefetch(data_ + footer_.pages + searches[i].page_ * sizeof(uint32_t));
  }
  for (Search& search : searches) search.found_ = search.found_ && ReadPage(search);
}

void LineTable::FindChains(std::span<Search> searches) const {
  for (Search& search : searches) search.found_ = search.found_ && ReadCells<true>(search);
  for (Search& search : searches) search.found_ = search.found_ && ReadBlock<true>(search);
  for (Search& search : searches) {
    if (search.found_) ReadChain<true>(search);
  }
}

void LineTable::FindCells(uint64_t vaddr, Search* search) const {
  search->found_ = ReadArea(vaddr, *search) && ReadPage(*search);
}

void LineTable::FindChain(Search* search) const {
  search->found_ = search->found_ && ReadCells<false>(*search) && ReadBlock<false>(*search);
  if (search->found_) ReadChain<false>(*search);
}

uint32_t LineTable::FileName(const LineBlock& block, uint32_t file) const {
  if (file >= block.file_count) return 0;
  const uint32_t name =
      LoadBits(Files(data_, block), uint64_t{file} * block.file_name_bits, block.file_name_bits);
  return name < name_count_ ? name : 0;
}

size_t LineTable::Find(uint64_t vaddr, std::span<LineFrame> out) const {
  Search search;
  FindCells(vaddr, &search);
  FindChain(&search);
  return Frames(search, out);
}

size_t LineTable::Frames(const Search& search, std::span<LineFrame> out) const {
  if (out.empty() || !search.found_) return 0;
  const LineBlock& block = search.block_;
  uint32_t node = search.node_;
  uint32_t file = search.file_;
  uint32_t line = search.line_;
  if (node == 0 || node >= block.node_count) {
    out[0] = {kNoFunction, FileName(block, file), line, false};
    return 1;
  }
  const std::byte* const nodes = Nodes(data_, block);
  const std::byte* const functions = data_ + footer_.functions;
  const unsigned function_bits = unsigned{footer_.function_name_bits} + footer_.function_file_bits +
                                 footer_.function_line_bits;
  const unsigned node_bits = NodeBits(block);
  size_t count = 0;
  for (size_t calls = 0; calls < kMaxCalls; ++calls) {
    uint64_t bit = uint64_t{node} * node_bits;
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
