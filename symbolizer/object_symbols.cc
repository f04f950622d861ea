// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/object_symbols.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

void AddFurther(const ElfFile* file, SymbolTables* tables) {
  if (file == nullptr) return;
  auto functions = ReadFunctionSymbols(file->reader(), {.debug_file = true});
  if (functions.ok()) tables->push_back(*std::move(functions));
}

}  // namespace

absl::StatusOr<SymbolTables> ReadSymbolTables(ObjectFiles& files) {
  SymbolTables tables;
  const bool alone = files.elf() == nullptr;
  const ElfFile& first = alone ? *files.debug() : *files.elf();
  // A file that is called a debug file may be a whole program all the same.
  const bool no_code = alone && files.facts().executable_segments.empty();
  ASSIGN_OR_RETURN(auto functions, ReadFunctionSymbols(first.reader(), {.debug_file = no_code}));
  tables.push_back(std::move(functions));
  // .gnu_debugdata is a part of the debug file's table, and both are parts of a whole one.
  if (alone || files.facts().has_symtab) return tables;
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

absl::StatusOr<ObjectSymbols> ObjectSymbols::Read(ObjectFiles& files) {
  ObjectSymbols result;
  ASSIGN_OR_RETURN(result.tables_, ReadSymbolTables(files));
  result.symbols_ = TakeSymbols(result.tables_);
  result.ranges_ = Flatten(result.symbols_);
  return result;
}

std::optional<ObjectSymbols::Symbol> ObjectSymbols::At(uint64_t vaddr) const {
  auto range = std::upper_bound(
      ranges_.begin(), ranges_.end(), vaddr,
      [](uint64_t address, const SymbolRange& candidate) { return address < candidate.start; });
  if (range == ranges_.begin()) return std::nullopt;
  --range;
  if (vaddr >= range->end) return std::nullopt;
  const InputSymbol& symbol = symbols_[range->symbol];
  return Symbol{.name = symbol.name, .start = range->start, .end = range->end, .plt = symbol.plt};
}

}  // namespace firewatch::symbolizer
