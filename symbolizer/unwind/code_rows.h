// SPDX-License-Identifier: Apache-2.0
// Rows for functions that have no CFI (hand-written assembly, crt files), from their instructions.
// Two such functions are met everywhere: zstd's Huffman decoders and _init of every library.
//
// Each function is read once, front to back; the depth of the stack is carried along and to the
// targets of its forward branches. What is found is believed only if it proves itself: every
// return finds the stack as the call left it, every place is reached with one depth, and nothing
// moves rsp in a way that cannot be followed. One doubt, and the function has no rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "symbolizer/unwind/cfi_rows.h"

namespace firewatch::symbolizer {

// A function found in the code, with its rows (ascending, the first one at `start`).
struct CodeFunction {
  uint64_t start = 0;
  uint64_t end = 0;
  std::vector<CfiRow> rows;
};

// `code` is all code between two functions with CFI, or a section of it; it begins at `vaddr`.
// Functions begin at its beginning (when `begins_function`), behind another that was read, or
// behind padding at a multiple of 16. What comes behind one that cannot be followed is not looked
// at.
std::vector<CodeFunction> RowsFromCode(std::span<const std::byte> code, uint64_t vaddr,
                                       bool begins_function);

}  // namespace firewatch::symbolizer
