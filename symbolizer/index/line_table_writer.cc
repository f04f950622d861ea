// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/line_table_writer.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <queue>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "symbolizer/expect.h"
#include "symbolizer/index/bit_writer.h"
#include "symbolizer/room.h"

namespace firewatch::symbolizer {
namespace {

using base::ResourceExhausted;
using dwarf::UnitLines;

// Blocks end with the unit that brings them here. Fewer chains in a block are narrower numbers;
// more are fewer descriptors and fewer cells that end where a block does.
constexpr size_t kChainsPerBlock = 2048;
// So many functions ahead their names are asked for: they are all over a section of strings.
constexpr size_t kAhead = 8;
constexpr size_t kMaxMergedClaims = size_t{64} << 10;  // 2 MB
constexpr uint32_t kNotYet = UINT32_MAX;
constexpr uint64_t kMaxBlocks = uint64_t{1} << 24;

uint32_t SizeOf(const AddressRange& range) {
  return static_cast<uint32_t>(std::min<uint64_t>(range.end - range.start, UINT32_MAX));
}

}  // namespace

LineTableWriter::LineTableWriter(NameInterner& names, SectionSink& sink, PutAside put_aside)
    : names_(names), out_(sink), row_store_(std::move(put_aside)) {
  functions_.ReserveRoom();
  ReserveRoom(&block_.nodes);
  ReserveRoom(&block_.chains);
  ReserveRoom(&pieces_);
  ReserveRoom(&runs_);
}

uint32_t LineTableWriter::NameOf(const char* name) {
  if (name == nullptr) return 0;
  const auto pointer = reinterpret_cast<uintptr_t>(name);
  if (const uint32_t* const known = name_of_pointer_.Find(pointer)) return *known;
  return name_of_pointer_.FindOrAdd(pointer, names_.Intern(name)).first;
}

// `file` is a number of the piece that is being added.
uint32_t LineTableWriter::FileInBlock(uint32_t file) {
  uint32_t& known = files_in_block_[file];
  if (known != kNotYet) return known;
  const uint32_t name = file_names_[file];
  if (name == 0) return known = 0;
  const auto next = static_cast<uint32_t>(block_.files.size());
  const auto [in_block, found] = block_.file_of_name.FindOrAdd(name, next);
  if (!found) block_.files.push_back(name);
  return known = in_block;
}

std::vector<AddressRange> LineTableWriter::ClaimedBefore(uint64_t unit, const UnitLines& piece) {
  if (unit != unit_) {
    for (const AddressRange& range : claims_of_unit_) {
      claimed_.FindOrAdd(range.start, SizeOf(range));
    }
    claims_of_unit_.clear();
    unit_ = unit;
  }
  std::vector<AddressRange> claimed;
  for (const AddressRange& range : piece.code) {
    const uint32_t* const size = claimed_.Find(range.start);
    if (size != nullptr && *size >= SizeOf(range)) {
      claimed.push_back(range);
    } else {
      claims_of_unit_.push_back(range);
    }
  }
  std::sort(claimed.begin(), claimed.end(),
            [](const AddressRange& a, const AddressRange& b) { return a.start < b.start; });
  return claimed;
}

void LineTableWriter::DropClaimed(std::span<const AddressRange> claimed, UnitLines* piece) {
  std::vector<UnitLines::Row>& left = rows_left_;
  left.clear();
  const auto say = [&left](uint64_t address, uint32_t chain) {
    if (!left.empty() && left.back().address == address) left.pop_back();
    if (chain != (left.empty() ? 0 : left.back().chain)) left.push_back({address, chain});
  };
  size_t next = 0;
  for (size_t i = 0; i + 1 < piece->rows.size(); ++i) {
    uint64_t at = piece->rows[i].address;
    const uint64_t end = piece->rows[i + 1].address;
    const uint32_t chain = piece->rows[i].chain;
    while (at < end) {
      while (next < claimed.size() && claimed[next].end <= at) ++next;
      if (next == claimed.size() || claimed[next].start >= end) {
        say(at, chain);
        break;
      }
      if (claimed[next].start > at) say(at, chain);
      at = std::max(at, claimed[next].start);
      say(at, 0);
      at = claimed[next].end;
      ++overlaps_;
    }
  }
  if (!piece->rows.empty()) say(piece->rows.back().address, 0);
  piece->rows.swap(left);
  DropUnused(piece);
}

// Renumbers functions, nodes and chains; files are not worth it.
void LineTableWriter::DropUnused(UnitLines* piece) {
  constexpr uint32_t kUnused = UINT32_MAX;
  std::vector<uint32_t> chains(piece->chains.size(), kUnused);
  std::vector<uint32_t> nodes(piece->nodes.size(), kUnused);
  std::vector<uint32_t> functions(piece->functions.size(), kUnused);
  for (const UnitLines::Row& row : piece->rows) chains[row.chain] = 0;
  chains[0] = nodes[0] = 0;
  for (size_t i = 1; i < chains.size(); ++i) {
    if (chains[i] != kUnused) nodes[piece->chains[i].node] = 0;
  }
  for (size_t i = nodes.size(); i-- > 1;) {  // a parent comes before its children
    if (nodes[i] == kUnused) continue;
    nodes[piece->nodes[i].parent] = 0;
    functions[piece->nodes[i].function] = 0;
  }
  const auto renumber = [](std::vector<uint32_t>& numbers, auto& items) {
    uint32_t count = 0;
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] == kUnused) continue;
      items[count] = items[i];
      numbers[i] = count++;
    }
    items.resize(count);
  };
  renumber(functions, piece->functions);
  renumber(nodes, piece->nodes);
  renumber(chains, piece->chains);
  for (size_t i = 1; i < piece->nodes.size(); ++i) {
    UnitLines::Node& node = piece->nodes[i];
    node.function = functions[node.function];
    node.parent = nodes[node.parent];
  }
  for (size_t i = 1; i < piece->chains.size(); ++i) {
    piece->chains[i].node = nodes[piece->chains[i].node];
  }
  for (UnitLines::Row& row : piece->rows) row.chain = chains[row.chain];
}

