// SPDX-License-Identifier: Apache-2.0
// Step 2 of reading a unit (unit_lines.h): the walk over its entries. Nearly all of them are
// skipped; what is taken are functions that have code and the inlined calls below them, wherever
// they stand (in lexical blocks, classes, lambdas, other functions).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "symbolizer/dwarf/code_filter.h"
#include "symbolizer/dwarf/function_names.h"
#include "symbolizer/dwarf/interned.h"
#include "symbolizer/dwarf/unit.h"

namespace firewatch::symbolizer::dwarf {

// A function or an inlined call, as it stands in the unit. Number 0 is none, 1 the unit itself,
// whose ranges tell the code between functions from what is nobody's.
struct CodeEntry {
  uint32_t name = 0;             // index in FunctionWalk::names
  uint32_t parent = 0;           // of an inlined call: the entry that it was inlined into
  uint32_t depth = 0;            // 0: a function
  uint32_t call_line = 0;        // 0: unknown
  uint64_t call_file = kNoFile;  // in the unit's table of files

  static constexpr uint64_t kNoFile = UINT64_MAX;
};

// Code of an entry. Later entries are inside earlier ones, or came later in the unit.
struct CodeRange {
  uint64_t start;
  uint64_t end;
  uint32_t entry;
};

struct FunctionCounts {
  uint64_t functions = 0;
  uint64_t inlined = 0;
  uint64_t ranges_dropped = 0;
  uint64_t names_missing = 0;
  bool damaged = false;  // an entry could not be read: nothing behind it was
};

// Goes through a unit in pieces, so that a unit of any size needs little memory, which is used
// again for each. One thread.
class FunctionWalk {
 public:
  FunctionWalk();
  // All of it must outlive the last call of Read.
  void Start(const Unit& unit, const CodeFilter& filter, ForeignUnits& foreign);
  // Reads on, to the end of some function. What was found stays until the next call. False when
  // nothing was left.
  bool Read();

  std::span<const CodeEntry> entries() const { return entries_; }
  std::vector<CodeRange>& ranges() { return ranges_; }
  std::span<const FunctionName> names() const { return names_; }
  const FunctionCounts& counts() const { return counts_; }  // since Start
  // Ranges of all functions since Start, in no order; those of this piece start at the second
  // number.
  std::vector<AddressRange>& function_ranges() { return function_ranges_; }
  size_t first_function_range() const { return first_function_range_; }

  // Inlined calls below this depth belong to the one at this depth.
  static constexpr uint32_t kMaxDepth = 200;
  // Where a piece ends, at the end of the function.
  static constexpr size_t kRangesPerPiece = 512;

 private:
  struct Open {
    uint32_t depth;  // of entries of any kind
    uint32_t entry;  // 0: inlined calls below are not wanted
  };
  uint32_t AddFunction(const Attributes& attributes);
  uint32_t AddInlined(const Attributes& attributes, uint32_t parent);
  // False when no code is left.
  bool AddRanges(const Attributes& attributes, uint32_t entry);
  uint32_t NameOf(const Attributes& attributes);

  const Unit* unit_ = nullptr;
  const CodeFilter* filter_ = nullptr;
  ForeignUnits* foreign_ = nullptr;
  FunctionCounts counts_;
  std::vector<CodeEntry> entries_;
  std::vector<CodeRange> ranges_;
  std::vector<FunctionName> names_;
  IndexMap names_by_origin_;
  ByteCursor cursor_{{}};
  uint32_t depth_ = 0;  // of the entries that are being read; the unit's own has 0
  std::vector<Open> open_;
  std::vector<AddressRange> found_;
  size_t range_budget_ = 0;
  std::vector<AddressRange> function_ranges_;
  size_t first_function_range_ = 0;
};

}  // namespace firewatch::symbolizer::dwarf
