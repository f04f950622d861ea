// SPDX-License-Identifier: Apache-2.0
// From the symbol tables of an ELF file to named ranges of file offsets, ready for the index.
//
// 1. .symtab and .dynsym are both read: a stripped file has the second only, a partly stripped one
//    has a few entries in the first.
// 2. Kept are functions, indirect functions and untyped labels (assembly) that are defined in an
//    executable section with bytes. Data, sections, files and absolute symbols are not code.
// 3. A symbol with a size ends there, or at the end of its section or segment when it claims more.
//    A symbol without a size may reach to the next symbol, never past its section (index/flatten.h
//    finds the next one): naming the nearest lower symbol invents names.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/index/flatten.h"

namespace firewatch::symbolizer {

struct FunctionSymbols {
  std::vector<InputSymbol> symbols;  // names point into `strings`
  std::vector<std::vector<char>> strings;
  bool has_table = false;  // there is a .symtab or a .dynsym
};

// Errors as ElfReader's. Memory: 40 bytes per function and the string tables.
absl::StatusOr<FunctionSymbols> ReadFunctionSymbols(const ElfReader& elf);

}  // namespace firewatch::symbolizer