absl::Status LineTableWriter::Add(uint64_t unit, UnitLines&& piece, EncodedRows* rows) {
  if (const std::vector<AddressRange> claimed = ClaimedBefore(unit, piece); !claimed.empty()) {
    DecodeRows(*rows, &piece.rows);
    DropClaimed(claimed, &piece);
    EncodeRows(piece.rows, rows);
  }
  if (rows->runs.empty()) return absl::OkStatus();
  // Names and functions get numbers of the whole file.
  file_names_.clear();
  for (size_t i = 0; i < piece.files.size(); ++i) {
    file_names_.push_back(names_.InternCopy(piece.files[i]));
  }
  files_in_block_.assign(file_names_.size(), kNotYet);
  scratch_.clear();
  for (size_t i = 0; i < piece.functions.size(); ++i) {
    if (i + kAhead < piece.functions.size()) {
      const char* const soon = piece.functions[i + kAhead].name;
      ExpectRead(soon);
      name_of_pointer_.Expect(reinterpret_cast<uintptr_t>(soon));
    }
    const UnitLines::Function& said = piece.functions[i];
    scratch_.push_back(functions_.Add({NameOf(said.name), file_names_[said.file], said.line}));
  }

  const auto node_base = static_cast<uint32_t>(block_.nodes.size() - 1);
  const auto chain_base = static_cast<uint32_t>(block_.chains.size() - 1);
  if (piece.nodes.size() > UINT32_MAX / 2 || piece.chains.size() > UINT32_MAX / 2) {
    return ResourceExhausted("lines: {} calls at once", piece.nodes.size());
  }
  for (size_t i = 1; i < piece.nodes.size(); ++i) {
    const UnitLines::Node& node = piece.nodes[i];
    block_.nodes.push_back({.function = scratch_[node.function],
                            .parent = node.parent == 0 ? 0 : node.parent + node_base,
                            .call_file = FileInBlock(node.call_file),
                            .call_line = node.call_line});
  }
  for (size_t i = 1; i < piece.chains.size(); ++i) {
    const UnitLines::Chain& chain = piece.chains[i];
    block_.chains.push_back({.node = chain.node == 0 ? 0 : chain.node + node_base,
                             .file = FileInBlock(chain.file),
                             .line = chain.line});
  }
  pieces_.push_back({.place = {},
                     .unit = unit,
                     .block = static_cast<uint32_t>(blocks_.size()),
                     .first_chain = chain_base});
  AddRows(*rows);
  return block_.chains.size() >= kChainsPerBlock ? FlushBlock() : absl::OkStatus();
}

