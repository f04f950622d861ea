// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/function_symbols.h"

#include <elf.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/status.h"
#include "symbolizer/elf/go_pclntab.h"
#include "symbolizer/elf/plt_symbols.h"

namespace firewatch::symbolizer {
namespace {

// Behind the symbols that cgo's C code may have in .dynsym.
constexpr uint8_t kGoRank = 8;

bool IsCode(const ElfSection& section, const FunctionSymbolOptions& options) {
  return (section.type != SHT_NOBITS || options.debug_file) &&
         (section.flags & SHF_EXECINSTR) != 0 && (section.flags & SHF_ALLOC) != 0;
}

bool Covers(const ElfSection& section, uint64_t vaddr) {
  return vaddr >= section.vaddr && vaddr - section.vaddr < section.size;
}

// nullptr when the symbol is not defined in a section of code, or lies outside of it.
const ElfSection* CodeSectionOf(const ElfReader& elf, const ElfSymbol& symbol,
                                const FunctionSymbolOptions& options) {
  const auto& sections = elf.sections();
  if (symbol.section == SHN_XINDEX) {
    // The true index stands in a third table; the address says as much.
    for (const ElfSection& section : sections) {
      if (IsCode(section, options) && Covers(section, symbol.value)) return &section;
    }
    return nullptr;
  }
  if (symbol.section == SHN_UNDEF || symbol.section >= sections.size()) return nullptr;
  const ElfSection& section = sections[symbol.section];
  return IsCode(section, options) && Covers(section, symbol.value) ? &section : nullptr;
}

// Lower is better: global before weak before local, typed before untyped.
uint8_t RankOf(const ElfSymbol& symbol) {
  uint8_t rank = 4;
  if (symbol.binding == STB_GLOBAL || symbol.binding == STB_GNU_UNIQUE) rank = 0;
  if (symbol.binding == STB_WEAK) rank = 2;
  return static_cast<uint8_t>(rank + (symbol.type == STT_NOTYPE ? 1 : 0));
}

// Nothing when the symbol is neither code nor in the middle of it.
std::optional<CodeSymbol> AsCode(const ElfReader& elf, const ElfSymbol& symbol,
                                 const FunctionSymbolOptions& options) {
  const bool is_data = symbol.type == STT_OBJECT;
  if (!is_data && symbol.type != STT_FUNC && symbol.type != STT_GNU_IFUNC &&
      symbol.type != STT_NOTYPE) {
    return std::nullopt;
  }
  const ElfSection* section = CodeSectionOf(elf, symbol, options);
  if (section == nullptr) return std::nullopt;
  if (is_data) return CodeSymbol{.start = symbol.value, .end = symbol.value, .data = true};
  uint64_t reach = section->size - (symbol.value - section->vaddr);
  if (!options.debug_file) reach = std::min(reach, elf.BytesAfter(symbol.value));
  const uint64_t size = symbol.size == 0 ? reach : std::min(symbol.size, reach);
  if (size == 0 || symbol.value > UINT64_MAX - size) return std::nullopt;
  return CodeSymbol{.start = symbol.value,
                    .end = symbol.value + size,
                    .name = symbol.name,
                    .rank = RankOf(symbol),
                    .sized = symbol.size != 0};
}

bool IsWithin(const CodeSymbol& symbol, const std::vector<AddressStretch>& stretches) {
  const uint64_t last = symbol.sized && !symbol.data ? symbol.end - 1 : symbol.start;
  const auto next = std::partition_point(
      stretches.begin(), stretches.end(),
      [&](const AddressStretch& stretch) { return stretch.last < symbol.start; });
  return next != stretches.end() && next->first <= last;
}

// A symbol without a size ends at the next symbol, of data, too.
void EndAtData(std::vector<uint64_t> data, std::vector<InputSymbol>* symbols) {
  std::sort(data.begin(), data.end());
  for (InputSymbol& symbol : *symbols) {
    if (symbol.sized) continue;
    const auto next = std::lower_bound(data.begin(), data.end(), symbol.start);
    if (next != data.end()) symbol.end = std::min(symbol.end, *next);
  }
}

// A table that makes no sense names nothing; the file may have other symbols.
void AddGoFunctions(const ElfReader& elf, FunctionSymbols* result) {
  auto pclntab = ReadGoPclntab(elf);
  if (!pclntab.ok()) return;
  result->has_table = true;
  result->strings.emplace_back(std::move(pclntab->table));
  for (const GoFunction& function : pclntab->functions) {
    result->symbols.push_back(
        {.start = function.start, .end = function.end, .name = function.name, .rank = kGoRank});
  }
}

}  // namespace

absl::StatusOr<int> VisitCodeSymbols(
    const ElfReader& elf, const FunctionSymbolOptions& options,
    absl::FunctionRef<void(uint32_t type, StringTable strings)> begin_table,
    absl::FunctionRef<void(const CodeSymbol&)> visit) {
  int tables = 0;
  for (const uint32_t type : {uint32_t{SHT_SYMTAB}, uint32_t{SHT_DYNSYM}}) {
    const auto& sections = elf.sections();
    const auto table = std::find_if(sections.begin(), sections.end(),
                                    [&](const ElfSection& s) { return s.type == type; });
    if (table == sections.end()) continue;
    ++tables;
    ASSIGN_OR_RETURN(StringTable strings, elf.ReadStringsOf(*table));
    begin_table(type, std::move(strings));
    RETURN_IF_ERROR(elf.ForEachSymbol(*table, [&](const ElfSymbol& symbol) {
      if (const auto code = AsCode(elf, symbol, options)) visit(*code);
    }));
  }
  return tables;
}

absl::StatusOr<FunctionSymbols> ReadFunctionSymbols(const ElfReader& elf,
                                                    const FunctionSymbolOptions& options) {
  FunctionSymbols result;
  result.strings.reserve(3);  // names point into the elements
  bool has_symtab = false;
  std::vector<uint64_t> data;
  const auto begin_table = [&](uint32_t type, StringTable strings) {
    has_symtab = has_symtab || type == SHT_SYMTAB;
    result.strings.push_back(std::move(strings));
  };
  const auto add = [&](const CodeSymbol& symbol) {
    if (options.within != nullptr && !IsWithin(symbol, *options.within)) return;
    if (symbol.data) return data.push_back(symbol.start);
    const std::string_view name = result.strings.back().At(symbol.name);
    if (name.empty()) return;
    result.symbols.push_back({.start = symbol.start,
                              .end = symbol.end,
                              .name = name,
                              .rank = symbol.rank,
                              .sized = symbol.sized});
  };
  ASSIGN_OR_RETURN(const int tables, VisitCodeSymbols(elf, options, begin_table, add));
  result.has_table = tables > 0;
  EndAtData(std::move(data), &result.symbols);
  if (options.debug_file) return result;
  result.is_go = GoPclntabSection(elf) != nullptr;
  if (options.within != nullptr) return result;
  AddPltSymbols(elf, &result);
  if (result.is_go && !has_symtab) AddGoFunctions(elf, &result);
  return result;
}

std::vector<IndexSegment> ExecutableSegments(const ElfReader& elf) {
  std::vector<IndexSegment> segments;
  for (const ElfSegment& segment : elf.segments()) {
    if (!segment.executable || segment.file_size == 0) continue;
    segments.push_back({.file_offset = segment.file_offset,
                        .vaddr = segment.vaddr,
                        .file_size = std::min({segment.file_size, UINT64_MAX - segment.file_offset,
                                               UINT64_MAX - segment.vaddr})});
  }
  return segments;
}

}  // namespace firewatch::symbolizer
