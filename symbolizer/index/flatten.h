// SPDX-License-Identifier: Apache-2.0
// From symbols that overlap, share a start or have no size to sorted ranges that do neither, so
// that a lookup is one binary search and a gap stays a gap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace firewatch::symbolizer {

struct InputSymbol {
  uint64_t start = 0;
  uint64_t end = 0;       // exclusive; for a symbol without size the furthest that it may reach
  std::string_view name;  // as in the symbol table; must outlive the index's writer
  uint16_t group = 0;     // kernel module, 0 for none
  uint8_t rank = 0;       // lower wins among aliases
  bool sized = true;
  bool plt = false;  // a slot of the procedure linkage table
};

struct SymbolRange {
  uint64_t start = 0;
  uint64_t end = 0;  // exclusive; at most the next range's start
  uint32_t symbol = 0;
};

// True when `a` is the better name for one and the same code. In this order: lower rank, fewer
// leading underscores (memcpy over __memcpy), shorter, alphabetical. Total on distinct names, so
// the result depends on nothing else: not on the order in the file, not on the number of threads.
bool IsBetterName(const InputSymbol& a, const InputSymbol& b);

// Sorts `symbols` and returns the ranges in order; `symbol` is the index after sorting.
// 1. Equal start and end: the best name stays.
// 2. Overlaps: the symbol that starts last owns the bytes; an outer one goes on after it.
// 3. Symbols without size fill gaps only: to the next range or the next such symbol, at most to
//    their `end`. One that starts inside a sized symbol is a label of that function and is dropped.
// O(n log n), at most two ranges per symbol.
std::vector<SymbolRange> Flatten(std::vector<InputSymbol>& symbols);

// The other symbols of the code of `symbol`, an index after Flatten: those of the same start and
// end, then those of the same start without a size. Best first, at most kMaxAliases. Symbols of
// equal name stay in.
inline constexpr size_t kMaxAliases = 64;
std::vector<uint32_t> AliasesOf(const std::vector<InputSymbol>& symbols, uint32_t symbol);

}  // namespace firewatch::symbolizer
