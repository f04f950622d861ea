// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/line_files.h"

#include <algorithm>

#include "symbolizer/dwarf/constants.h"

namespace firewatch::symbolizer::dwarf {
namespace {

// A value of an entry: a text, or a number.
struct Value {
  std::string_view text;
  uint64_t number = 0;
};

bool ReadValue(uint64_t form, uint8_t offset_size, const DwarfSections& sections,
               ByteCursor& cursor, Value* out) {
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
    default:
      cursor.Fail();
  }
  return cursor.ok();
}

// Also forms that nobody wants to know the value of.
bool SkipValue(uint64_t form, uint8_t offset_size, ByteCursor& cursor) {
  switch (form) {
    case kFormString:
      cursor.String();
      break;
    case kFormLineStrp:
    case kFormStrp:
    case kFormStrpSup:  // the text is in another file
      cursor.Skip(offset_size);
      break;
    case kFormUdata:
    case kFormStrx:
      cursor.Uleb();  // of bounded length
      break;
    case kFormData1:
    case kFormStrx1:
      cursor.Skip(1);
      break;
    case kFormData2:
    case kFormStrx2:
      cursor.Skip(2);
      break;
    case kFormStrx3:
      cursor.Skip(3);
      break;
    case kFormData4:
    case kFormStrx4:
      cursor.Skip(4);
      break;
    case kFormData8:
      cursor.Skip(8);
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

bool LineFiles::Open(const DwarfSections& sections, uint16_t version, uint8_t offset_size,
                     ByteCursor& cursor) {
  sections_ = &sections;
  version_ = version;
  offset_size_ = offset_size;
  return version >= 5 ? OpenTables5(cursor) : OpenTables2(cursor);
}

// Texts up to an empty one; a file says more. Both count from 1: directory 0 is that of the
// compilation.
bool LineFiles::OpenTables2(ByteCursor& cursor) {
  directories_.fields = {{kLnctPath, kFormString}};
  files_.fields = {{kLnctPath, kFormString},
                   {kLnctDirectoryIndex, kFormUdata},
                   {0, kFormUdata},   // time
                   {0, kFormUdata}};  // size
  for (Table* const table : {&directories_, &files_}) {
    table->first = 1;
    table->start = cursor.position();
    for (;;) {
      const ByteCursor before = cursor;
      if (cursor.U8() == 0) break;  // also at the end of the bytes
      cursor = before;
      if (!AddEntry(cursor, table)) break;
    }
    if (!cursor.ok()) return false;
  }
  return true;
}

// Twice the same: a description of an entry (what, form), then that many entries.
bool LineFiles::OpenTables5(ByteCursor& cursor) {
  for (Table* const table : {&directories_, &files_}) {
    const unsigned field_count = cursor.U8();
    for (unsigned i = 0; i < field_count; ++i) {
      const uint64_t content = cursor.Uleb();
      table->fields.push_back({content, cursor.Uleb()});
    }
    const uint64_t count = cursor.Uleb();
    // Every value of a field takes a byte at least.
    if (!cursor.ok() || (field_count == 0 && count != 0) || count > cursor.left()) return false;
    table->start = cursor.position();
    constexpr uint64_t kBelieved = 4096;
    table->places.reserve(static_cast<size_t>(std::min(count, kBelieved)));
    while (table->places.size() < count) {
      if (!AddEntry(cursor, table)) return false;
    }
  }
  return cursor.ok();
}

bool LineFiles::AddEntry(ByteCursor& cursor, Table* table) const {
  const uint64_t offset = cursor.position() - table->start;
  for (const Field& field : table->fields) {
    if (!SkipValue(field.form, offset_size_, cursor)) return false;
  }
  if (offset > UINT32_MAX) {
    cursor.Fail();
    return false;
  }
  table->places.push_back(static_cast<uint32_t>(offset));
  return true;
}

bool LineFiles::ReadEntry(const Table& table, ByteCursor& cursor, Entry* out) const {
  for (const Field& field : table.fields) {
    Value value;
    if (field.content != kLnctPath && field.content != kLnctDirectoryIndex) {
      if (!SkipValue(field.form, offset_size_, cursor)) return false;
      continue;
    }
    // A form that holds neither text nor number says nothing.
    const ByteCursor before = cursor;
    if (!ReadValue(field.form, offset_size_, *sections_, cursor, &value)) {
      cursor = before;
      if (!SkipValue(field.form, offset_size_, cursor)) return false;
    }
    if (field.content == kLnctPath) {
      out->name = value.text;
    } else {
      out->directory = value.number;
    }
  }
  return true;
}

LineFiles::Entry LineFiles::EntryAt(const Table& table, uint64_t index) const {
  Entry entry;
  if (index < table.first || index - table.first >= table.places.size()) return entry;
  const uint32_t place = table.places[static_cast<size_t>(index - table.first)];
  ByteCursor cursor(sections_->line, table.start + place);
  return ReadEntry(table, cursor, &entry) ? entry : Entry();
}

bool LineFiles::PathOf(uint64_t file, std::string_view comp_dir, std::string* path) const {
  path->clear();
  if (sections_ == nullptr) return false;
  Entry entry;
  const uint64_t end = files_.first + files_.places.size();
  if (file < end) {
    entry = EntryAt(files_, file);
  } else if (file - end < added_.size()) {
    entry = added_[static_cast<size_t>(file - end)];
  }
  if (entry.name.empty()) return false;
  if (!IsAbsolute(entry.name)) {
    const std::string_view directory = EntryAt(directories_, entry.directory).name;
    const bool in_comp_dir = version_ >= 5 && entry.directory == 0;  // then it is `directory`
    const bool relative = sections_->relative_paths;
    if (!in_comp_dir && !relative && !IsAbsolute(directory)) AppendPath(comp_dir, path);
    if (!in_comp_dir || !relative) AppendPath(directory, path);
  }
  AppendPath(entry.name, path);
  return true;
}

}  // namespace firewatch::symbolizer::dwarf