absl::Status LineTableWriter::FlushBlock() {
  if (block_.chains.size() <= 1) return absl::OkStatus();
  if (blocks_.size() >= kMaxBlocks) return ResourceExhausted("lines: {} blocks", blocks_.size());
  LineBlock block = {.data = out_.size(),
                     .file_count = static_cast<uint32_t>(block_.files.size()),
                     .node_count = static_cast<uint32_t>(block_.nodes.size()),
                     .chain_count = static_cast<uint32_t>(block_.chains.size())};
  uint32_t name = 0;
  for (const uint32_t file : block_.files) name = std::max(name, file);
  UnitLines::Node node;
  for (const UnitLines::Node& each : block_.nodes) {
    node.function = std::max(node.function, each.function);
    node.parent = std::max(node.parent, each.parent);
    node.call_file = std::max(node.call_file, each.call_file);
    node.call_line = std::max(node.call_line, each.call_line);
  }
  UnitLines::Chain chain;
  for (const UnitLines::Chain& each : block_.chains) {
    chain.node = std::max(chain.node, each.node);
    chain.file = std::max(chain.file, each.file);
    chain.line = std::max(chain.line, each.line);
  }
  block.file_name_bits = BitsFor(name);
  block.node_function_bits = BitsFor(node.function);
  block.node_parent_bits = BitsFor(node.parent);
  block.node_file_bits = BitsFor(node.call_file);
  block.node_line_bits = BitsFor(node.call_line);
  block.chain_node_bits = BitsFor(chain.node);
  block.chain_file_bits = BitsFor(chain.file);
  block.chain_line_bits = BitsFor(chain.line);

  packed_.clear();
  BitWriter writer(&packed_);
  for (const uint32_t file : block_.files) writer.Put(file, block.file_name_bits);
  writer.Align();
  for (const UnitLines::Node& each : block_.nodes) {
    writer.Put(each.function, block.node_function_bits);
    writer.Put(each.parent, block.node_parent_bits);
    writer.Put(each.call_file, block.node_file_bits);
    writer.Put(each.call_line, block.node_line_bits);
  }
  writer.Align();
  for (const UnitLines::Chain& each : block_.chains) {
    writer.Put(each.node, block.chain_node_bits);
    writer.Put(each.file, block.chain_file_bits);
    writer.Put(each.line, block.chain_line_bits);
  }
  writer.Align();
  RETURN_IF_ERROR(out_.Append(packed_));
  blocks_.push_back(block);
  first_chains_.push_back(has_function_.size());
  has_function_.resize(has_function_.size() + block_.chains.size(), true);
  for (size_t i = 0; i < block_.chains.size(); ++i) {
    if (block_.chains[i].node == 0) has_function_[first_chains_.back() + i] = false;
  }
  block_.files.assign(1, 0);
  block_.file_of_name.Clear();
  block_.nodes.assign(1, {});
  block_.chains.assign(1, {});
  return absl::OkStatus();
}

void LineTableWriter::AddRows(const EncodedRows& rows) {
  for (const EncodedRows::Run& run : rows.runs) {
    runs_.push_back({.start = run.start,
                     .end = run.end,
                     .piece = static_cast<uint32_t>(pieces_.size() - 1),
                     .offset = static_cast<uint32_t>(run.offset)});
  }
  pieces_.back().place = row_store_.Add(rows.bytes.bytes());
}

