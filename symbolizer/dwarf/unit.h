// SPDX-License-Identifier: Apache-2.0
// Units of .debug_info: where they start, what their own entry says, and what the attributes of
// their entries mean (strings, addresses, references), whatever form they are written in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "symbolizer/dwarf/abbreviations.h"
#include "symbolizer/dwarf/input.h"

namespace firewatch::symbolizer::dwarf {

// Offsets are from the start of .debug_info.
struct UnitHeader {
  uint64_t offset = 0;
  uint64_t entries = 0;  // of the first entry, the unit's own
  uint64_t end = 0;
  uint64_t abbreviations = 0;  // offset in .debug_abbrev
  uint64_t dwo_id = 0;         // DWARF 5 skeleton and split units
  UnitShape shape;
  uint8_t type = kUnitCompile;
  bool usable = false;  // version and sizes are known; else only `end` is right

  bool is_type_unit() const { return type == kUnitType || type == kUnitSplitType; }
};

// False when the length of the unit leads out of the section: nothing behind it can be found.
bool ReadUnitHeader(std::span<const std::byte> info, uint64_t offset, UnitHeader* out);

// One .debug_info with the tables its units share. Any thread once it is built.
class InfoFile {
 public:
  // `sections` and `alt` (nullptr: none) must outlive it.
  InfoFile(const DwarfSections& sections, const InfoFile* alt);

  const DwarfSections& sections() const { return sections_; }
  const InfoFile* alt() const { return alt_; }
  // Ascending. Type units are left out: what they hold has no code, and nobody refers to them by
  // offset.
  std::span<const uint64_t> unit_offsets() const { return unit_offsets_; }
  // The start of the unit that an entry is in; nullopt when no unit is there.
  std::optional<uint64_t> UnitOf(uint64_t entry_offset) const;
  AbbreviationCache& abbreviations() const { return abbreviations_; }
  // The last header led out of the section.
  bool cut_short() const { return cut_short_; }

 private:
  const DwarfSections& sections_;
  const InfoFile* alt_;
  std::vector<uint64_t> unit_offsets_;
  mutable AbbreviationCache abbreviations_;
  bool cut_short_ = false;
};

// A reference to an entry: in this file or in the supplementary one.
struct EntryRef {
  const InfoFile* file;
  uint64_t offset;
};

// One unit, with what its entries need. One thread.
class Unit {
 public:
  // False when the header, the abbreviations or the unit's own entry cannot be read. `kept`: asked
  // for by a reference (AbbreviationCache::Get).
  bool Open(const InfoFile& file, uint64_t offset, bool kept);
  // For a split unit: addresses are in the skeleton's file, bases and line table in its entry.
  void InheritSkeleton(const Unit& skeleton);

  const InfoFile& file() const { return *file_; }
  const UnitHeader& header() const { return header_; }
  const AbbreviationTable& table() const { return *table_; }
  // The unit's own entry, and the offset of the one behind it.
  const Attributes& attributes() const { return attributes_; }
  uint64_t first_child() const { return first_child_; }
  bool has_children() const { return has_children_; }
  // dwz: what several units share, without code of its own.
  bool is_partial() const { return is_partial_; }
  uint64_t low_pc() const { return low_pc_; }
  std::string_view comp_dir() const { return comp_dir_; }
  std::string_view name() const { return name_; }
  std::optional<uint64_t> line_program() const { return line_program_; }
  std::string_view dwo_name() const { return dwo_name_; }
  uint64_t dwo_id() const { return dwo_id_; }

  // Empty when there is none, or it is in a file that was not given.
  std::string_view StringOf(const Attributes& attributes, Slot slot) const;
  // The same without a look at the bytes: names are given by the hundred thousand, and most are
  // known by where they are. Ends with a NUL inside the section. nullptr when there is none.
  const char* TextOf(const Attributes& attributes, Slot slot) const;
  std::optional<uint64_t> AddressOf(const Attributes& attributes, Slot slot) const;
  std::optional<EntryRef> ReferenceOf(const Attributes& attributes, Slot slot) const;
  uint64_t ConstantOf(const Attributes& attributes, Slot slot) const {
    return attributes.Has(slot) ? attributes.value[slot] : 0;
  }
  std::optional<uint64_t> IndexedAddress(uint64_t index) const;

  // Appends the ranges of an entry (DW_AT_ranges, or low_pc and high_pc) to `out`, empty ones left
  // out; a list that is damaged gives what came before. Reads at most `*budget` entries of a list,
  // and takes them off it: lists may be shared, so that few bytes can ask for many.
  void RangesOf(const Attributes& attributes, size_t* budget, std::vector<AddressRange>* out) const;
  // What all entries of this unit may read together: far more than compilers write.
  size_t RangeBudget() const {
    return 16384 + 16 * static_cast<size_t>(header_.end - header_.offset);
  }

  // The entry at `offset`: its abbreviation (nullptr: none, or a null entry) and its attributes.
  const Abbreviation* EntryAt(uint64_t offset, Attributes* out) const;

 private:
  bool ReadOwnEntry();
  // The section that a string is in, and its offset there; an empty section when there is none.
  std::span<const std::byte> LocateString(const Attributes& attributes, Slot slot,
                                          uint64_t* offset) const;
  std::optional<uint64_t> IndexedRangeList(uint64_t index) const;
  void ReadRnglist(uint64_t offset, size_t* budget, std::vector<AddressRange>* out) const;
  void ReadDebugRanges(uint64_t offset, size_t* budget, std::vector<AddressRange>* out) const;

  const InfoFile* file_ = nullptr;
  const DwarfSections* address_sections_ = nullptr;  // .debug_addr, DWARF 4 .debug_ranges
  UnitHeader header_;
  std::shared_ptr<const AbbreviationTable> table_;
  Attributes attributes_;
  uint64_t first_child_ = 0;
  bool has_children_ = false;
  bool is_partial_ = false;
  uint64_t low_pc_ = 0;
  uint64_t str_offsets_base_ = 0;
  uint64_t addr_base_ = 0;
  uint64_t rnglists_base_ = 0;
  uint64_t ranges_base_ = 0;  // split DWARF 4: of the skeleton, for the entries of the split unit
  std::optional<uint64_t> line_program_;
  std::string_view comp_dir_, name_, dwo_name_;
  uint64_t dwo_id_ = 0;
};

}  // namespace firewatch::symbolizer::dwarf
