// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/cfi_sections.h"

#include <elf.h>

#include <algorithm>
#include <array>

#include "base/status.h"
#include "symbolizer/byte_cursor.h"

namespace firewatch::symbolizer {
namespace {

std::optional<uint64_t> ReadPointer(const ElfReader& elf, uint64_t vaddr) {
  const auto offset = elf.FileOffsetOf(vaddr);
  uint64_t value = 0;
  if (!offset ||
      !elf.source().Read(*offset, std::as_writable_bytes(std::span<uint64_t>(&value, 1))).ok()) {
    return std::nullopt;
  }
  return value;
}

std::optional<uint64_t> VaddrOfFirst(const ElfReader& elf,
                                     std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (const ElfSection* section = elf.SectionNamed(name)) return section->vaddr;
  }
  return std::nullopt;
}

struct Place {
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t vaddr = 0;
  bool is_guess = false;  // of the size
};

std::optional<Place> PlaceOfSection(const ElfReader& elf, std::string_view name) {
  const ElfSection* section = elf.SectionNamed(name);
  if (section == nullptr || section->type == SHT_NOBITS || section->size == 0 ||
      (section->flags & SHF_COMPRESSED) != 0) {
    return std::nullopt;
  }
  return Place{.offset = section->file_offset, .size = section->size, .vaddr = section->vaddr};
}

// .eh_frame_hdr: version 1, three encodings, then where .eh_frame is. It ends somewhere in its
// segment, at a zero length.
std::optional<Place> PlaceByHeader(const ElfReader& elf) {
  if (!elf.eh_frame_header()) return std::nullopt;
  const ElfSegment& header = *elf.eh_frame_header();
  std::array<std::byte, 16> bytes{};
  const auto view = std::span(bytes).first(std::min<uint64_t>(header.file_size, bytes.size()));
  if (view.size() < 8 || !elf.source().Read(header.file_offset, view).ok()) return std::nullopt;
  ByteCursor cursor(view);
  const auto version = cursor.Fixed<uint32_t>();
  if ((version & 0xff) != 1) return std::nullopt;
  CfiSection base;
  base.data_vaddr = header.vaddr;
  const auto encoding = static_cast<uint8_t>(version >> 8);
  const auto vaddr = ReadEncodedPointer(base, encoding, header.vaddr + 4, cursor);
  const auto offset = vaddr ? elf.FileOffsetOf(*vaddr) : std::nullopt;
  if (!offset) return std::nullopt;
  return Place{
      .offset = *offset, .size = elf.BytesAfter(*vaddr), .vaddr = *vaddr, .is_guess = true};
}

absl::Status Add(const ElfReader& elf, const Place& place, bool is_debug_frame, uint64_t max_bytes,
                 CfiSections* out) {
  if (place.offset >= elf.source().size()) return absl::OkStatus();
  const uint64_t size = std::min(place.size, elf.source().size() - place.offset);
  if (size > max_bytes) {
    return base::ResourceExhausted("{} bytes of call frame information, {} are allowed", size,
                                   max_bytes);
  }
  std::vector<std::byte>& bytes = out->bytes.emplace_back(size);
  RETURN_IF_ERROR(elf.source().Read(place.offset, bytes));
  out->sections.push_back(
      {.bytes = bytes,
       .vaddr = place.vaddr,
       .is_debug_frame = is_debug_frame,
       .ends_at_zero = place.is_guess,
       .text_vaddr = VaddrOfFirst(elf, {".text"}),
       .data_vaddr = VaddrOfFirst(elf, {".got.plt", ".got"}),
       .read_pointer = [&elf](uint64_t vaddr) { return ReadPointer(elf, vaddr); }});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CfiSections> ReadCfiSections(const ElfReader& elf, uint64_t max_bytes) {
  CfiSections found;
  auto eh_frame = PlaceOfSection(elf, ".eh_frame");
  if (!eh_frame) eh_frame = PlaceByHeader(elf);
  if (eh_frame) RETURN_IF_ERROR(Add(elf, *eh_frame, false, max_bytes, &found));
  if (const auto debug_frame = PlaceOfSection(elf, ".debug_frame")) {
    RETURN_IF_ERROR(Add(elf, *debug_frame, true, max_bytes, &found));
  }
  if (found.sections.empty()) return base::NotFound("neither .eh_frame nor .debug_frame");
  return found;
}

}  // namespace firewatch::symbolizer
