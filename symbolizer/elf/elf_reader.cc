// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/elf_reader.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kSymbolsPerRead = 8192;  // 192 KiB

template <typename T>
absl::Status ReadStruct(const ByteSource& source, uint64_t offset, T* out) {
  return source.Read(offset, std::as_writable_bytes(std::span<T>(out, 1)));
}

// Entries [0, count) of a header table, refused when they reach past the end of the file.
template <typename T>
absl::StatusOr<std::vector<T>> ReadTable(const ByteSource& source, uint64_t offset,
                                         uint64_t count) {
  if (offset > source.size() || count > (source.size() - offset) / sizeof(T)) {
    return base::InvalidArgument("{} headers at {} reach past the end of the file", count, offset);
  }
  std::vector<T> table(count);
  RETURN_IF_ERROR(source.Read(offset, std::as_writable_bytes(std::span<T>(table))));
  return table;
}

absl::Status CheckIdentification(const Elf64_Ehdr& header, bool allow_relocatable) {
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return base::InvalidArgument("not an ELF file");
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return base::InvalidArgument("not a 64-bit little-endian ELF file");
  }
  if (header.e_machine != EM_X86_64) {
    return base::InvalidArgument("ELF machine {} is not x86-64", header.e_machine);
  }
  if (header.e_type == ET_REL && allow_relocatable) return absl::OkStatus();
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return base::InvalidArgument("ELF type {} is neither executable nor shared object",
                                 header.e_type);
  }
  return absl::OkStatus();
}

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

bool Contains(uint64_t start, uint64_t size, uint64_t value) {
  return value >= start && value - start < size;
}

}  // namespace

absl::StatusOr<ElfReader> ElfReader::Open(const ByteSource& source, const ElfLimits& limits) {
  ElfReader reader(source, limits);
  RETURN_IF_ERROR(reader.ReadHeaders());
  return reader;
}

absl::Status ElfReader::ReadHeaders() {
  Elf64_Ehdr header;
  if (source_->size() < sizeof(header)) return base::InvalidArgument("not an ELF file: too short");
  RETURN_IF_ERROR(ReadStruct(*source_, 0, &header));
  RETURN_IF_ERROR(CheckIdentification(header, limits_.allow_relocatable));
  relocatable_ = header.e_type == ET_REL;
  entry_ = header.e_entry;
  names_section_ = header.e_shstrndx;

  // More than 65,534 program headers or 65,279 sections: the counts move into section 0.
  uint64_t segment_count = header.e_phnum;
  uint64_t section_count = header.e_shnum;
  if (header.e_shoff != 0 &&
      (section_count == 0 || segment_count == PN_XNUM || names_section_ == SHN_XINDEX)) {
    Elf64_Shdr first;
    if (ReadStruct(*source_, header.e_shoff, &first).ok()) {
      if (names_section_ == SHN_XINDEX) names_section_ = first.sh_link;
      if (section_count == 0) section_count = first.sh_size;
      if (segment_count == PN_XNUM) segment_count = first.sh_info;
    }
  }
  if (segment_count > 0 && header.e_phentsize != sizeof(Elf64_Phdr)) {
    return base::InvalidArgument("program headers of {} bytes", header.e_phentsize);
  }
  RETURN_IF_ERROR(ReadSegments(header.e_phoff, segment_count));
  if (header.e_shoff == 0 || section_count == 0) return absl::OkStatus();
  if (header.e_shentsize != sizeof(Elf64_Shdr)) {
    return base::InvalidArgument("section headers of {} bytes", header.e_shentsize);
  }
  return ReadSections(header.e_shoff, section_count);
}

absl::Status ElfReader::ReadSegments(uint64_t offset, uint64_t count) {
  if (count > limits_.max_segments) {
    return base::ResourceExhausted("{} program headers, {} are allowed", count,
                                   limits_.max_segments);
  }
  ASSIGN_OR_RETURN(auto table, ReadTable<Elf64_Phdr>(*source_, offset, count));
  for (const Elf64_Phdr& entry : table) {
    if (entry.p_type == PT_LOAD) {
      segments_.push_back({.file_offset = entry.p_offset,
                           .file_size = std::min(entry.p_filesz, entry.p_memsz),
                           .vaddr = entry.p_vaddr,
                           .executable = (entry.p_flags & PF_X) != 0});
    } else if (entry.p_type == PT_GNU_EH_FRAME && !eh_frame_header_) {
      eh_frame_header_ = ElfSegment{
          .file_offset = entry.p_offset, .file_size = entry.p_filesz, .vaddr = entry.p_vaddr};
    } else if (entry.p_type == PT_NOTE && build_id_.empty()) {
      ReadNotes(entry.p_offset, entry.p_filesz, entry.p_align);
    }
  }
  return absl::OkStatus();
}

