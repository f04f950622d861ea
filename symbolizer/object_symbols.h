// SPDX-License-Identifier: Apache-2.0
// The function symbols of a program and its debug file: what an index is made of, and by themselves
// the quickest answer for a few addresses (nothing is written; of a large file only the tables'
// numbers are read, and the names that are asked for).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
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

// Immutable; any thread. `files` must outlive it: names may lie in them.
class ObjectSymbols {
 public:
  struct Symbol {
    std::string_view name;  // as in the file; valid as long as this object
    uint64_t start = 0;
    uint64_t end = 0;
    bool plt = false;
    bool continued = false;  // the symbol has code before `start`, interrupted by another's
  };

  static absl::StatusOr<ObjectSymbols> Read(ObjectFiles& files);
  // The same for those who ask At for nothing but `addresses`, which ascend. Two looks at each
  // entry of the symbol tables, unless one of the addresses lies in a PLT or only a pclntab can
  // name it: then it is Read.
  static absl::StatusOr<ObjectSymbols> ReadAt(ObjectFiles& files,
                                              std::span<const uint64_t> addresses);

  // The physical function at `vaddr` by the rules of the index (index/flatten.h): gaps stay gaps.
  std::optional<Symbol> At(uint64_t vaddr) const;
  // Names are a Go program's: dots in them do not begin a compiler's suffix.
  bool is_go() const { return is_go_; }

 private:
  explicit ObjectSymbols(SymbolTables tables);

  SymbolTables tables_;
  std::vector<InputSymbol> symbols_;
  std::vector<SymbolRange> ranges_;
  std::vector<bool> continued_;  // by range
  bool is_go_ = false;
};

}  // namespace firewatch::symbolizer
