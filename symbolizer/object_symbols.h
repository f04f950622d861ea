// SPDX-License-Identifier: Apache-2.0
// The function symbols of a program and its debug file: what an index is made of, and by themselves
// the quickest answer for a few addresses (no name is demangled, nothing is written).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/index/flatten.h"
#include "symbolizer/object_files.h"

namespace firewatch::symbolizer {

// A deque: names point into its elements.
using SymbolTables = std::deque<FunctionSymbols>;

// .symtab and .dynsym of the file that runs; where it has no .symtab also that of the debug file,
// or of .gnu_debugdata. Errors are the first file's; what cannot be read of a further one is left
// out.
absl::StatusOr<SymbolTables> ReadSymbolTables(ObjectFiles& files);

// All symbols of the tables together; they are moved out, their strings stay.
std::vector<InputSymbol> TakeSymbols(SymbolTables& tables);

// Immutable; any thread. `files` may go.
class ObjectSymbols {
 public:
  struct Symbol {
    std::string_view name;  // as in the file; valid as long as this object
    uint64_t start = 0;
    uint64_t end = 0;
    bool plt = false;
  };

  static absl::StatusOr<ObjectSymbols> Read(ObjectFiles& files);

  // The physical function at `vaddr` by the rules of the index (index/flatten.h): gaps stay gaps.
  std::optional<Symbol> At(uint64_t vaddr) const;

 private:
  SymbolTables tables_;
  std::vector<InputSymbol> symbols_;
  std::vector<SymbolRange> ranges_;
};

}  // namespace firewatch::symbolizer
