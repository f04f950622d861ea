// SPDX-License-Identifier: Apache-2.0
// The files of a line program. Their table is read over once and not copied: units have hundreds of
// files, of which few are asked for, and with link-time optimization hundreds of units are open at
// once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "symbolizer/byte_cursor.h"
#include "symbolizer/dwarf/input.h"

namespace firewatch::symbolizer::dwarf {

class LineFiles {
 public:
  // Reads over the tables of directories and files, up to the end of the last one. `cursor` is one
  // of `sections`.line, which must outlive this. False when a table is damaged; what was read of it
  // stays usable.
  bool Open(const DwarfSections& sections, uint16_t version, uint8_t offset_size,
            ByteCursor& cursor);
  // One more file, as the program itself may say.
  void Add(std::string_view name, uint64_t directory) { added_.push_back({name, directory}); }
  // Those of Add: the program is run again.
  void DropAdded() { added_.clear(); }

  // Sets `*path` to the path of a file, joined as LLVM does (the compilation directory before what
  // is relative, unless `relative_paths` of the sections; nothing normalized). False for an index
  // that is not in the table.
  bool PathOf(uint64_t file, std::string_view comp_dir, std::string* path) const;

 private:
  struct Field {
    uint64_t content;
    uint64_t form;
  };
  struct Entry {
    std::string_view name;
    uint64_t directory = 0;
  };
  struct Table {
    uint64_t first = 0;  // index of the first entry
    uint64_t start = 0;
    std::vector<Field> fields;     // of each entry
    std::vector<uint32_t> places;  // of the entries, from `start`
  };

  bool OpenTables5(ByteCursor& cursor);
  bool OpenTables2(ByteCursor& cursor);
  // Reads over an entry.
  bool AddEntry(ByteCursor& cursor, Table* table) const;
  bool ReadEntry(const Table& table, ByteCursor& cursor, Entry* out) const;
  // Without a name when there is no such entry.
  Entry EntryAt(const Table& table, uint64_t index) const;

  const DwarfSections* sections_ = nullptr;
  uint16_t version_ = 0;
  uint8_t offset_size_ = 4;
  Table directories_;
  Table files_;
  std::vector<Entry> added_;
};

}  // namespace firewatch::symbolizer::dwarf
