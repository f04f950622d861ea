// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/line_program.h"

#include <algorithm>
#include <array>
#include <queue>

#include "symbolizer/dwarf/constants.h"

namespace firewatch::symbolizer::dwarf {
namespace {

// A value in the tables of files of DWARF 5.
struct TableValue {
  std::string_view text;
  uint64_t number = 0;
};

bool ReadTableValue(uint64_t form, uint8_t offset_size, const DwarfSections& sections,
                    Cursor& cursor, TableValue* out) {
  switch (form) {
    case kFormString:
      out->text = cursor.String();
      break;
    case kFormLineStrp:
      out->text = StringAt(sections.line_str, cursor.Sized(offset_size));
      break;
    case kFormStrp:
      out->text = StringAt(sections.str, cursor.Sized(offset_size));
      break;
    case kFormStrpSup:
      cursor.Sized(offset_size);  // the name is in another file
      break;
    case kFormUdata:
    case kFormStrx:
      out->number = cursor.Uleb();
      break;
    case kFormData1:
    case kFormStrx1:
      out->number = cursor.U8();
      break;
    case kFormData2:
    case kFormStrx2:
      out->number = cursor.U16();
      break;
    case kFormStrx3:
      out->number = cursor.U24();
      break;
    case kFormData4:
    case kFormStrx4:
      out->number = cursor.U32();
      break;
    case kFormData8:
      out->number = cursor.U64();
      break;
    case kFormData16:
      cursor.Skip(16);
      break;
    case kFormBlock:
      cursor.Skip(cursor.Uleb());
      break;
    case kFormBlock1:
      cursor.Skip(cursor.U8());
      break;
    case kFormBlock2:
      cursor.Skip(cursor.U16());
      break;
    case kFormBlock4:
      cursor.Skip(cursor.U32());
      break;
    default:
      cursor.Fail();
  }
  return cursor.ok();
}

bool IsAbsolute(std::string_view path) { return !path.empty() && path.front() == '/'; }

void AppendPath(std::string_view part, std::string* path) {
  if (part.empty()) return;
  if (!path->empty() && path->back() != '/') path->push_back('/');
  path->append(part);
}

}  // namespace

bool LineProgram::Open(const DwarfSections& sections, uint64_t offset, uint8_t address_size) {
  *this = LineProgram();
  address_size_ = address_size;
  Cursor cursor(sections.line, offset);
  uint64_t length = cursor.U32();
  if (length == 0xffffffff) {
    length = cursor.U64();
    offset_size_ = 8;
  }
  if (!cursor.ok() || length > cursor.left()) return false;
  const uint64_t end = cursor.position() + length;
  cursor.LimitTo(end);
  version_ = cursor.U16();
  if (version_ < 2 || version_ > 5) return false;
  if (version_ >= 5) {
    address_size_ = cursor.U8();
    cursor.U8();  // size of a segment selector
  }
  const uint64_t header_length = cursor.Sized(offset_size_);
  if (!cursor.ok() || header_length > cursor.left()) return false;
  const uint64_t program = cursor.position() + header_length;
  program_ =
      sections.line.subspan(static_cast<size_t>(program), static_cast<size_t>(end - program));
  cursor.LimitTo(program);
  minimum_instruction_ = cursor.U8();
  if (version_ >= 4) cursor.U8();  // operations per instruction: 1 but for VLIW
  cursor.U8();                     // default of is_stmt
  line_base_ = static_cast<int8_t>(cursor.U8());
  line_range_ = cursor.U8();
  opcode_base_ = cursor.U8();
  for (unsigned opcode = 1; opcode < opcode_base_; ++opcode) operand_counts_[opcode] = cursor.U8();
  if (!cursor.ok() || opcode_base_ == 0) return false;
  if (version_ >= 5) return ReadTables5(cursor, sections);
  ReadTables(cursor);
  return cursor.ok();
}

void LineProgram::ReadTables(Cursor& cursor) {
  directories_.emplace_back();  // 0 is the compilation directory
  while (cursor.ok()) {
    const std::string_view directory = cursor.String();
    if (directory.empty()) break;
    directories_.push_back(directory);
  }
  files_.emplace_back();  // files count from 1
  while (cursor.ok()) {
    const std::string_view name = cursor.String();
    if (name.empty()) break;
    const uint64_t directory = cursor.Uleb();
    cursor.Uleb();  // time
    cursor.Uleb();  // size
    files_.push_back({name, directory});
  }
}

// Twice the same: a description of an entry (what, form), then that many entries.
bool LineProgram::ReadTables5(Cursor& cursor, const DwarfSections& sections) {
  struct Field {
    uint64_t content;
    uint64_t form;
  };
  for (const bool is_files : {false, true}) {
    std::array<Field, 256> fields;
    const unsigned field_count = cursor.U8();
    for (unsigned i = 0; i < field_count; ++i) {
      fields[i].content = cursor.Uleb();
      fields[i].form = cursor.Uleb();
    }
    const uint64_t count = cursor.Uleb();
    // Every value of a field takes a byte at least.
    if (!cursor.ok() || (field_count == 0 && count != 0) || count > cursor.left()) return false;
    for (uint64_t entry = 0; entry < count; ++entry) {
      File file = {};
      for (unsigned i = 0; i < field_count; ++i) {
        TableValue value;
        if (!ReadTableValue(fields[i].form, offset_size_, sections, cursor, &value)) return false;
        if (fields[i].content == kLnctPath) file.name = value.text;
        if (fields[i].content == kLnctDirectoryIndex) file.directory = value.number;
      }
      if (is_files) {
        files_.push_back(file);
      } else {
        directories_.push_back(file.name);
      }
    }
  }
  return cursor.ok();
}

bool LineProgram::PathOf(uint64_t file, std::string_view comp_dir, std::string* path) const {
  path->clear();
  if (file >= files_.size() || files_[static_cast<size_t>(file)].name.empty()) return false;
  const File& entry = files_[static_cast<size_t>(file)];
  if (!IsAbsolute(entry.name)) {
    const std::string_view directory = entry.directory < directories_.size()
                                           ? directories_[static_cast<size_t>(entry.directory)]
                                           : std::string_view();
    const bool in_comp_dir = version_ >= 5 && entry.directory == 0;  // then it is `directory`
    if (!in_comp_dir && !IsAbsolute(directory)) AppendPath(comp_dir, path);
    AppendPath(directory, path);
  }
  AppendPath(entry.name, path);
  return true;
}

LineProgram::Counts LineProgram::Run(const CodeFilter& filter, std::vector<LineRow>* out) {
  Counts counts;
  if (!Execute(filter, true, &counts) && !counts.damaged) {
    // Rows that go backwards: all rows are needed to sort them.
    counts = Counts();
    Execute(filter, false, &counts);
  }
  out->clear();
  Arrange(out);
  return counts;
}

// The state machine. False when it stopped: damaged, or unsorted rows that were merged.
bool LineProgram::Execute(const CodeFilter& filter, bool merge, Counts* counts) {
  rows_.clear();
  sequences_.clear();
  sequence_start_ = 0;
  // What each special opcode adds. Opcodes below the base are not special.
  std::array<uint32_t, 256> advance{};
  std::array<int32_t, 256> step{};
  for (unsigned opcode = opcode_base_; opcode < 256 && line_range_ != 0; ++opcode) {
    const unsigned adjusted = opcode - opcode_base_;
    advance[opcode] = adjusted / line_range_ * minimum_instruction_;
    step[opcode] = line_base_ + static_cast<int32_t>(adjusted % line_range_);
  }
  const uint32_t const_add = advance[255];

  uint64_t address = 0;
  uint64_t file = 1;
  uint32_t line = 1;
  unsorted_ = false;
  uint64_t last_address = 0;
  const auto emit = [&] {
    const auto row_file = file >= LineRow::kEnd ? LineRow::kEnd - 1 : static_cast<uint32_t>(file);
    if (rows_.size() > sequence_start_) {
      LineRow& last = rows_.back();
      if (address < last_address) unsorted_ = true;
      if (merge) {
        if (address == last.address) {
          last.file = row_file;
          last.line = line;
          last_address = address;
          return;
        }
        if (row_file == last.file && line == last.line) {
          last_address = address;
          return;
        }
      }
    }
    last_address = address;
    rows_.push_back({address, row_file, line});
  };

  Cursor cursor(program_);
  while (!cursor.at_end()) {
    const uint8_t opcode = cursor.U8();
    if (opcode >= opcode_base_) {
      address += advance[opcode];
      line = static_cast<uint32_t>(static_cast<int32_t>(line) + step[opcode]);
      emit();
      continue;
    }
    switch (opcode) {
      case kLnsExtended: {
        const uint64_t length = cursor.Uleb();
        if (length == 0) break;
        if (length > cursor.left()) {
          cursor.Fail();
          break;
        }
        const uint64_t next = cursor.position() + length;
        switch (cursor.U8()) {
          case kLneEndSequence:
            if (unsorted_ && merge) return false;
            EndSequence(address, filter, counts);
            unsorted_ = false;
            address = 0;
            file = 1;
            line = 1;
            break;
          case kLneSetAddress:
            if (length == 9) {
              address = cursor.U64();
            } else if (length == 5) {
              address = cursor.U32();
            }
            break;
          case kLneDefineFile: {
            const std::string_view name = cursor.String();
            const uint64_t directory = cursor.Uleb();
            if (merge) files_.push_back({name, directory});
            break;
          }
          default:
            break;
        }
        cursor.JumpTo(next);
        break;
      }
      case kLnsCopy:
        emit();
        break;
      case kLnsAdvancePc:
        address += cursor.Uleb() * minimum_instruction_;
        break;
      case kLnsAdvanceLine:
        line = static_cast<uint32_t>(line + static_cast<uint64_t>(cursor.Sleb()));
        break;
      case kLnsSetFile:
        file = cursor.Uleb();
        break;
      case kLnsSetColumn:
        cursor.SkipLeb();
        break;
      case kLnsConstAddPc:
        address += const_add;
        break;
      case kLnsFixedAdvancePc:
        address += cursor.U16();
        break;
      case kLnsNegateStmt:
      case kLnsSetBasicBlock:
      case kLnsSetPrologueEnd:
      case kLnsSetEpilogueBegin:
        break;
      default:  // set_isa, and what later versions may add
        for (unsigned i = 0; i < operand_counts_[opcode]; ++i) cursor.SkipLeb();
    }
    if (rows_.size() > kMaxRows) {
      cursor.Fail();
    }
    if (!cursor.ok()) break;
  }
  rows_.resize(sequence_start_);  // a sequence without end: nobody knows how far it goes
  counts->damaged = !cursor.ok();
  return cursor.ok();
}

void LineProgram::EndSequence(uint64_t address, const CodeFilter& filter, Counts* counts) {
  const auto first = rows_.begin() + static_cast<std::ptrdiff_t>(sequence_start_);
  if (unsorted_) {
    std::stable_sort(first, rows_.end(),
                     [](const LineRow& a, const LineRow& b) { return a.address < b.address; });
  }
  while (rows_.size() > sequence_start_ && rows_.back().address >= address) rows_.pop_back();
  if (rows_.size() > sequence_start_) {
    ++counts->sequences;
    AddressRange range = {rows_[sequence_start_].address, address};
    if (!filter.IsCode(&range)) {
      ++counts->dropped;
      rows_.resize(sequence_start_);
    } else if (!filter.IsWanted(range.start, range.end)) {
      rows_.resize(sequence_start_);
    } else {
      sequences_.push_back({sequence_start_, rows_.size(), address});
    }
  }
  sequence_start_ = rows_.size();
}

// Sequences one behind the other, gaps marked.
void LineProgram::Arrange(std::vector<LineRow>* out) {
  const auto start_of = [this](const Sequence& sequence) { return rows_[sequence.first].address; };
  const auto earlier = [&](const Sequence& a, const Sequence& b) {
    return start_of(a) < start_of(b);
  };
  if (!std::is_sorted(sequences_.begin(), sequences_.end(), earlier)) {
    std::stable_sort(sequences_.begin(), sequences_.end(), earlier);
  }
  for (size_t i = 1; i < sequences_.size(); ++i) {
    if (start_of(sequences_[i]) < sequences_[i - 1].end_address) {
      ArrangeOverlaps(out);
      return;
    }
  }
  out->reserve(out->size() + rows_.size() + sequences_.size());
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = sequences_[i];
    out->insert(out->end(), rows_.begin() + static_cast<std::ptrdiff_t>(sequence.first),
                rows_.begin() + static_cast<std::ptrdiff_t>(sequence.end));
    if (i + 1 == sequences_.size() || start_of(sequences_[i + 1]) != sequence.end_address) {
      out->push_back({sequence.end_address, LineRow::kEnd, 0});
    }
  }
}

