// SPDX-License-Identifier: Apache-2.0
// Small ELF files byte by byte, for tests: what compilers never write can be written here.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace firewatch::symbolizer {

// Layout: header, program headers, then what was added, section headers last. Fields are public:
// tests spoil them before Build().
class ElfBuilder {
 public:
  ElfBuilder() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_DYN;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_ehsize = sizeof(Elf64_Ehdr);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_shentsize = sizeof(Elf64_Shdr);
    sections.push_back({});
  }

  ElfBuilder& Load(uint64_t offset, uint64_t vaddr, uint64_t file_size, uint64_t memory_size,
                   uint32_t flags = PF_R | PF_X) {
    Elf64_Phdr segment{};
    segment.p_type = PT_LOAD;
    segment.p_flags = flags;
    segment.p_offset = offset;
    segment.p_vaddr = vaddr;
    segment.p_filesz = file_size;
    segment.p_memsz = memory_size;
    segment.p_align = 0x1000;
    segments.push_back(segment);
    return *this;
  }

  // A section without content of its own, somewhere in the file. Returns its number.
  uint16_t Section(uint32_t type, uint64_t flags, uint64_t vaddr, uint64_t offset, uint64_t size) {
    Elf64_Shdr section{};
    section.sh_type = type;
    section.sh_flags = flags;
    section.sh_addr = vaddr;
    section.sh_offset = offset;
    section.sh_size = size;
    sections.push_back(section);
    return static_cast<uint16_t>(sections.size() - 1);
  }
  uint16_t Text(uint64_t vaddr, uint64_t offset, uint64_t size) {
    return Section(SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, vaddr, offset, size);
  }

  ElfBuilder& Symbol(std::string_view name, uint64_t value, uint64_t size, uint16_t section,
                     unsigned type = STT_FUNC, unsigned binding = STB_GLOBAL) {
    Elf64_Sym symbol{};
    symbol.st_name = static_cast<Elf64_Word>(strings.size());
    symbol.st_value = value;
    symbol.st_size = size;
    symbol.st_shndx = section;
    symbol.st_info = static_cast<unsigned char>(ELF64_ST_INFO(binding, type));
    symbols.push_back(symbol);
    strings.append(name).push_back('\0');
    return *this;
  }

  ElfBuilder& BuildIdNote(std::string_view id) {
    note = id;
    return *this;
  }

  // `padding`: zero bytes between the headers and the tables, where "code" may lie.
  std::string Build(size_t padding = 0) {
    const bool has_note = !note.empty();
    header.e_phnum = static_cast<Elf64_Half>(segments.size() + (has_note ? 1 : 0));
    header.e_phoff = header.e_phnum > 0 ? sizeof(Elf64_Ehdr) : 0;
    std::string body(padding, '\0');
    const uint64_t base = sizeof(Elf64_Ehdr) + header.e_phnum * sizeof(Elf64_Phdr);
    std::vector<Elf64_Phdr> all_segments = segments;
    if (has_note) {
      Elf64_Phdr segment{};
      segment.p_type = PT_NOTE;
      segment.p_offset = base + body.size();
      segment.p_align = 4;
      const Elf64_Nhdr note_header = {.n_namesz = 4,
                                      .n_descsz = static_cast<Elf64_Word>(note.size()),
                                      .n_type = NT_GNU_BUILD_ID};
      Append(&note_header, sizeof(note_header), &body);
      body.append("GNU\0", 4);
      body.append(note);
      body.resize((body.size() + 7) & ~size_t{7});
      segment.p_filesz = base + body.size() - segment.p_offset;
      all_segments.push_back(segment);
    }
    std::vector<Elf64_Shdr> all_sections = sections;
    if (symbols.size() > 1) AddTables(base, &all_sections, &body);
    header.e_shoff = all_sections.size() > 1 ? base + body.size() : 0;
    header.e_shnum = header.e_shoff == 0 ? 0 : static_cast<Elf64_Half>(all_sections.size());

    std::string out;
    Append(&header, sizeof(header), &out);
    for (const Elf64_Phdr& segment : all_segments) Append(&segment, sizeof(segment), &out);
    out += body;
    if (header.e_shoff != 0) {
      for (const Elf64_Shdr& section : all_sections) Append(&section, sizeof(section), &out);
    }
    return out;
  }

  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;
  std::vector<Elf64_Shdr> sections;
  std::vector<Elf64_Sym> symbols = {Elf64_Sym{}};
  std::string strings = std::string(1, '\0');
  std::string note;
  uint32_t table_type = SHT_SYMTAB;
  uint64_t entry_size = sizeof(Elf64_Sym);
  uint64_t claimed_symbol_bytes = 0;  // 0: the truth
  uint64_t claimed_string_bytes = 0;

 private:
  static void Append(const void* data, size_t size, std::string* out) {
    out->append(static_cast<const char*>(data), size);
  }
  void AddTables(uint64_t base, std::vector<Elf64_Shdr>* all, std::string* body) const {
    Elf64_Shdr table{};
    table.sh_type = table_type;
    table.sh_offset = base + body->size();
    for (const Elf64_Sym& symbol : symbols) Append(&symbol, sizeof(symbol), body);
    table.sh_size = base + body->size() - table.sh_offset;
    if (claimed_symbol_bytes != 0) table.sh_size = claimed_symbol_bytes;
    table.sh_entsize = entry_size;
    table.sh_link = static_cast<Elf64_Word>(all->size() + 1);
    Elf64_Shdr names{};
    names.sh_type = SHT_STRTAB;
    names.sh_offset = base + body->size();
    names.sh_size = claimed_string_bytes != 0 ? claimed_string_bytes : strings.size();
    body->append(strings);
    body->resize((body->size() + 7) & ~size_t{7});
    all->push_back(table);
    all->push_back(names);
  }
};

inline std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

}  // namespace firewatch::symbolizer
