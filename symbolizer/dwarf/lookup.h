// SPDX-License-Identifier: Apache-2.0
// The chains at a few addresses, straight from the debug information: for whom an index is not
// worth its making. Only units that may hold one of the addresses are read, and of those only the
// functions that do. The answers are those of an index (line_table.h) of the same input.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "symbolizer/dwarf/input.h"
#include "symbolizer/dwarf/unit_lines.h"

namespace firewatch::symbolizer {

struct LookupFrame {
  std::string_view function;  // linkage name, or DW_AT_name; in a section of the input. "" unknown
  std::string file;           // "" unknown
  uint32_t line = 0;          // 0 unknown
  uint32_t start_line = 0;    // of the function's declaration; 0 unknown
  bool inlined = false;
};

struct LookupAnswer {
  // Innermost first; empty when nothing is known. One frame without a function when only a line is.
  std::vector<LookupFrame> frames;
};

// `addresses` ascend. Sets `*answers` to one per address. Which units are read: those that
// .debug_aranges names; for addresses that this leaves without a function (the table is missing for
// clang's units, and incomplete in mixed programs) those whose own entry covers them; and all that
// do not say what they cover. NotFound when there is no .debug_info. What is damaged is left out
// and counted in `*counts`.
absl::Status LookupAddresses(const DwarfInput& input, std::span<const uint64_t> addresses,
                             std::vector<LookupAnswer>* answers, dwarf::UnitCounts* counts);

}  // namespace firewatch::symbolizer
