// SPDX-License-Identifier: Apache-2.0
// The headers of a 64-bit little-endian x86-64 ELF file, checked. Everything that the file says is
// hostile until compared with the file's size: counts are capped, offsets are read only inside the
// file, nothing recurses.
//
// Two numbers name a byte of code: its offset in the file (what the kernel knows of a mapping) and
// its virtual address (what symbols are written in). The program headers join them:
//   vaddr - p_vaddr == offset - p_offset   for offset in [p_offset, p_offset + p_filesz)
// p_filesz, not p_memsz: a huge .bss has addresses but no bytes, and would swallow the next
// segment. No rounding to pages anywhere, so segments that start in the middle of a page (lld's
// default) and segments with different distances (huge-page text, BOLT) need no special case.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/file_identity.h"

namespace firewatch::symbolizer {

// Larger files are refused (ResourceExhausted). The largest symbol table met so far in the field
// is that of a debug build of a browser: about 3 million entries, 600 MB of strings with DWARF's.
struct ElfLimits {
  uint32_t max_segments = 4096;
  uint32_t max_sections = 1 << 17;
  uint64_t max_symbols = uint64_t{1} << 24;
  uint64_t max_string_bytes = uint64_t{512} << 20;
  uint32_t max_note_bytes = 1 << 16;
  uint64_t max_section_name_bytes = uint64_t{16} << 20;
  // Also ET_REL: .dwo, .dwp and dwz's files, whose DWARF needs no relocation.
  bool allow_relocatable = false;
};

struct ElfSegment {  // PT_LOAD
  uint64_t file_offset = 0;
  uint64_t file_size = 0;
  uint64_t vaddr = 0;
  bool executable = false;
};

struct ElfSection {
  uint32_t name = 0;  // offset in the section names: SectionNamed
  uint32_t type = 0;
  uint64_t flags = 0;
  uint64_t vaddr = 0;
  uint64_t file_offset = 0;
  uint64_t size = 0;
  uint32_t link = 0;
  uint64_t entry_size = 0;
};

struct ElfSymbol {
  uint64_t value = 0;
  uint64_t size = 0;
  uint32_t name = 0;  // offset in the string section that the table links to
  uint8_t type = 0;   // STT_*
  uint8_t binding = 0;
  uint16_t section = 0;
};

// A string section of a file: viewed in place where the source allows it, else a copy. What At
// gives is valid as long as this object and the source.
class StringTable {
 public:
  StringTable() = default;
  explicit StringTable(std::vector<char> copy) : copy_(std::move(copy)), bytes_(copy_) {}
  explicit StringTable(std::span<const std::byte> view)
      : bytes_(reinterpret_cast<const char*>(view.data()), view.size()) {}
  StringTable(StringTable&&) = default;  // a vector that moves keeps its bytes where they are
  StringTable& operator=(StringTable&&) = default;

  std::span<const char> bytes() const { return bytes_; }
  // "" when the offset lies outside; ends with the table when it is not terminated.
  std::string_view At(uint32_t offset) const;

 private:
  std::vector<char> copy_;
  std::span<const char> bytes_;
};

class ElfReader {
 public:
  // InvalidArgument when it is not an ELF file, not x86-64, or its headers are malformed;
  // ResourceExhausted past `limits`. A file without section headers is fine: it has no symbols.
  // `source` must outlive the reader.
  static absl::StatusOr<ElfReader> Open(const ByteSource& source, const ElfLimits& limits = {});

  const std::vector<ElfSegment>& segments() const { return segments_; }
  const std::vector<ElfSection>& sections() const { return sections_; }
  // e_entry: where the kernel or the dynamic linker jumps to; 0: nowhere.
  uint64_t entry() const { return entry_; }
  bool relocatable() const { return relocatable_; }  // ET_REL
  // PT_GNU_EH_FRAME: where the unwinder finds .eh_frame when there are no section headers.
  const std::optional<ElfSegment>& eh_frame_header() const { return eh_frame_header_; }
  // The first section of that name; nullptr when there is none or the names cannot be read.
  const ElfSection* SectionNamed(std::string_view name) const;
  // The GNU build id; its first 20 bytes when it is longer. Empty when there is none.
  const BuildId& build_id() const { return build_id_; }
  const ByteSource& source() const { return *source_; }

  // By PT_LOAD and file size; executable segments are asked first. Nothing when no segment has it.
  std::optional<uint64_t> FileOffsetOf(uint64_t vaddr) const;
  std::optional<uint64_t> VaddrOf(uint64_t file_offset) const;
  // File bytes of the segment from `vaddr` on: how far a symbol there can reach. 0 when none.
  uint64_t BytesAfter(uint64_t vaddr) const;

  // Calls `visit` for every entry of the symbol table `section` in file order; reads in pieces.
  absl::Status ForEachSymbol(const ElfSection& section,
                             const std::function<void(const ElfSymbol&)>& visit) const;
  // The string section that a symbol table links to, cut at the end of the file.
  absl::StatusOr<StringTable> ReadStringsOf(const ElfSection& symbols) const;
  // The names of sections, by ElfSection::name; empty when there are none.
  absl::StatusOr<StringTable> ReadSectionNames() const;

 private:
  ElfReader(const ByteSource& source, const ElfLimits& limits)
      : source_(&source), limits_(limits) {}
  absl::Status ReadHeaders();
  absl::StatusOr<StringTable> ReadStrings(const ElfSection& section, uint64_t limit) const;
  absl::Status ReadSegments(uint64_t offset, uint64_t count);
  absl::Status ReadSections(uint64_t offset, uint64_t count);
  // True when a build id was found in the notes of this range.
  bool ReadNotes(uint64_t offset, uint64_t size, uint64_t alignment);
  const ElfSegment* SegmentOf(uint64_t vaddr) const;

  const ByteSource* source_;
  ElfLimits limits_;
  std::vector<ElfSegment> segments_;
  std::vector<ElfSection> sections_;
  bool relocatable_ = false;
  uint64_t entry_ = 0;
  uint32_t names_section_ = 0;
  std::optional<ElfSegment> eh_frame_header_;
  BuildId build_id_;
};

}  // namespace firewatch::symbolizer
