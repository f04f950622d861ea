// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/go_pclntab.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

// The largest programs known (Kubernetes) have some 40 MB.
constexpr uint64_t kMaxTableBytes = uint64_t{512} << 20;
constexpr uint64_t kMaxRelocationBytes = uint64_t{64} << 20;
constexpr size_t kHeaderBytes = 8;
constexpr size_t kWord = 8;

enum class Form { kGo12, kGo116, kGo118 };  // 1.20 differs from 1.18 in its magic alone

template <typename T>
std::optional<T> Load(std::span<const char> table, uint64_t at) {
  if (at > table.size() || table.size() - at < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, table.data() + at, sizeof(value));
  return value;
}

// Magic, two zeros, the smallest instruction's size, the pointer's size.
std::optional<Form> FormOf(std::span<const char> table) {
  const auto magic = Load<uint32_t>(table, 0);
  if (!magic || table.size() < kHeaderBytes) return std::nullopt;
  if (table[4] != 0 || table[5] != 0 || table[6] != 1 || table[7] != kWord) return std::nullopt;
  switch (*magic) {
    case 0xfffffffb:
      return Form::kGo12;
    case 0xfffffffa:
      return Form::kGo116;
    case 0xfffffff0:
    case 0xfffffff1:
      return Form::kGo118;
    default:
      return std::nullopt;
  }
}

// Where the parts of a table lie, from its start.
struct Layout {
  uint64_t count = 0;
  uint64_t names = 0;
  uint64_t functions = 0;   // count + 1 pairs (address, offset of details); the last has the end
  uint64_t details = 0;     // what offsets of details count from
  uint64_t pair_bytes = 0;  // of one number of a pair
  uint64_t base = 0;        // what addresses count from
};

std::optional<Layout> LayoutOf(std::span<const char> table, Form form, uint64_t text_start) {
  const auto word = [&](size_t number) {
    return Load<uint64_t>(table, kHeaderBytes + number * kWord).value_or(UINT64_MAX);
  };
  Layout layout;
  layout.count = word(0);
  layout.pair_bytes = kWord;
  switch (form) {
    case Form::kGo12:
      layout.functions = kHeaderBytes + kWord;
      break;
    case Form::kGo116:
      layout.names = word(2);
      layout.functions = layout.details = word(6);
      break;
    case Form::kGo118:
      layout.names = word(3);
      layout.functions = layout.details = word(7);
      layout.pair_bytes = sizeof(uint32_t);
      layout.base = text_start;
      break;
  }
  if (layout.names >= table.size() || layout.functions >= table.size()) return std::nullopt;
  const uint64_t room = (table.size() - layout.functions) / (2 * layout.pair_bytes);
  if (layout.count == 0 || layout.count >= room) return std::nullopt;
  return layout;
}

class Table {
 public:
  Table(std::span<const char> bytes, const Layout& layout) : bytes_(bytes), layout_(layout) {}

  std::optional<uint64_t> AddressOf(uint64_t number) const {
    const auto value = Number(layout_.functions + number * 2 * layout_.pair_bytes);
    if (!value || *value > UINT64_MAX - layout_.base) return std::nullopt;
    return layout_.base + *value;
  }

  // "" when it cannot be had.
  std::string_view NameOf(uint64_t number) const {
    const auto details = Number(layout_.functions + (number * 2 + 1) * layout_.pair_bytes);
    if (!details || *details > bytes_.size()) return "";
    // The entry's address, as wide as in the pair, then the offset of the name.
    const auto name = Load<uint32_t>(bytes_, layout_.details + *details + layout_.pair_bytes);
    if (!name || *name >= bytes_.size() - layout_.names) return "";
    const auto text = bytes_.subspan(layout_.names + *name);
    const void* end = std::memchr(text.data(), 0, text.size());
    if (end == nullptr) return "";
    return {text.data(), static_cast<size_t>(static_cast<const char*>(end) - text.data())};
  }

 private:
  std::optional<uint64_t> Number(uint64_t at) const {
    if (layout_.pair_bytes == kWord) return Load<uint64_t>(bytes_, at);
    const auto value = Load<uint32_t>(bytes_, at);
    return value ? std::optional<uint64_t>(*value) : std::nullopt;
  }
  std::span<const char> bytes_;
  const Layout layout_;
};

// What a position independent program's loader writes at `vaddr`; 0 when nothing.
uint64_t RelocatedWord(const ElfReader& elf, uint64_t vaddr) {
  size_t tables = 0;
  for (const ElfSection& section : elf.sections()) {
    if (section.type != SHT_RELA || (section.flags & SHF_ALLOC) == 0) continue;
    if (++tables > 4 || section.size > kMaxRelocationBytes) break;
    std::vector<Elf64_Rela> entries(section.size / sizeof(Elf64_Rela));
    if (!elf.source()
             .Read(section.file_offset, std::as_writable_bytes(std::span<Elf64_Rela>(entries)))
             .ok()) {
      continue;
    }
    for (const Elf64_Rela& entry : entries) {
      if (entry.r_offset == vaddr && ELF64_R_TYPE(entry.r_info) == R_X86_64_RELATIVE) {
        return static_cast<uint64_t>(entry.r_addend);
      }
    }
  }
  return 0;
}

