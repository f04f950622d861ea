// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/unit_lines.h"

#include <algorithm>
#include <queue>
#include <utility>

namespace firewatch::symbolizer::dwarf {
namespace {

constexpr uint32_t kUnset = UINT32_MAX;
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

void UnitReader::Read(const InfoFile& file, uint64_t offset, const CodeFilter& filter,
                      UnitLines* out, UnitCounts* counts) {
  *out = UnitLines();
  foreign_.Trim();
  ++counts->units;
  Unit unit;
  if (!unit.Open(file, offset, false)) {
    ++counts->units_bad;
    return;
  }
  comp_dir_ = unit.comp_dir();

  // 1.
  line_rows_.clear();
  program_ = LineProgram();
  if (unit.line_program()) {
    if (program_.Open(file.sections(), *unit.line_program(), unit.header().shape.address_size)) {
      const LineProgram::Counts lines = program_.Run(filter, &line_rows_);
      counts->sequences_dropped += lines.dropped;
      counts->line_programs_bad += lines.damaged ? 1 : 0;
    } else {
      ++counts->line_programs_bad;
    }
  }

  // 2. The entries of a split unit are elsewhere.
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
  const FunctionCounts functions = walk_.Read(*with_entries, filter, foreign_);
  counts->functions += functions.functions;
  counts->inlined += functions.inlined;
  counts->ranges_dropped += functions.ranges_dropped;
  counts->names_missing += functions.names_missing;
  counts->units_bad += functions.damaged ? 1 : 0;

  // 3 and 4.
  Flatten();
  Join(out);
  // What was opened for this split unit goes with it.
  if (split.unit != nullptr) foreign_.Clear();
}

void UnitReader::Flatten() {
  ranges_.assign(walk_.ranges().begin(), walk_.ranges().end());
  std::sort(ranges_.begin(), ranges_.end(), [](const CodeRange& a, const CodeRange& b) {
    return a.start != b.start ? a.start < b.start : a.entry < b.entry;
  });
  segments_.clear();
  const auto say = [this](uint64_t start, uint32_t entry) {
    if (!segments_.empty() && segments_.back().start == start) segments_.pop_back();
    const uint32_t before = segments_.empty() ? 0 : segments_.back().entry;
    if (entry != before) segments_.push_back({start, entry});
  };
  // Of the ranges that are open, the one of the last entry speaks. Those that ended below it are
  // removed when they come to the top.
  const auto speaks_later = [](const CodeRange* a, const CodeRange* b) {
    return a->entry < b->entry;
  };
  std::priority_queue<const CodeRange*, std::vector<const CodeRange*>, decltype(speaks_later)> open(
      speaks_later);
  const CodeRange* next = ranges_.data();
  const CodeRange* const end = next + ranges_.size();
  while (next != end || !open.empty()) {
    if (open.empty() || (next != end && next->start < open.top()->end)) {
      const uint64_t start = next->start;
      for (; next != end && next->start == start; ++next) open.push(next);
      say(start, open.top()->entry);
      continue;
    }
    const uint64_t at = open.top()->end;
    while (!open.empty() && open.top()->end <= at) open.pop();
    say(at, open.empty() ? 0 : open.top()->entry);
  }
}

void UnitReader::Join(UnitLines* out) {
  node_of_entry_.assign(walk_.entries().size(), kUnset);
  function_of_name_.assign(walk_.names().size(), kUnset);
  file_of_index_.clear();
  functions_.Clear();
  nodes_.Clear();
  nodes_.Add({.function = kUnset});  // 0: none
  chains_.Clear();
  chains_.Add({});
  out->files.emplace_back();

  const LineRow* line = line_rows_.data();
  const LineRow* const line_end = line + line_rows_.size();
  const Segment* segment = segments_.data();
  const Segment* const segment_end = segment + segments_.size();
  uint32_t entry = 0;
  const LineRow* current = nullptr;
  while (line != line_end || segment != segment_end) {
    uint64_t at = UINT64_MAX;
    if (line != line_end) at = line->address;
    if (segment != segment_end) at = std::min(at, segment->start);
    while (line != line_end && line->address == at) {
      current = line->file == LineRow::kEnd ? nullptr : line;
      ++line;
    }
    while (segment != segment_end && segment->start == at) {
      entry = segment->entry;
      ++segment;
    }
    AddRow(at, entry, current, out);
  }
  out->functions = functions_.Take();
  out->nodes = nodes_.Take();
  out->chains = chains_.Take();
}

void UnitReader::AddRow(uint64_t address, uint32_t entry, const LineRow* line, UnitLines* out) {
  UnitLines::Chain chain;
  if (entry != 0) chain.node = NodeOf(entry, out);
  if (line != nullptr) {
    chain.file = FileOf(line->file, out);
    chain.line = line->line;
  }
  const uint32_t id = chains_.Add(chain);
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
  } else if (said.has_file && ForeignUnits::PathOf(*said.file_unit, said.file, &path_)) {
    function.file = AddFile(out);
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
  if (!program_.PathOf(file, comp_dir_, &path_)) return 0;
  if (index >= file_of_index_.size()) file_of_index_.resize(index + 1, kUnset);
  file_of_index_[index] = AddFile(out);
  return file_of_index_[index];
}

// Two numbers may stand for one path; whoever makes names of them does not mind.
uint32_t UnitReader::AddFile(UnitLines* out) {
  out->files.push_back(path_);
  return static_cast<uint32_t>(out->files.size() - 1);
}

}  // namespace firewatch::symbolizer::dwarf
