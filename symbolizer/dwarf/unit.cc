// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/unit.h"

#include <algorithm>
#include <cstring>

namespace firewatch::symbolizer::dwarf {
namespace {

constexpr uint32_t kLength64 = 0xffffffff;  // a 64-bit length follows
constexpr uint32_t kLengthReserved = 0xfffffff0;

}  // namespace

bool ReadUnitHeader(std::span<const std::byte> info, uint64_t offset, UnitHeader* out) {
  ByteCursor cursor(info, offset);
  *out = {};
  out->offset = offset;
  uint64_t length = cursor.U32();
  if (length == kLength64) {
    length = cursor.U64();
    out->shape.offset_size = 8;
  } else if (length >= kLengthReserved) {
    return false;
  }
  if (!cursor.ok() || length > cursor.left()) return false;
  out->end = cursor.position() + length;
  cursor.LimitTo(out->end);
  const uint16_t version = cursor.U16();
  if (version < 2 || version > 5) return cursor.position() <= out->end;
  out->shape.version = static_cast<uint8_t>(version);
  if (version >= 5) {
    out->type = cursor.U8();
    out->shape.address_size = cursor.U8();
    out->abbreviations = cursor.Sized(out->shape.offset_size);
    if (out->type == kUnitSkeleton || out->type == kUnitSplitCompile) out->dwo_id = cursor.U64();
    if (out->is_type_unit()) {
      cursor.U64();
      cursor.Sized(out->shape.offset_size);
    }
  } else {
    out->abbreviations = cursor.Sized(out->shape.offset_size);
    out->shape.address_size = cursor.U8();
  }
  out->entries = cursor.position();
  out->usable = cursor.ok() && (out->shape.address_size == 8 || out->shape.address_size == 4);
  return true;
}

InfoFile::InfoFile(const DwarfSections& sections, const InfoFile* alt)
    : sections_(sections), alt_(alt), abbreviations_(sections.abbrev) {
  std::vector<uint64_t> tables;
  uint64_t offset = 0;
  while (offset < sections_.info.size()) {
    UnitHeader header;
    if (!ReadUnitHeader(sections_.info, offset, &header)) {
      cut_short_ = true;
      break;
    }
    if (!header.is_type_unit()) {
      unit_offsets_.push_back(offset);
      if (header.usable) tables.push_back(header.abbreviations);
    }
    offset = header.end;
  }
  unit_offsets_.shrink_to_fit();
  std::sort(tables.begin(), tables.end());
  for (auto table = tables.begin(); table != tables.end();) {
    const auto next = std::upper_bound(table, tables.end(), *table);
    if (next - table > 1) abbreviations_.Announce(*table, static_cast<uint32_t>(next - table));
    table = next;
  }
}

std::optional<uint64_t> InfoFile::UnitOf(uint64_t entry_offset) const {
  const auto after = std::upper_bound(unit_offsets_.begin(), unit_offsets_.end(), entry_offset);
  if (after == unit_offsets_.begin()) return std::nullopt;
  return *(after - 1);
}

bool Unit::Open(const InfoFile& file, uint64_t offset, bool kept) {
  file_ = &file;
  address_sections_ = &file.sections();
  if (!ReadUnitHeader(file.sections().info, offset, &header_) || !header_.usable) return false;
  table_ = file.abbreviations().Get(header_.abbreviations, header_.shape, kept);
  return table_ != nullptr && ReadOwnEntry();
}

bool Unit::ReadOwnEntry() {
  ByteCursor cursor(file_->sections().info, header_.entries);
  cursor.LimitTo(header_.end);
  const Abbreviation* entry = table_->Find(cursor.Uleb());
  if (!cursor.ok() || entry == nullptr) return false;
  table_->TakeEntry(*entry, cursor, &attributes_);
  if (!cursor.ok()) return false;
  first_child_ = cursor.position();
  has_children_ = entry->has_children;
  is_partial_ = entry->tag == kTagPartialUnit;

  // Bases first: strings and addresses of this same entry may be indexes. A split unit has none of
  // its own; its strings and lists start behind the header of the section (DWARF 5, 7.3.5).
  const bool split = header_.type == kUnitSplitCompile;
  const uint64_t header_size = header_.shape.offset_size == 8 ? 16 : 8;
  str_offsets_base_ = attributes_.Has(kSlotStrOffsetsBase)
                          ? attributes_.value[kSlotStrOffsetsBase]
                          : (header_.shape.version >= 5 ? header_size : 0);
  addr_base_ = ConstantOf(attributes_, kSlotAddrBase);
  rnglists_base_ = attributes_.Has(kSlotRnglistsBase) ? attributes_.value[kSlotRnglistsBase]
                   : split                            ? header_size + 4
                                                      : 0;
  line_program_.reset();
  if (attributes_.Has(kSlotStmtList)) line_program_ = attributes_.value[kSlotStmtList];
  comp_dir_ = StringOf(attributes_, kSlotCompDir);
  name_ = StringOf(attributes_, kSlotName);
  dwo_name_ = StringOf(attributes_, kSlotDwoName);
  dwo_id_ = attributes_.Has(kSlotDwoId) ? attributes_.value[kSlotDwoId] : header_.dwo_id;
  low_pc_ = AddressOf(attributes_, kSlotLowPc).value_or(0);
  return true;
}

void Unit::InheritSkeleton(const Unit& skeleton) {
  address_sections_ = &skeleton.file().sections();
  addr_base_ = skeleton.addr_base_;
  ranges_base_ = skeleton.ConstantOf(skeleton.attributes_, kSlotGnuRangesBase);
  line_program_ = skeleton.line_program_;
  comp_dir_ = skeleton.comp_dir_;
  low_pc_ = skeleton.low_pc_;
}

std::span<const std::byte> Unit::LocateString(const Attributes& attributes, Slot slot,
                                              uint64_t* offset) const {
  if (!attributes.Has(slot)) return {};
  const DwarfSections& sections = file_->sections();
  *offset = attributes.value[slot];
  switch (attributes.form[slot]) {
    case kFormString:
      return sections.info;
    case kFormStrp:
      return sections.str;
    case kFormLineStrp:
      return sections.line_str;
    case kFormStrpSup:
    case kFormGnuStrpAlt:
      if (file_->alt() == nullptr) return {};
      return file_->alt()->sections().str;
    case kFormStrx:
    case kFormStrx1:
    case kFormStrx2:
    case kFormStrx3:
    case kFormStrx4:
    case kFormGnuStrIndex: {
      const uint64_t size = header_.shape.offset_size;
      const uint64_t all = sections.str_offsets.size();
      if (*offset > all / size || str_offsets_base_ > all) return {};
      ByteCursor cursor(sections.str_offsets, str_offsets_base_ + *offset * size);
      *offset = cursor.Sized(static_cast<unsigned>(size));
      if (!cursor.ok()) return {};
      return sections.str;
    }
    default:
      return {};
  }
}

std::string_view Unit::StringOf(const Attributes& attributes, Slot slot) const {
  uint64_t offset = 0;
  const std::span<const std::byte> section = LocateString(attributes, slot, &offset);
  return StringAt(section, offset);
}

const char* Unit::TextOf(const Attributes& attributes, Slot slot) const {
  uint64_t offset = 0;
  const std::span<const std::byte> section = LocateString(attributes, slot, &offset);
  if (offset >= section.size()) return nullptr;
  const auto* text = reinterpret_cast<const char*>(section.data()) + offset;
  // Sections of strings end with one. Those in .debug_info have been read to their end.
  if (attributes.form[slot] == kFormString || section.back() == std::byte{0}) return text;
  return std::memchr(text, 0, section.size() - static_cast<size_t>(offset)) != nullptr ? text
                                                                                       : nullptr;
}

std::optional<uint64_t> Unit::IndexedAddress(uint64_t index) const {
  const std::span<const std::byte> section = address_sections_->addr;
  const uint64_t size = header_.shape.address_size;
  if (index > section.size() / size || addr_base_ > section.size()) return std::nullopt;
  ByteCursor cursor(section, addr_base_ + index * size);
  const uint64_t address = cursor.Sized(static_cast<unsigned>(size));
  if (!cursor.ok()) return std::nullopt;
  return address;
}

std::optional<uint64_t> Unit::AddressOf(const Attributes& attributes, Slot slot) const {
  if (!attributes.Has(slot)) return std::nullopt;
  switch (attributes.form[slot]) {
    case kFormAddr:
      return attributes.value[slot];
    case kFormAddrx:
    case kFormAddrx1:
    case kFormAddrx2:
    case kFormAddrx3:
    case kFormAddrx4:
    case kFormGnuAddrIndex:
      return IndexedAddress(attributes.value[slot]);
    default:
      return std::nullopt;
  }
}

std::optional<EntryRef> Unit::ReferenceOf(const Attributes& attributes, Slot slot) const {
  if (!attributes.Has(slot)) return std::nullopt;
  const uint64_t value = attributes.value[slot];
  switch (attributes.form[slot]) {
    case kFormRef1:
    case kFormRef2:
    case kFormRef4:
    case kFormRef8:
    case kFormRefUdata:
      if (value >= header_.end - header_.offset) return std::nullopt;
      return EntryRef{file_, header_.offset + value};
    case kFormRefAddr:
      return EntryRef{file_, value};
    case kFormRefSup4:
    case kFormRefSup8:
    case kFormGnuRefAlt:
      if (file_->alt() == nullptr) return std::nullopt;
      return EntryRef{file_->alt(), value};
    default:
      return std::nullopt;
  }
}

const Abbreviation* Unit::EntryAt(uint64_t offset, Attributes* out) const {
  if (offset < header_.entries) return nullptr;
  ByteCursor cursor(file_->sections().info, offset);
  cursor.LimitTo(header_.end);
  const uint64_t code = cursor.Uleb();
  const Abbreviation* entry = code == 0 ? nullptr : table_->Find(code);
  if (!cursor.ok() || entry == nullptr) return nullptr;
  table_->TakeEntry(*entry, cursor, out);
  return cursor.ok() ? entry : nullptr;
}

}  // namespace firewatch::symbolizer::dwarf
