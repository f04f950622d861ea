// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/elf_input_for_test.h"

#include <elf.h>

#include <cstring>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

template <typename T>
bool ReadAt(std::span<const std::byte> bytes, uint64_t offset, T* out) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return false;
  std::memcpy(out, bytes.data() + offset, sizeof(T));
  return true;
}

std::span<const std::byte> Part(std::span<const std::byte> bytes, uint64_t offset, uint64_t size) {
  if (offset > bytes.size() || size > bytes.size() - offset) return {};
  return bytes.subspan(static_cast<size_t>(offset), static_cast<size_t>(size));
}

std::string NameAt(std::span<const std::byte> names, uint64_t offset) {
  const auto* text = reinterpret_cast<const char*>(names.data());
  return offset < names.size()
             ? std::string(text + offset, strnlen(text + offset, names.size() - offset))
             : std::string();
}

}  // namespace

absl::StatusOr<DwarfSections> ElfInputForTest::Map(const std::string& path, bool split,
                                                   bool is_main) {
  ASSIGN_OR_RETURN(base::MappedFile file, base::MappedFile::Open(path));
  const std::span<const std::byte> bytes = file.bytes();
  Elf64_Ehdr header;
  if (!ReadAt(bytes, 0, &header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return base::InvalidArgument("{}: not an ELF file", path);
  }
  const auto section_at = [&](unsigned index, Elf64_Shdr* out) {
    return ReadAt(bytes, header.e_shoff + uint64_t{index} * sizeof(Elf64_Shdr), out);
  };
  Elf64_Shdr section;
  if (!section_at(header.e_shstrndx, &section)) {
    return base::InvalidArgument("{}: no section headers", path);
  }
  const std::span<const std::byte> names = Part(bytes, section.sh_offset, section.sh_size);
  DwarfSections sections;
  const std::map<std::string, std::span<const std::byte>*> wanted = {
      {".debug_info", &sections.info},
      {".debug_abbrev", &sections.abbrev},
      {".debug_str", &sections.str},
      {".debug_line", &sections.line},
      {".debug_line_str", &sections.line_str},
      {".debug_ranges", &sections.ranges},
      {".debug_rnglists", &sections.rnglists},
      {".debug_addr", &sections.addr},
      {".debug_str_offsets", &sections.str_offsets},
      {".debug_aranges", &sections.aranges},
      {".debug_cu_index", &sections.cu_index}};
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    if (!section_at(i, &section)) break;
    std::string name = NameAt(names, section.sh_name);
    if (is_main && name == ".text") {
      text_start_ = section.sh_addr;
      text_size_ = section.sh_size;
    }
    if (split && name.ends_with(".dwo")) name.resize(name.size() - 4);
    const auto found = wanted.find(name);
    if (found == wanted.end() || section.sh_type == SHT_NOBITS) continue;
    if ((section.sh_flags & SHF_COMPRESSED) != 0) {
      return base::InvalidArgument("{}: {} is compressed", path, name);
    }
    *found->second = Part(bytes, section.sh_offset, section.sh_size);
  }
  if (is_main) {
    for (unsigned i = 0; i < header.e_phnum; ++i) {
      Elf64_Phdr segment;
      if (!ReadAt(bytes, header.e_phoff + uint64_t{i} * sizeof(segment), &segment)) break;
      if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0 && segment.p_memsz != 0) {
        input_.executable.push_back({segment.p_vaddr, segment.p_vaddr + segment.p_memsz});
      }
    }
  }
  files_.push_back(std::move(file));
  return sections;
}

absl::StatusOr<std::unique_ptr<ElfInputForTest>> ElfInputForTest::Open(
    const DwarfTestFiles& files) {
  auto opened = std::make_unique<ElfInputForTest>();
  ElfInputForTest* const self = opened.get();
  ASSIGN_OR_RETURN(self->input_.main, self->Map(files.main, false, true));
  if (!files.alt.empty()) {
    ASSIGN_OR_RETURN(self->input_.alt, self->Map(files.alt, false, false));
  }
  if (!files.dwp.empty()) {
    ASSIGN_OR_RETURN(self->input_.dwp, self->Map(files.dwp, true, false));
  }
  if (files.find_dwo) {
    self->input_.open_dwo = [self](std::string_view name, std::string_view comp_dir,
                                   uint64_t) -> const DwarfSections* {
      std::string path(name);
      if (!path.starts_with("/")) path = std::string(comp_dir) + "/" + path;
      const std::lock_guard<std::mutex> lock(self->mutex_);
      auto sections = self->Map(path, true, false);
      if (!sections.ok()) return nullptr;
      self->dwo_.push_back(std::make_unique<DwarfSections>(*sections));
      return self->dwo_.back().get();
    };
  }
  return opened;
}

}  // namespace firewatch::symbolizer