absl::Status ElfReader::ReadSections(uint64_t offset, uint64_t count) {
  if (count > limits_.max_sections) {
    return base::ResourceExhausted("{} sections, {} are allowed", count, limits_.max_sections);
  }
  ASSIGN_OR_RETURN(auto table, ReadTable<Elf64_Shdr>(*source_, offset, count));
  sections_.reserve(table.size());
  for (const Elf64_Shdr& entry : table) {
    sections_.push_back({.name = entry.sh_name,
                         .type = entry.sh_type,
                         .flags = entry.sh_flags,
                         .vaddr = entry.sh_addr,
                         .file_offset = entry.sh_offset,
                         .size = entry.sh_size,
                         .link = entry.sh_link,
                         .entry_size = entry.sh_entsize});
    if (entry.sh_type == SHT_NOTE && build_id_.empty()) {
      ReadNotes(entry.sh_offset, entry.sh_size, entry.sh_addralign);
    }
  }
  return absl::OkStatus();
}

bool ElfReader::ReadNotes(uint64_t offset, uint64_t size, uint64_t alignment) {
  if (offset >= source_->size()) return false;
  size = std::min({size, source_->size() - offset, uint64_t{limits_.max_note_bytes}});
  alignment = alignment == 8 ? 8 : 4;
  std::vector<std::byte> notes(size);
  if (!source_->Read(offset, notes).ok()) return false;
  uint64_t at = 0;
  while (notes.size() - at >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data() + at, sizeof(note));
    // 32-bit sizes in 64-bit sums: no overflow.
    const uint64_t name = at + sizeof(note);
    const uint64_t description = AlignUp(name + note.n_namesz, alignment);
    const uint64_t end = description + note.n_descsz;
    if (end > notes.size()) return false;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && note.n_descsz > 0 &&
        std::memcmp(notes.data() + name, ELF_NOTE_GNU, 4) == 0) {
      build_id_.size =
          static_cast<uint8_t>(std::min<size_t>(note.n_descsz, build_id_.bytes.size()));
      std::memcpy(build_id_.bytes.data(), notes.data() + description, build_id_.size);
      return true;
    }
    at = std::min<uint64_t>(AlignUp(end, alignment), notes.size());
  }
  return false;
}

const ElfSegment* ElfReader::SegmentOf(uint64_t vaddr) const {
  const ElfSegment* found = nullptr;
  for (const ElfSegment& segment : segments_) {
    if (!Contains(segment.vaddr, segment.file_size, vaddr)) continue;
    if (segment.executable) return &segment;
    if (found == nullptr) found = &segment;
  }
  return found;
}

std::optional<uint64_t> ElfReader::FileOffsetOf(uint64_t vaddr) const {
  const ElfSegment* segment = SegmentOf(vaddr);
  if (segment == nullptr) return std::nullopt;
  const uint64_t distance = vaddr - segment->vaddr;
  if (segment->file_offset > UINT64_MAX - distance) return std::nullopt;
  return segment->file_offset + distance;
}

std::optional<uint64_t> ElfReader::VaddrOf(uint64_t file_offset) const {
  const ElfSegment* found = nullptr;
  for (const ElfSegment& segment : segments_) {
    if (!Contains(segment.file_offset, segment.file_size, file_offset)) continue;
    if (found == nullptr || (segment.executable && !found->executable)) found = &segment;
  }
  if (found == nullptr) return std::nullopt;
  const uint64_t distance = file_offset - found->file_offset;
  if (found->vaddr > UINT64_MAX - distance) return std::nullopt;
  return found->vaddr + distance;
}

uint64_t ElfReader::BytesAfter(uint64_t vaddr) const {
  const ElfSegment* segment = SegmentOf(vaddr);
  return segment == nullptr ? 0 : segment->file_size - (vaddr - segment->vaddr);
}