// A sweep over the sequences' starts and ends; between two of them one sequence speaks.
void LineProgram::ArrangeOverlaps(std::vector<LineRow>* out) {
  const auto ends_later = [this](size_t a, size_t b) {
    return sequences_[a].end_address != sequences_[b].end_address
               ? sequences_[a].end_address > sequences_[b].end_address
               : a > b;
  };
  std::priority_queue<size_t, std::vector<size_t>, decltype(ends_later)> open(ends_later);
  const auto start_of = [this](size_t i) { return rows_[sequences_[i].first].address; };
  size_t next = 0;
  uint64_t at = 0;
  while (next < sequences_.size() || !open.empty()) {
    if (open.empty()) at = std::max(at, start_of(next));
    while (next < sequences_.size() && start_of(next) <= at) open.push(next++);
    while (!open.empty() && sequences_[open.top()].end_address <= at) open.pop();
    if (open.empty()) continue;
    const Sequence& speaker = sequences_[open.top()];
    uint64_t to = speaker.end_address;
    if (next < sequences_.size()) to = std::min(to, start_of(next));
    const auto last = rows_.begin() + static_cast<std::ptrdiff_t>(speaker.end);
    auto row = std::upper_bound(
        rows_.begin() + static_cast<std::ptrdiff_t>(speaker.first), last, at,
        [](uint64_t address, const LineRow& candidate) { return address < candidate.address; });
    --row;  // the speaker starts at or before `at`
    if (!out->empty() && out->back().address == at) out->pop_back();  // the end before
    out->push_back({at, row->file, row->line});
    for (++row; row != last && row->address < to; ++row) out->push_back(*row);
    out->push_back({to, LineRow::kEnd, 0});
    at = to;
  }
}

}  // namespace firewatch::symbolizer::dwarf
