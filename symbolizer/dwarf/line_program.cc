// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/line_program.h"

#include <algorithm>
#include <array>

#include "symbolizer/dwarf/constants.h"

namespace firewatch::symbolizer::dwarf {
namespace {

// A value in the tables of files of DWARF 5.
struct TableValue {
  std::string_view text;
  uint64_t number = 0;
};

bool ReadTableValue(uint64_t form, uint8_t offset_size, const DwarfSections& sections,
                    ByteCursor& cursor, TableValue* out) {
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
  relative_paths_ = sections.relative_paths;
  ByteCursor cursor(sections.line, offset);
  uint64_t length = cursor.U32();
  if (length == 0xffffffff) {
    length = cursor.U64();
    offset_size_ = 8;
  }
  if (!cursor.ok() || length > cursor.left()) return false;
  const uint64_t end = cursor.position() + length;
  size_bytes_ = end - offset;
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

void LineProgram::ReadTables(ByteCursor& cursor) {
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
bool LineProgram::ReadTables5(ByteCursor& cursor, const DwarfSections& sections) {
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
    if (!in_comp_dir && !relative_paths_ && !IsAbsolute(directory)) AppendPath(comp_dir, path);
    if (!in_comp_dir || !relative_paths_) AppendPath(directory, path);
  }
  AppendPath(entry.name, path);
  return true;
}

LineProgram::Counts LineProgram::Run(const CodeFilter& filter, LineRows* out) {
  Counts counts;
  out->Clear();
  if (!Execute(filter, Order::kAsTheyCome, out, &counts)) {
    // Rows that go backwards. Once more, with each sequence in memory to be sorted.
    counts = Counts();
    out->Clear();
    Execute(filter, Order::kSort, out, &counts);
  }
  out->Finish();
  return counts;
}

// The state machine. False when rows are to be taken as they come, and come in no order.
bool LineProgram::Execute(const CodeFilter& filter, Order order, LineRows* out, Counts* counts) {
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
  bool sorted = true;
  // The first row tells whether the sequence is about code at all: what linkers make of code that
  // they left out starts at a tombstone and is in no order.
  enum : uint8_t { kStarts, kTaken, kNoCode } sequence = kStarts;
  unsorted_.clear();
  out->Begin();
  const auto emit = [&] {
    if (sequence != kTaken) {
      if (sequence == kNoCode) return;
      AddressRange first = {address, address + 1};
      sequence = filter.IsCode(&first) ? kTaken : kNoCode;
      if (sequence == kNoCode) {
        ++counts->dropped;
        return;
      }
    }
    const uint32_t file32 = file > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(file);
    if (order == Order::kSort) {
      unsorted_.push_back({address, unsorted_.size(), file32, line});
    } else if (!out->Append(address, file32, line)) {
      sorted = false;
    }
  };

  ByteCursor cursor(program_);
  while (!cursor.at_end()) {
    const uint8_t opcode = cursor.U8();
    if (opcode >= opcode_base_) {
      address += advance[opcode];
      line = static_cast<uint32_t>(static_cast<int64_t>(line) + step[opcode]);
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
            if (!EndSequence(address, filter, order, out, counts)) return false;
            address = 0;
            file = 1;
            line = 1;
            sequence = kStarts;
            out->Begin();
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
            if (order == Order::kAsTheyCome) files_.push_back({name, directory});
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
    if (!sorted) return false;
  }
  out->Abandon();  // a sequence without end: nobody knows how far it goes
  counts->damaged = !cursor.ok();
  return true;
}

// False when not all rows are below the end; in Order::kSort those are left out instead.
bool LineProgram::EndSequence(uint64_t end, const CodeFilter& filter, Order order, LineRows* out,
                              Counts* counts) {
  std::sort(unsorted_.begin(), unsorted_.end(), [](const UnsortedRow& a, const UnsortedRow& b) {
    return a.address != b.address ? a.address < b.address : a.number < b.number;
  });
  for (const UnsortedRow& row : unsorted_) {
    if (row.address < end) out->Append(row.address, row.file, row.line);
  }
  unsorted_.clear();
  AddressRange range = {out->has_rows() ? out->first_address() : end, end};
  if (range.start >= range.end) {
    out->Abandon();
    return true;
  }
  ++counts->sequences;
  if (!filter.IsWanted(range.start, range.end)) {
    out->Abandon();
    return true;
  }
  return out->End(end) || order == Order::kSort;
}

}  // namespace firewatch::symbolizer::dwarf
