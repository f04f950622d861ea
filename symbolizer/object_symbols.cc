// SPDX-License-Identifier: Apache-2.0
// ReadAt: which symbol owns an address is decided by few others (index/flatten.h). They are found
// by one look at all entries, collected by a second one, and put through the same Flatten:
//
// 1. Sized symbols that cover the address: from the first of them on, all that begin up to the
//    address count, because the one that begins last wins, and what ended before it cuts its range.
// 2. Without one, the last symbol without a size that begins up to the address: from there on, all
//    that begin up to the address count, because any of them ends it.
#include "symbolizer/object_symbols.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "symbolizer/elf/go_pclntab.h"
#include "symbolizer/elf/plt_symbols.h"

namespace firewatch::symbolizer {
namespace {

// Steps over asked addresses that a symbol covers. A table with more is not one of functions.
constexpr uint64_t kMaxSteps = uint64_t{1} << 26;
constexpr uint64_t kNone = UINT64_MAX;

struct TableFile {
  const ElfReader* elf = nullptr;
  FunctionSymbolOptions options;
};

TableFile FirstFile(const ObjectFiles& files) {
  const bool alone = files.elf() == nullptr;
  // A file that is called a debug file may be a whole program all the same.
  const bool no_code = alone && files.facts().executable_segments.empty();
  return {.elf = &(alone ? files.debug() : files.elf())->reader(),
          .options = {.debug_file = no_code}};
}

// .gnu_debugdata is a part of the debug file's table, and both are parts of a whole one.
bool MayHaveMore(const ObjectFiles& files) {
  return files.elf() != nullptr && !files.facts().has_symtab;
}

void AddFurther(const ElfFile* file, SymbolTables* tables) {
  if (file == nullptr) return;
  auto functions = ReadFunctionSymbols(file->reader(), {.debug_file = true});
  if (functions.ok()) tables->push_back(*std::move(functions));
}

// The first look: where the symbols begin that have a say in each address.
class Surroundings {
 public:
  explicit Surroundings(std::span<const uint64_t> addresses)
      : addresses_(addresses),
        covered_from_(addresses.size(), kNone),
        unsized_(addresses.size(), kNone) {}

  // False: too much work.
  bool Look(const TableFile& file) {
    StringTable strings;
    const auto begin_table = [&](uint32_t, StringTable table) { strings = std::move(table); };
    const auto visit = [&](const CodeSymbol& symbol) {
      if (!symbol.data) Add(symbol, strings);
    };
    return VisitCodeSymbols(*file.elf, file.options, begin_table, visit).ok() && steps_ < kMaxSteps;
  }

  std::vector<AddressStretch> Stretches() const {
    std::vector<AddressStretch> stretches;
    uint64_t unsized = kNone;
    for (size_t i = 0; i < addresses_.size(); ++i) {
      if (unsized_[i] != kNone) unsized = unsized_[i];  // further addresses have it before them too
      const uint64_t first = covered_from_[i] != kNone ? covered_from_[i] : unsized;
      if (first != kNone) stretches.push_back({.first = first, .last = addresses_[i]});
    }
    std::sort(stretches.begin(), stretches.end(),
              [](const AddressStretch& a, const AddressStretch& b) { return a.first < b.first; });
    size_t kept = 0;
    for (const AddressStretch& next : stretches) {
      if (kept > 0 && next.first <= stretches[kept - 1].last) {
        stretches[kept - 1].last = std::max(stretches[kept - 1].last, next.last);
      } else {
        stretches[kept++] = next;
      }
    }
    stretches.resize(kept);
    return stretches;
  }

 private:
  void Add(const CodeSymbol& symbol, const StringTable& strings) {
    const auto next = std::lower_bound(addresses_.begin(), addresses_.end(), symbol.start);
    auto i = static_cast<size_t>(next - addresses_.begin());
    if (i == addresses_.size()) return;
    // One without a name is no symbol, and must not hide others.
    if (!symbol.sized) {
      const bool later = unsized_[i] == kNone || unsized_[i] < symbol.start;
      if (later && !strings.At(symbol.name).empty()) unsized_[i] = symbol.start;
      return;
    }
    if (addresses_[i] >= symbol.end || strings.At(symbol.name).empty()) return;
    for (; i < addresses_.size() && addresses_[i] < symbol.end && steps_ < kMaxSteps; ++i) {
      ++steps_;
      covered_from_[i] = std::min(covered_from_[i], symbol.start);
    }
  }