template <typename Take>
void LineTableWriter::DecodeRun(const Run& run, const Take& take) const {
  const PieceRows& piece = pieces_[run.piece];
  RowDecoder decoder(row_store_.At(piece.place) + run.offset, run.start);
  UnitLines::Row row;
  for (bool more = true; more;) {
    more = decoder.Next(&row);
    const uint32_t chain = row.chain == 0 ? 0 : row.chain + piece.first_chain;
    take(LineBlockRow{row.address, piece.block, chain});
  }
}

// Those of each run are in order, so they are merged; many, in place, for the sake of memory.
void LineTableWriter::SortClaims() {
  const auto earlier = [](const Claim& a, const Claim& b) {
    return a.start != b.start ? a.start < b.start : a.piece < b.piece;
  };
  if (claims_.size() > kMaxMergedClaims) {
    std::sort(claims_.begin(), claims_.end(), earlier);
    return;
  }
  std::vector<size_t>& bounds = claims_of_run_;
  while (bounds.size() > 2) {
    merged_claims_.clear();
    size_t kept = 1;
    for (size_t i = 0; i + 1 < bounds.size(); i += 2) {
      const Claim* const start = claims_.data() + bounds[i];
      const Claim* const middle = claims_.data() + bounds[i + 1];
      const Claim* const end = claims_.data() + bounds[std::min(i + 2, bounds.size() - 1)];
      std::merge(start, middle, middle, end, std::back_inserter(merged_claims_), earlier);
      bounds[kept++] = static_cast<size_t>(end - claims_.data());
    }
    bounds.resize(kept);
    claims_.swap(merged_claims_);
  }
}

// Runs of several units that overlap. Who knows the function speaks before who knows the line alone
// (as where identical functions were folded into one), then the earlier unit, and of a
// unit what came last.
void LineTableWriter::MergeRuns(size_t first, size_t end, std::vector<LineBlockRow>* rows) {
  std::vector<Claim>& claims = claims_;
  claims.clear();
  claims_of_run_.clear();
  for (size_t i = first; i < end; ++i) {
    claims_of_run_.push_back(claims.size());
    LineBlockRow before = {};
    DecodeRun(runs_[i], [&](const LineBlockRow& row) {
      if (before.chain != 0) {
        claims.push_back({before.address, row.address, before.block, before.chain, runs_[i].piece});
      }
      before = row;
    });
  }
  claims_of_run_.push_back(claims.size());
  SortClaims();
  const auto has_function = [this](const Claim* claim) -> bool {
    return has_function_[first_chains_[claim->block] + claim->chain];
  };
  const auto yields = [&](const Claim* a, const Claim* b) {
    if (has_function(a) != has_function(b)) return has_function(b);
    const uint64_t unit_a = pieces_[a->piece].unit;
    const uint64_t unit_b = pieces_[b->piece].unit;
    if (unit_a != unit_b) return unit_a > unit_b;
    return a->piece < b->piece;
  };
  std::priority_queue<const Claim*, std::vector<const Claim*>, decltype(yields)> open(yields);
  const auto say = [rows](uint64_t at, const Claim* claim) {
    rows->push_back(claim == nullptr ? LineBlockRow{at, 0, 0}
                                     : LineBlockRow{at, claim->block, claim->chain});
  };
  const Claim* next = claims.data();
  const Claim* const last = next + claims.size();
  while (next != last || !open.empty()) {
    // Runs that lie between one another's rows are the rule, two that claim a byte are not.
    if (open.empty() && (next + 1 == last || next->end <= next[1].start)) {
      say(next->start, next);
      if (next + 1 == last || next->end != next[1].start) say(next->end, nullptr);
      ++next;
      continue;
    }
    if (open.empty() || (next != last && next->start < open.top()->end)) {
      const uint64_t start = next->start;
      const Claim* const before = open.empty() ? nullptr : open.top();
      for (; next != last && next->start == start; ++next) {
        overlaps_ += open.empty() ? 0 : 1;
        open.push(next);
      }
      if (open.top() != before) say(start, open.top());
      continue;
    }
    const uint64_t at = open.top()->end;
    while (!open.empty() && open.top()->end <= at) open.pop();
    say(at, open.empty() ? nullptr : open.top());
  }
}

