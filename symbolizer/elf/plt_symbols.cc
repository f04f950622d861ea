// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/plt_symbols.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "symbolizer/elf/function_symbols.h"

namespace firewatch::symbolizer {
namespace {

constexpr std::string_view kPltSections[] = {".plt", ".plt.sec", ".plt.got", ".iplt", ".plt.bnd"};
constexpr uint64_t kMaxSectionBytes = uint64_t{16} << 20;
constexpr size_t kMaxRelocationTables = 4;  // linkers write two
constexpr uint64_t kUnitBytes = 16;
constexpr uint64_t kRetpolineBytes = 32;
// Behind every symbol of a symbol table.
constexpr uint8_t kPltRank = 9;

std::vector<std::byte> ReadSection(const ElfReader& elf, const ElfSection& section) {
  if (section.type == SHT_NOBITS || section.size > kMaxSectionBytes) return {};
  if ((section.flags & SHF_COMPRESSED) != 0) return {};
  std::vector<std::byte> bytes(section.size);
  if (!elf.source().Read(section.file_offset, bytes).ok()) bytes.clear();
  return bytes;
}

template <typename T>
T Load(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

bool StartsWith(std::span<const std::byte> bytes, std::string_view prefix) {
  return bytes.size() >= prefix.size() &&
         std::memcmp(bytes.data(), prefix.data(), prefix.size()) == 0;
}

// What one slot's code says.
struct Slot {
  std::optional<uint64_t> got;         // address of the GOT slot it jumps through
  std::optional<uint32_t> relocation;  // number in .rela.plt that it pushes
  bool retpoline = false;
};

// `code` starts at `vaddr` and is cut at the end of the slot or the section.
Slot Decode(std::span<const std::byte> code, uint64_t vaddr) {
  constexpr std::string_view kEndbr64 = "\xf3\x0f\x1e\xfa";
  const auto skip = [&](size_t bytes) {
    code = code.subspan(bytes);
    vaddr += bytes;
  };
  Slot slot;
  if (StartsWith(code, kEndbr64)) skip(kEndbr64.size());
  if (StartsWith(code, "\x68") && code.size() >= 5) {
    slot.relocation = Load<uint32_t>(code, 1);
    return slot;
  }
  if (StartsWith(code, "\xf2")) skip(1);
  slot.retpoline = StartsWith(code, "\x4c\x8b\x1d");  // mov disp(%rip), %r11
  const size_t opcode_bytes = slot.retpoline ? 3 : 2;
  if ((slot.retpoline || StartsWith(code, "\xff\x25")) && code.size() >= opcode_bytes + 4) {
    const auto distance = Load<int32_t>(code, opcode_bytes);
    slot.got = vaddr + opcode_bytes + 4 + static_cast<uint64_t>(int64_t{distance});
  }
  return slot;
}

class PltNamer {
 public:
  PltNamer(const ElfReader& elf, FunctionSymbols* functions) : elf_(elf), functions_(*functions) {}

  void Run() {
    ReadRelocations();
    if (by_got_.empty()) return;
    for (const std::string_view name : kPltSections) {
      const ElfSection* section = elf_.SectionNamed(name);
      if (section != nullptr && (section->flags & SHF_EXECINSTR) != 0) NameSlots(*section);
    }
    functions_.symbols.insert(functions_.symbols.end(), slots_.begin(), slots_.end());
  }

 private:
  struct Target {
    uint32_t symbol = 0;    // number in the dynamic symbol table; 0: none
    uint64_t resolver = 0;  // IRELATIVE
  };

  void ReadRelocations() {
    const ElfSection* plt = elf_.SectionNamed(".rela.plt");
    size_t tables = 0;
    for (const ElfSection& section : elf_.sections()) {
      if (section.type != SHT_RELA || (section.flags & SHF_ALLOC) == 0) continue;
      if (++tables > kMaxRelocationTables) break;
      const std::vector<std::byte> bytes = ReadSection(elf_, section);
      const bool numbered = &section == plt;
      for (size_t at = 0; at + sizeof(Elf64_Rela) <= bytes.size(); at += sizeof(Elf64_Rela)) {
        const auto entry = Load<Elf64_Rela>(bytes, at);
        const auto type = ELF64_R_TYPE(entry.r_info);
        Target target;
        if (type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT) {
          target.symbol = static_cast<uint32_t>(ELF64_R_SYM(entry.r_info));
        } else if (type == R_X86_64_IRELATIVE) {
          target.resolver = static_cast<uint64_t>(entry.r_addend);
        }
        if (numbered) by_number_.push_back(target);
        if (target.symbol == 0 && target.resolver == 0) continue;
        by_got_.try_emplace(entry.r_offset, target);
        if (target.symbol != 0 && symbols_section_ == 0) symbols_section_ = section.link;
      }
    }
    ReadDynamicNames();
  }

  // Names of undefined symbols too, which the list of functions does not have.
  void ReadDynamicNames() {
    const auto& sections = elf_.sections();
    if (symbols_section_ == 0 || symbols_section_ >= sections.size()) return;
    const ElfSection& table = sections[symbols_section_];
    if (table.type != SHT_DYNSYM && table.type != SHT_SYMTAB) return;
    auto strings = elf_.ReadStringsOf(table);
    if (!strings.ok()) return;
    strings_ = *std::move(strings);
    const absl::Status ignored = elf_.ForEachSymbol(
        table, [&](const ElfSymbol& symbol) { names_.push_back(strings_.At(symbol.name)); });
    if (!ignored.ok()) names_.clear();
  }

  // The best name that starts at the address; of two symbol tables the functions are not sorted.
  std::string_view FunctionAt(uint64_t vaddr) {
    if (!resolvers_read_) {
      resolvers_read_ = true;
      for (const InputSymbol& symbol : functions_.symbols) {
        const auto [entry, is_new] = by_start_.try_emplace(symbol.start, symbol);
        if (!is_new && IsBetterName(symbol, entry->second)) entry->second = symbol;
      }
    }
    const auto found = by_start_.find(vaddr);
    return found == by_start_.end() ? "" : found->second.name;
  }

  std::string_view NameOf(const Target& target) {
    if (target.symbol != 0) return target.symbol < names_.size() ? names_[target.symbol] : "";
    return target.resolver == 0 ? "" : FunctionAt(target.resolver);
  }

  void NameSlots(const ElfSection& section) {
    const std::vector<std::byte> bytes = ReadSection(elf_, section);
    // .plt.got without IBT has slots of 8 bytes; everything else is made of units of 16.
    const uint64_t unit = section.entry_size == 8 ? 8 : kUnitBytes;
    for (uint64_t at = 0; at + 8 <= bytes.size();) {
      const uint64_t room = bytes.size() - at;
      const auto code = std::span<const std::byte>(bytes).subspan(at, std::min(room, unit));
      const uint64_t vaddr = section.vaddr + at;
      const Slot slot = Decode(code, vaddr);
      const uint64_t size = std::min(room, slot.retpoline ? kRetpolineBytes : unit);
      Add(slot, vaddr, size);
      at += size;
    }
  }

  void Add(const Slot& slot, uint64_t vaddr, uint64_t size) {
    std::string_view name;
    if (slot.got) {
      const auto target = by_got_.find(*slot.got);
      if (target != by_got_.end()) name = NameOf(target->second);
    } else if (slot.relocation && *slot.relocation < by_number_.size()) {
      name = NameOf(by_number_[*slot.relocation]);
    }
    if (name.empty() || vaddr > UINT64_MAX - size || elf_.BytesAfter(vaddr) < size) return;
    slots_.push_back({.start = vaddr,
                      .end = vaddr + size,
                      .name = functions_.made_names.emplace_back(std::string(name) + "@plt"),
                      .rank = kPltRank,
                      .plt = true});
  }

  const ElfReader& elf_;
  FunctionSymbols& functions_;
  absl::flat_hash_map<uint64_t, Target> by_got_;
  std::vector<Target> by_number_;  // of .rela.plt
  uint32_t symbols_section_ = 0;
  StringTable strings_;
  std::vector<std::string_view> names_;  // by number in the dynamic symbol table
  bool resolvers_read_ = false;
  absl::flat_hash_map<uint64_t, InputSymbol> by_start_;
  std::vector<InputSymbol> slots_;
};

}  // namespace

void AddPltSymbols(const ElfReader& elf, FunctionSymbols* functions) {
  PltNamer(elf, functions).Run();
}

bool IsInPlt(const ElfReader& elf, std::span<const uint64_t> addresses) {
  return std::any_of(std::begin(kPltSections), std::end(kPltSections), [&](std::string_view name) {
    const ElfSection* section = elf.SectionNamed(name);
    return section != nullptr &&
           std::any_of(addresses.begin(), addresses.end(), [&](uint64_t address) {
             return address >= section->vaddr && address - section->vaddr < section->size;
           });
  });
}

}  // namespace firewatch::symbolizer