  const std::span<const uint64_t> addresses_;
  std::vector<uint64_t> covered_from_;  // the first sized symbol that covers the address
  std::vector<uint64_t> unsized_;  // the last unsized one between the address before and this one
  uint64_t steps_ = 0;
};

}  // namespace

absl::StatusOr<SymbolTables> ReadSymbolTables(ObjectFiles& files) {
  SymbolTables tables;
  const TableFile first = FirstFile(files);
  ASSIGN_OR_RETURN(auto functions, ReadFunctionSymbols(*first.elf, first.options));
  tables.push_back(std::move(functions));
  if (!MayHaveMore(files)) return tables;
  AddFurther(files.debug(), &tables);
  if (tables.size() == 1) AddFurther(files.mini_debug(), &tables);
  return tables;
}

std::vector<InputSymbol> TakeSymbols(SymbolTables& tables) {
  std::vector<InputSymbol> symbols;
  for (FunctionSymbols& table : tables) {
    if (symbols.empty()) {
      symbols = std::move(table.symbols);
    } else {
      symbols.insert(symbols.end(), table.symbols.begin(), table.symbols.end());
    }
    table.symbols.clear();
  }
  return symbols;
}

ObjectSymbols::ObjectSymbols(SymbolTables tables)
    : tables_(std::move(tables)), symbols_(TakeSymbols(tables_)), ranges_(Flatten(symbols_)) {
  for (const FunctionSymbols& table : tables_) is_go_ |= table.is_go;
  std::vector<bool> seen(symbols_.size());
  continued_.reserve(ranges_.size());
  for (const SymbolRange& range : ranges_) {
    continued_.push_back(seen[range.symbol]);
    seen[range.symbol] = true;
  }
}

absl::StatusOr<ObjectSymbols> ObjectSymbols::Read(ObjectFiles& files) {
  ASSIGN_OR_RETURN(SymbolTables tables, ReadSymbolTables(files));
  return ObjectSymbols(std::move(tables));
}

absl::StatusOr<ObjectSymbols> ObjectSymbols::ReadAt(ObjectFiles& files,
                                                    std::span<const uint64_t> addresses) {
  std::vector<TableFile> sources = {FirstFile(files)};
  const ElfReader& program = *sources.front().elf;
  const bool go_alone = !files.facts().has_symtab && GoPclntabSection(program) != nullptr;
  if (go_alone || IsInPlt(program, addresses)) return Read(files);
  if (MayHaveMore(files)) {
    const ElfFile* more = files.debug() != nullptr ? files.debug() : files.mini_debug();
    if (more != nullptr) {
      sources.push_back({.elf = &more->reader(), .options = {.debug_file = true}});
    }
  }
  Surroundings surroundings(addresses);
  for (const TableFile& source : sources) {
    if (!surroundings.Look(source)) return Read(files);
  }
  const std::vector<AddressStretch> stretches = surroundings.Stretches();
  SymbolTables tables;
  for (TableFile& source : sources) {
    source.options.within = &stretches;
    ASSIGN_OR_RETURN(auto functions, ReadFunctionSymbols(*source.elf, source.options));
    tables.push_back(std::move(functions));
  }
  return ObjectSymbols(std::move(tables));
}

std::optional<ObjectSymbols::Symbol> ObjectSymbols::At(uint64_t vaddr) const {
  auto range = std::upper_bound(
      ranges_.begin(), ranges_.end(), vaddr,
      [](uint64_t address, const SymbolRange& candidate) { return address < candidate.start; });
  if (range == ranges_.begin()) return std::nullopt;
  --range;
  if (vaddr >= range->end) return std::nullopt;
  const InputSymbol& symbol = symbols_[range->symbol];
  return Symbol{.name = symbol.name,
                .start = range->start,
                .end = range->end,
                .plt = symbol.plt,
                .continued = continued_[static_cast<size_t>(range - ranges_.begin())]};
}

}  // namespace firewatch::symbolizer
