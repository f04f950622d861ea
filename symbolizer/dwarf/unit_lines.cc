// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/unit_lines.h"

#include <algorithm>
#include <utility>

#include "symbolizer/room.h"

namespace firewatch::symbolizer::dwarf {
namespace {

constexpr uint32_t kUnset = UINT32_MAX;
constexpr uint64_t kMaxReadsOfLines = 64;
constexpr uint64_t kMaxFileIndex = uint64_t{1} << 24;

}  // namespace

void UnitCounts::Add(const UnitCounts& other) {
  units += other.units;
  units_bad += other.units_bad;
  units_without_dwo += other.units_without_dwo;
  functions += other.functions;
  inlined += other.inlined;
  ranges_dropped += other.ranges_dropped;
  sequences_dropped += other.sequences_dropped;
  line_programs_bad += other.line_programs_bad;
  names_missing += other.names_missing;
}

UnitReader::UnitReader(SplitUnits& split) : split_(split) {
  ReserveRoom(&piece_.functions);
  ReserveRoom(&piece_.nodes);
  ReserveRoom(&piece_.chains);
  ReserveRoom(&piece_.rows);
  functions_.ReserveRoom();
  nodes_.ReserveRoom();
  chains_.ReserveRoom();
}

void UnitReader::Read(const InfoFile& file, uint64_t offset, const CodeFilter& filter,
                      const TakePiece& take, UnitCounts* counts) {
  foreign_.Trim();
  ++counts->units;
  Unit unit;
  if (!unit.Open(file, offset, false)) {
    ++counts->units_bad;
    return;
  }
  if (unit.is_partial()) return;
  comp_dir_ = unit.comp_dir();
  ReadLines(unit, filter, counts);

  // The entries of a split unit are elsewhere.
  const Unit* with_entries = &unit;
  SplitUnits::Opened split;
  if (unit.dwo_id() != 0 || !unit.dwo_name().empty()) {
    split = split_.Open(unit);
    if (split.unit != nullptr) {
      with_entries = split.unit.get();
    } else {
      ++counts->units_without_dwo;
    }
  }
  walk_.Start(*with_entries, filter, foreign_);
  while (walk_.Read()) {
    UnitLines* const piece = StartPiece();
    Flatten(piece);
    const std::span<const AddressRange> code = walk_.function_ranges();
    const std::span<const AddressRange> in_piece = code.subspan(walk_.first_function_range());
    piece->code.assign(in_piece.begin(), in_piece.end());
    FinishPiece(piece, take);
  }
  UnitLines* const rest = StartPiece();
  AddCodeOutsideFunctions(unit, filter, rest);
  FinishPiece(rest, take);

  const FunctionCounts& functions = walk_.counts();
  counts->functions += functions.functions;
  counts->inlined += functions.inlined;
  counts->ranges_dropped += functions.ranges_dropped;
  counts->names_missing += functions.names_missing;
  counts->units_bad += functions.damaged ? 1 : 0;
  // What was opened for this split unit goes with it.
  if (split.unit != nullptr) foreign_.Clear();
}

void UnitReader::ReadLines(const Unit& unit, const CodeFilter& filter, UnitCounts* counts) {
  line_rows_.Clear();
  program_ = LineProgram();
  file_of_index_.clear();
  if (!unit.line_program()) return;
  if (!program_.Open(unit.file().sections(), *unit.line_program(),
                     unit.header().shape.address_size)) {
    ++counts->line_programs_bad;
    return;
  }
  // Units may share a program, but do so a few at a time.
  line_bytes_read_ += program_.size_bytes();
  if (line_bytes_read_ / kMaxReadsOfLines > unit.file().sections().line.size()) {
    ++counts->line_programs_bad;
    return;
  }
  const LineProgram::Counts lines = program_.Run(filter, &line_rows_);
  counts->sequences_dropped += lines.dropped;
  counts->line_programs_bad += lines.damaged ? 1 : 0;
}

UnitLines* UnitReader::StartPiece() {
  node_of_entry_.assign(walk_.entries().size(), kUnset);
  function_of_name_.assign(walk_.names().size(), kUnset);
  file_of_index_.clear();
  file_of_foreign_.Clear();
  functions_.Clear();
  nodes_.Clear();
  nodes_.Add({.function = kUnset});  // 0: none
  chains_.Clear();
  chains_.Add({});
  piece_.Clear();
  piece_.files.Add("");
  line_reader_ = LineRows::Reader(line_rows_);
  return &piece_;
}

void UnitReader::FinishPiece(UnitLines* out, const TakePiece& take) {
  if (out->rows.empty()) return;
  functions_.TakeInto(&out->functions);
  nodes_.TakeInto(&out->nodes);
  chains_.TakeInto(&out->chains);
  take(std::move(*out));
}

// A sweep over the starts and ends of ranges. Of those that are open, the one of the last entry
// speaks; those that ended below it are removed when they come to the top.
void UnitReader::Flatten(UnitLines* out) {
  std::vector<CodeRange>& ranges = walk_.ranges();
  std::sort(ranges.begin(), ranges.end(), [](const CodeRange& a, const CodeRange& b) {
    return a.start != b.start ? a.start < b.start : a.entry < b.entry;
  });
  std::vector<const CodeRange*>& open = open_ranges_;
  open.clear();
  const auto speaks_later = [](const CodeRange* a, const CodeRange* b) {
    return a->entry < b->entry;
  };
  const CodeRange* next = ranges.data();
  const CodeRange* const end = next + ranges.size();
  uint64_t at = 0;
  while (next != end || !open.empty()) {
    if (open.empty()) {
      at = next->start;
    } else {
      const CodeRange& speaker = *open.front();
      const uint64_t to = next == end ? speaker.end : std::min(speaker.end, next->start);
      if (at < to) AddRows(at, to, speaker.entry, out);
      at = to;
    }
    while (!open.empty() && open.front()->end <= at) {
      std::pop_heap(open.begin(), open.end(), speaks_later);
      open.pop_back();
    }
    for (; next != end && next->start == at; ++next) {
      open.push_back(next);
      std::push_heap(open.begin(), open.end(), speaks_later);
    }
    if (open.empty()) AddRow(at, 0, nullptr, out);
  }
}

// Some code has a line but no function, as what is written in assembler. Padding behind a function
// has a line in many programs, too, but is no code of the unit, which says what its ranges are.
void UnitReader::AddCodeOutsideFunctions(const Unit& unit, const CodeFilter& filter,
                                         UnitLines* out) {
  const auto by_start = [](const AddressRange& a, const AddressRange& b) {
    return a.start < b.start;
  };
  unit_ranges_.clear();
  size_t budget = unit.RangeBudget();
  unit.RangesOf(unit.attributes(), &budget, &unit_ranges_);
  std::sort(unit_ranges_.begin(), unit_ranges_.end(), by_start);
  if (unit_ranges_.empty()) unit_ranges_.push_back({0, UINT64_MAX});
  std::vector<AddressRange>& functions = walk_.function_ranges();
  std::sort(functions.begin(), functions.end(), by_start);

  auto function = functions.begin();
  uint64_t at = 0;
  for (const AddressRange& range : unit_ranges_) {
    at = std::max(at, range.start);
    while (at < range.end) {
      while (function != functions.end() && function->end <= at) ++function;
      const uint64_t to = function == functions.end()
                              ? range.end
                              : std::min(range.end, std::max(at, function->start));
      if (at < to && filter.IsWanted(at, to)) {
        AddRows(at, to, 0, out);
        AddRow(to, 0, nullptr, out);
      }
      at = to;
      // Functions may overlap; this one covers the code up to its end.
      if (function != functions.end() && function->start <= at) at = std::max(at, function->end);
    }
  }
}

// The rows of [start, end), all of one entry; `start` never goes back within a piece.
void UnitReader::AddRows(uint64_t start, uint64_t end, uint32_t entry, UnitLines* out) {
  // On to the row that ends behind `start`: it is one of the next few, or far away.
  constexpr int kMaxSteps = 4;
  bool more = line_reader_.valid();
  for (int steps = 0; more && line_reader_.row().end <= start; ++steps) {
    more = steps < kMaxSteps && line_reader_.Next();
  }
  if (!more) more = line_reader_.Seek(start);
  for (uint64_t at = start; at < end;) {
    const LineRow* row = more ? &line_reader_.row() : nullptr;
    if (row == nullptr || row->start > at) {
      AddRow(at, entry, nullptr, out);
      at = row == nullptr ? end : std::min(end, row->start);
      continue;
    }
    AddRow(at, entry, row, out);
    at = std::min(end, row->end);
    if (row->end <= at) more = line_reader_.Next();
  }
}

void UnitReader::AddRow(uint64_t address, uint32_t entry, const LineRow* line, UnitLines* out) {
  UnitLines::Chain chain;
  if (entry != 0) chain.node = NodeOf(entry, out);
  if (line != nullptr) {
    chain.file = FileOf(line->file, out);
    chain.line = line->line;
  }
  const uint32_t id = chains_.Add(chain);
  if (!out->rows.empty() && out->rows.back().address == address) {
    // The end of what came before.
    out->rows.pop_back();
  }
  const uint32_t before = out->rows.empty() ? 0 : out->rows.back().chain;
  if (id != before) out->rows.push_back({address, id});
}

uint32_t UnitReader::NodeOf(uint32_t entry, UnitLines* out) {
  if (node_of_entry_[entry] != kUnset) return node_of_entry_[entry];
  const std::span<const CodeEntry> entries = walk_.entries();
  path_to_root_.clear();
  uint32_t parent = 0;
  for (uint32_t at = entry; at != 0; at = entries[at].parent) {
    if (node_of_entry_[at] != kUnset) {
      parent = node_of_entry_[at];
      break;
    }
    path_to_root_.push_back(at);
  }
  for (size_t i = path_to_root_.size(); i-- > 0;) {
    const CodeEntry& said = entries[path_to_root_[i]];
    UnitLines::Node node = {.function = FunctionOf(said.name, out), .parent = parent};
    if (parent != 0) {
      node.call_file = said.call_file == CodeEntry::kNoFile ? 0 : FileOf(said.call_file, out);
      node.call_line = said.call_line;
    }
    parent = nodes_.Add(node);
    node_of_entry_[path_to_root_[i]] = parent;
  }
  return parent;
}

uint32_t UnitReader::FunctionOf(uint32_t name, UnitLines* out) {
  uint32_t& id = function_of_name_[name];
  if (id != kUnset) return id;
  const FunctionName& said = walk_.names()[name];
  UnitLines::Function function = {.name = said.name};
  function.line = said.line > UINT32_MAX ? 0 : static_cast<uint32_t>(said.line);
  if (said.has_file && said.file_unit == nullptr) {
    function.file = FileOf(said.file, out);
  } else if (said.has_file) {
    function.file = ForeignFileOf(said, out);
  }
  id = functions_.Add(function);
  return id;
}

uint32_t UnitReader::FileOf(uint64_t file, UnitLines* out) {
  if (file >= kMaxFileIndex) return 0;
  const auto index = static_cast<size_t>(file);
  if (index < file_of_index_.size() && file_of_index_[index] != kUnset) {
    return file_of_index_[index];
  }
  // Also that there is none: rows may ask for it by the million.
  if (index >= file_of_index_.size()) file_of_index_.resize(index + 1, kUnset);
  file_of_index_[index] = program_.PathOf(file, comp_dir_, &path_) ? AddFile(out) : 0;
  return file_of_index_[index];
}

// With link-time optimization most functions of a unit come from others, a few files of each.
uint32_t UnitReader::ForeignFileOf(const FunctionName& said, UnitLines* out) {
  constexpr uint64_t kMaxKnownFile = UINT16_MAX;  // the numbers of units stand above it
  const bool may_be_known = said.file <= kMaxKnownFile;
  const uint64_t key = said.file_unit->number * (kMaxKnownFile + 1) + said.file;
  if (may_be_known) {
    if (const uint32_t* const known = file_of_foreign_.Find(key)) return *known;
  }
  const uint32_t file = ForeignUnits::PathOf(*said.file_unit, said.file, &path_) ? AddFile(out) : 0;
  if (may_be_known) file_of_foreign_.FindOrAdd(key, file);
  return file;
}

// Two numbers may stand for one path; whoever makes names of them does not mind.
uint32_t UnitReader::AddFile(UnitLines* out) {
  out->files.Add(path_);
  return static_cast<uint32_t>(out->files.size() - 1);
}

}  // namespace firewatch::symbolizer::dwarf
