// SPDX-License-Identifier: Apache-2.0
// The index of a package (DWARF 5, 7.3.5): a header of 16 bytes, a hash table of ids, the row of
// each id, the kind of section of each column, then offsets and sizes by row and column.
#include "symbolizer/dwarf/split_units.h"

#include <span>
#include <utility>

namespace firewatch::symbolizer::dwarf {
namespace {

constexpr uint64_t kIndexHeaderSize = 16;
constexpr uint32_t kMaxColumns = 16;

// Kinds of section in an index. 2 and 5 to 8 differ between the versions.
enum : uint32_t {
  kColumnInfo = 1,
  kColumnAbbrev = 3,
  kColumnLine = 4,
  kColumnStrOffsets = 6,
  kColumnRnglists5 = 8,
};

}  // namespace

SplitUnits::SplitUnits(const DwarfInput& input) : input_(input) {
  if (!ReadIndexHeader()) slots_ = 0;
}

bool SplitUnits::ReadIndexHeader() {
  const std::span<const std::byte> index = input_.dwp.cu_index;
  ByteCursor cursor(index);
  version_ = cursor.U16();  // a 32-bit 2 before DWARF 5, and 5 with padding in it
  cursor.U16();
  columns_ = cursor.U32();
  units_ = cursor.U32();
  slots_ = cursor.U32();
  if (!cursor.ok() || (version_ != 2 && version_ != 5)) return false;
  if (columns_ == 0 || columns_ > kMaxColumns || slots_ == 0 || (slots_ & (slots_ - 1)) != 0) {
    return false;
  }
  // 12 bytes per slot, 4 per column, 8 per unit and column: 32-bit counts cannot overflow this.
  const uint64_t needed =
      uint64_t{slots_} * 12 + uint64_t{columns_} * 4 + uint64_t{units_} * columns_ * 8;
  return cursor.left() >= needed;
}

std::optional<DwarfSections> SplitUnits::InPackage(uint64_t dwo_id) const {
  if (slots_ == 0) return std::nullopt;
  const std::span<const std::byte> index = input_.dwp.cu_index;
  const uint64_t rows_of_slots = kIndexHeaderSize + uint64_t{slots_} * 8;
  const uint64_t kinds = rows_of_slots + uint64_t{slots_} * 4;
  const uint64_t offsets = kinds + uint64_t{columns_} * 4;
  const uint64_t sizes = offsets + uint64_t{units_} * columns_ * 4;
  const auto number = [&index](uint64_t at) { return ByteCursor(index, at).U32(); };

  const uint64_t mask = slots_ - 1;
  uint64_t slot = dwo_id & mask;
  const uint64_t step = ((dwo_id >> 32) & mask) | 1;
  uint32_t row = 0;
  for (uint32_t tries = 0; tries < slots_; ++tries) {
    row = number(rows_of_slots + slot * 4);
    if (row == 0) return std::nullopt;
    if (ByteCursor(index, kIndexHeaderSize + slot * 8).U64() == dwo_id) break;
    row = 0;
    slot = (slot + step) & mask;
  }
  if (row == 0 || row > units_) return std::nullopt;

  DwarfSections part = input_.dwp;
  for (uint32_t column = 0; column < columns_; ++column) {
    const uint64_t place = (uint64_t{row - 1} * columns_ + column) * 4;
    const uint64_t offset = number(offsets + place);
    const uint64_t size = number(sizes + place);
    std::span<const std::byte>* section = nullptr;
    switch (number(kinds + uint64_t{column} * 4)) {
      case kColumnInfo:
        section = &part.info;
        break;
      case kColumnAbbrev:
        section = &part.abbrev;
        break;
      case kColumnLine:
        section = &part.line;
        break;
      case kColumnStrOffsets:
        section = &part.str_offsets;
        break;
      case kColumnRnglists5:
        if (version_ == 5) section = &part.rnglists;
        break;
      default:
        break;
    }
    if (section == nullptr) continue;
    if (offset > section->size() || size > section->size() - offset) return std::nullopt;
    *section = section->subspan(static_cast<size_t>(offset), static_cast<size_t>(size));
  }
  return part;
}

SplitUnits::Opened SplitUnits::Open(const Unit& skeleton) const {
  Opened opened;
  if (const std::optional<DwarfSections> part = InPackage(skeleton.dwo_id())) {
    opened.sections = std::make_unique<DwarfSections>(*part);
  } else if (input_.open_dwo) {
    const DwarfSections* sections =
        input_.open_dwo(skeleton.dwo_name(), skeleton.comp_dir(), skeleton.dwo_id());
    if (sections == nullptr) return {};
    opened.sections = std::make_unique<DwarfSections>(*sections);
  } else {
    return {};
  }
  opened.file = std::make_unique<InfoFile>(*opened.sections, nullptr);
  auto unit = std::make_unique<Unit>();
  for (const uint64_t offset : opened.file->unit_offsets()) {
    // A file of another build has another id: its addresses would be wrong.
    if (unit->Open(*opened.file, offset, true) && unit->dwo_id() == skeleton.dwo_id()) {
      unit->InheritSkeleton(skeleton);
      opened.unit = std::move(unit);
      break;
    }
  }
  return opened;
}

}  // namespace firewatch::symbolizer::dwarf