absl::Status ElfReader::ForEachSymbol(const ElfSection& section,
                                      const std::function<void(const ElfSymbol&)>& visit) const {
  // Some linkers leave sh_entsize 0; any other size than ours would shift every entry.
  if (section.entry_size != 0 && section.entry_size != sizeof(Elf64_Sym)) {
    return base::InvalidArgument("symbols of {} bytes", section.entry_size);
  }
  if (section.file_offset > source_->size()) {
    return base::InvalidArgument("symbol table past the end of the file");
  }
  const uint64_t bytes = std::min(section.size, source_->size() - section.file_offset);
  const uint64_t count = bytes / sizeof(Elf64_Sym);
  if (count > limits_.max_symbols) {
    return base::ResourceExhausted("{} symbols, {} are allowed", count, limits_.max_symbols);
  }
  std::vector<Elf64_Sym> buffer(std::min<uint64_t>(count, kSymbolsPerRead));
  for (uint64_t done = 0; done < count;) {
    const auto batch = std::span<Elf64_Sym>(buffer).first(
        static_cast<size_t>(std::min<uint64_t>(count - done, buffer.size())));
    RETURN_IF_ERROR(source_->Read(section.file_offset + done * sizeof(Elf64_Sym),
                                  std::as_writable_bytes(batch)));
    for (const Elf64_Sym& symbol : batch) {
      visit({.value = symbol.st_value,
             .size = symbol.st_size,
             .name = symbol.st_name,
             .type = static_cast<uint8_t>(ELF64_ST_TYPE(symbol.st_info)),
             .binding = static_cast<uint8_t>(ELF64_ST_BIND(symbol.st_info)),
             .section = symbol.st_shndx});
    }
    done += batch.size();
  }
  return absl::OkStatus();
}

absl::StatusOr<StringTable> ElfReader::ReadStringsOf(const ElfSection& symbols) const {
  if (symbols.link >= sections_.size() || sections_[symbols.link].type != SHT_STRTAB) {
    return base::InvalidArgument("symbol table links to section {}, which holds no strings",
                                 symbols.link);
  }
  return ReadStrings(sections_[symbols.link], limits_.max_string_bytes);
}

absl::StatusOr<StringTable> ElfReader::ReadSectionNames() const {
  if (names_section_ >= sections_.size() || sections_[names_section_].type != SHT_STRTAB) {
    return StringTable();
  }
  return ReadStrings(sections_[names_section_], limits_.max_section_name_bytes);
}

absl::StatusOr<StringTable> ElfReader::ReadStrings(const ElfSection& section,
                                                   uint64_t limit) const {
  if (section.file_offset > source_->size()) {
    return base::InvalidArgument("string table past the end of the file");
  }
  const uint64_t bytes = std::min(section.size, source_->size() - section.file_offset);
  if (bytes > limit) {
    return base::ResourceExhausted("string table of {} bytes, {} are allowed", bytes, limit);
  }
  if (const auto view = source_->View(section.file_offset, bytes); !view.empty()) {
    return StringTable(view);
  }
  std::vector<char> strings(bytes);
  RETURN_IF_ERROR(
      source_->Read(section.file_offset, std::as_writable_bytes(std::span<char>(strings))));
  return StringTable(std::move(strings));
}

const ElfSection* ElfReader::SectionNamed(std::string_view name) const {
  if (names_section_ >= sections_.size()) return nullptr;
  const ElfSection& names = sections_[names_section_];
  if (names.type != SHT_STRTAB) return nullptr;
  std::string found(name.size() + 1, '\0');
  for (const ElfSection& section : sections_) {
    if (section.name >= names.size || names.size - section.name < found.size()) continue;
    if (names.file_offset > UINT64_MAX - section.name) return nullptr;
    const auto bytes = std::as_writable_bytes(std::span<char>(found));
    if (!source_->Read(names.file_offset + section.name, bytes).ok()) continue;
    if (found.back() == '\0' && std::string_view(found.data(), name.size()) == name) {
      return &section;
    }
  }
  return nullptr;
}

std::string_view StringTable::At(uint32_t offset) const {
  if (offset >= bytes_.size()) return "";
  const char* begin = bytes_.data() + offset;
  const size_t room = bytes_.size() - offset;
  const void* end = std::memchr(begin, 0, room);
  return {begin,
          end == nullptr ? room : static_cast<size_t>(static_cast<const char*>(end) - begin)};
}

}  // namespace firewatch::symbolizer
