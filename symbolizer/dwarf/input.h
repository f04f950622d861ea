// SPDX-License-Identifier: Apache-2.0
// The bytes that the DWARF reader works on, and nothing about where they come from: sections of one
// ELF file and of the files that belong to it. Whoever fills this in (ELF reader, helper, tests)
// keeps the bytes mapped and unchanged as long as anything made from them lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace firewatch::symbolizer {

// Uncompressed contents; an empty span where the file has no such section. In a .dwo or .dwp file
// they are the sections whose names end with ".dwo". Sections of relocatable files (.o, .ko) are
// expected with their relocations applied.
struct DwarfSections {
  std::span<const std::byte> info, abbrev, str, line, line_str, ranges, rnglists, addr, str_offsets,
      aranges;
  std::span<const std::byte> cu_index;  // .dwp only
  // Paths as in the line table, relative to the compilation directory where they are so there.
  bool relative_paths = false;

  bool empty() const { return info.empty(); }
};

struct AddressRange {
  uint64_t start = 0;
  uint64_t end = 0;  // exclusive
};

struct DwarfInput {
  DwarfSections main;
  // The supplementary file of dwz (.gnu_debugaltlink); empty: none. Then what refers to it has no
  // name, which is never an error.
  DwarfSections alt;
  DwarfSections dwp;  // the package of split units; empty: none
  // Opens a .dwo file, its names as in DW_AT_dwo_name and DW_AT_comp_dir of the skeleton unit.
  // nullptr: cannot be had, then the unit has lines but no functions (and is counted). The result
  // lives as long as the input. Asked only when `dwp` has no unit of this id. Must be safe to call
  // from several threads at once when more than one thread is asked for. May be empty.
  std::function<const DwarfSections*(std::string_view name, std::string_view comp_dir,
                                     uint64_t dwo_id)>
      open_dwo;
  // Virtual addresses of the executable segments, sorted; code outside is dropped and counted.
  // Empty: not known, then only the usual tombstones (0, -1, -2; 1 for empty lists) are dropped.
  std::vector<AddressRange> executable;
};

}  // namespace firewatch::symbolizer