// The word at `offset` of a section, as a running program has it.
uint64_t WordOf(const ElfReader& elf, const ElfSection& section, uint64_t offset) {
  uint64_t word = 0;
  if (section.type == SHT_NOBITS || section.size < offset + sizeof(word)) return 0;
  const auto bytes = std::as_writable_bytes(std::span<uint64_t>(&word, 1));
  if (!elf.source().Read(section.file_offset + offset, bytes).ok()) return 0;
  return word != 0 ? word : RelocatedWord(elf, section.vaddr + offset);
}

bool Contains(const ElfSection& section, const GoFunction& function) {
  return function.start >= section.vaddr && function.start - section.vaddr < section.size &&
         function.end - section.vaddr <= section.size;
}

// In the module data: header, six slices of three words, findfunctab, minpc, maxpc, text.
constexpr uint64_t kModuleText = 22 * kWord;

uint64_t TextStart(const ElfReader& elf, const ElfSection& pclntab) {
  constexpr uint64_t kHeaderText = kHeaderBytes + 2 * kWord;
  if (const uint64_t start = WordOf(elf, pclntab, kHeaderText); start != 0) return start;
  const ElfSection* module = elf.SectionNamed(".go.module");
  if (module != nullptr) {
    if (const uint64_t start = WordOf(elf, *module, kModuleText); start != 0) return start;
  }
  // True when Go's own linker has made the program: C's start-up code comes first otherwise.
  const ElfSection* text = elf.SectionNamed(".text");
  return text == nullptr ? 0 : text->vaddr;
}

}  // namespace

bool NeedsGoTextStart(std::span<const char> table, uint64_t* start) {
  *start = 0;
  if (FormOf(table) != Form::kGo118) return false;
  *start = Load<uint64_t>(table, kHeaderBytes + 2 * kWord).value_or(0);
  return true;
}

absl::StatusOr<std::vector<GoFunction>> ReadGoFunctions(std::span<const char> table,
                                                        uint64_t text_start) {
  const auto form = FormOf(table);
  if (!form) return base::InvalidArgument("not a pclntab of a 64-bit Go program");
  const auto layout = LayoutOf(table, *form, text_start);
  if (!layout) return base::InvalidArgument("parts of the pclntab lie outside of it");
  const Table reader(table, *layout);
  std::vector<GoFunction> functions;
  functions.reserve(layout->count);
  for (uint64_t i = 0; i < layout->count; ++i) {
    const auto start = reader.AddressOf(i);
    const auto end = reader.AddressOf(i + 1);
    const std::string_view name = reader.NameOf(i);
    if (!start || !end || *end <= *start || name.empty()) continue;
    functions.push_back({.start = *start, .end = *end, .name = name});
  }
  return functions;
}

const ElfSection* GoPclntabSection(const ElfReader& elf) {
  for (const std::string_view name : {".gopclntab", ".data.rel.ro.gopclntab"}) {
    const ElfSection* section = elf.SectionNamed(name);
    if (section != nullptr && section->type != SHT_NOBITS) return section;
  }
  return nullptr;
}

absl::StatusOr<GoPclntab> ReadGoPclntab(const ElfReader& elf) {
  const ElfSection* section = GoPclntabSection(elf);
  if (section == nullptr) return base::NotFound("no .gopclntab");
  if (section->size > kMaxTableBytes) {
    return base::ResourceExhausted("pclntab of {} bytes, {} are allowed", section->size,
                                   kMaxTableBytes);
  }
  if (section->file_offset > elf.source().size() ||
      section->size > elf.source().size() - section->file_offset) {
    return base::InvalidArgument("pclntab past the end of the file");
  }
  GoPclntab result;
  result.table.resize(section->size);
  RETURN_IF_ERROR(elf.source().Read(section->file_offset,
                                    std::as_writable_bytes(std::span<char>(result.table))));
  uint64_t text_start = 0;
  if (NeedsGoTextStart(result.table, &text_start) && text_start == 0) {
    text_start = TextStart(elf, *section);
  }
  ASSIGN_OR_RETURN(result.functions, ReadGoFunctions(result.table, text_start));
  std::vector<ElfSection> code;
  for (const ElfSection& candidate : elf.sections()) {
    if ((candidate.flags & SHF_EXECINSTR) != 0) code.push_back(candidate);
  }
  std::erase_if(result.functions, [&](const GoFunction& function) {
    return std::none_of(code.begin(), code.end(),
                        [&](const ElfSection& part) { return Contains(part, function); });
  });
  return result;
}

}  // namespace firewatch::symbolizer