absl::Status LineTableWriter::Finish(uint64_t max_rows) {
  RETURN_IF_ERROR(FlushBlock());
  row_store_.Finish();
  block_ = {};
  name_of_pointer_ = {};
  claimed_ = {};
  std::vector<AddressRange>().swap(claims_of_unit_);
  LinesFooter footer = {.version = kLinesVersion,
                        .function_count = static_cast<uint32_t>(functions_.size()),
                        .block_count = static_cast<uint32_t>(blocks_.size()),
                        .block_data_bytes = out_.size(),
                        .cell_data = out_.size()};
  std::sort(runs_.begin(), runs_.end(), [](const Run& a, const Run& b) {
    return a.start != b.start ? a.start < b.start : a.piece < b.piece;
  });
  LineCellWriter cells(max_rows, out_);
  std::vector<LineBlockRow> rows;
  for (size_t i = 0; i < runs_.size();) {
    uint64_t end_address = runs_[i].end;
    size_t end = i + 1;
    for (; end < runs_.size() && runs_[end].start < end_address; ++end) {
      end_address = std::max(end_address, runs_[end].end);
    }
    absl::Status status;
    const auto add = [&](const LineBlockRow& row) {
      if (status.ok()) status = cells.Add(row);
    };
    if (end == i + 1) {
      DecodeRun(runs_[i], add);
    } else {
      rows.clear();
      MergeRuns(i, end, &rows);
      for (const LineBlockRow& row : rows) add(row);
    }
    RETURN_IF_ERROR(status);
    i = end;
  }
  RETURN_IF_ERROR(cells.Finish());
  row_count_ = cells.row_count();
  footer.row_count = cells.row_count();
  footer.cell_data_bytes = cells.data_bytes();
  footer.area_count = static_cast<uint32_t>(cells.areas().size());
  footer.page_count = static_cast<uint32_t>(cells.pages().size() - 1);
  footer.cell_count = cells.cell_count();
  RETURN_IF_ERROR(WriteFunctions(&footer));
  RETURN_IF_ERROR(WriteTable<LineArea>(cells.areas(), &footer.areas));
  RETURN_IF_ERROR(WriteTable<uint32_t>(cells.pages(), &footer.pages));
  RETURN_IF_ERROR(WriteTable<LineBlock>(blocks_, &footer.blocks));
  uint64_t end;
  return WriteTable<LinesFooter>(std::span(&footer, 1), &end);
}

template <typename T>
absl::Status LineTableWriter::WriteTable(std::span<const T> table, uint64_t* offset) {
  RETURN_IF_ERROR(out_.Align());
  *offset = out_.size();
  return out_.Append(std::as_bytes(table));
}

absl::Status LineTableWriter::WriteFunctions(LinesFooter* footer) {
  Function largest = {};
  for (const Function& function : functions_.items()) {
    largest.name = std::max(largest.name, function.name);
    largest.file = std::max(largest.file, function.file);
    largest.line = std::max(largest.line, function.line);
  }
  footer->function_name_bits = BitsFor(largest.name);
  footer->function_file_bits = BitsFor(largest.file);
  footer->function_line_bits = BitsFor(largest.line);
  footer->functions = out_.size();
  packed_.clear();
  BitWriter writer(&packed_);
  for (const Function& function : functions_.items()) {
    writer.Put(function.name, footer->function_name_bits);
    writer.Put(function.file, footer->function_file_bits);
    writer.Put(function.line, footer->function_line_bits);
  }
  writer.Align();
  return out_.Append(packed_);
}

}  // namespace firewatch::symbolizer
