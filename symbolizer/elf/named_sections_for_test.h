// SPDX-License-Identifier: Apache-2.0
// An ELF file of nothing but named sections, byte by byte, for tests and the fuzz target's corpus.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace firewatch::symbolizer {

struct NamedSection {
  std::string name;
  std::string content;
  uint64_t flags = 0;
  uint32_t type = SHT_PROGBITS;
  uint64_t claimed_bytes = 0;  // 0: the truth
};

inline std::string ElfOfSections(const std::vector<NamedSection>& sections) {
  std::string names(1, '\0');
  std::string body;
  std::vector<Elf64_Shdr> headers(1);
  std::vector<NamedSection> all = sections;
  all.push_back({.name = ".shstrtab", .type = SHT_STRTAB});
  for (NamedSection& section : all) {
    Elf64_Shdr header{};
    header.sh_name = static_cast<Elf64_Word>(names.size());
    names.append(section.name).push_back('\0');
    if (section.name == ".shstrtab") section.content = names;
    header.sh_type = section.type;
    header.sh_flags = section.flags;
    header.sh_offset = sizeof(Elf64_Ehdr) + body.size();
    header.sh_size = section.claimed_bytes != 0 ? section.claimed_bytes : section.content.size();
    body.append(section.content);
    body.resize((body.size() + 7) & ~size_t{7});
    headers.push_back(header);
  }
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_DYN;
  header.e_machine = EM_X86_64;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shoff = sizeof(header) + body.size();
  header.e_shnum = static_cast<Elf64_Half>(headers.size());
  header.e_shstrndx = static_cast<Elf64_Half>(headers.size() - 1);
  std::string out(reinterpret_cast<const char*>(&header), sizeof(header));
  out += body;
  out.append(reinterpret_cast<const char*>(headers.data()), headers.size() * sizeof(Elf64_Shdr));
  return out;
}

// The content of an SHF_COMPRESSED section: header, then what a compressor wrote.
inline std::string CompressedContent(uint32_t type, uint64_t size, std::string_view packed) {
  Elf64_Chdr header{};
  header.ch_type = type;
  header.ch_size = size;
  header.ch_addralign = 1;
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)).append(packed);
}

}  // namespace firewatch::symbolizer
