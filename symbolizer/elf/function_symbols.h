// SPDX-License-Identifier: Apache-2.0
// From the symbol tables of an ELF file to named ranges of virtual addresses, ready for the index.
//
// 1. .symtab and .dynsym are both read: a stripped file has the second only, a partly stripped one
//    has a few entries in the first.
// 2. Kept are functions, indirect functions and untyped labels (assembly) that are defined in an
//    executable section with bytes. Data, sections, files and absolute symbols are not code.
// 3. A symbol with a size ends there, or at the end of its section or segment when it claims more.
//    A symbol without a size may reach to the next symbol, never past its section (index/flatten.h
//    finds the next one): naming the nearest lower symbol invents names.
// 4. Slots of the procedure linkage table get the name of what they lead to: elf/plt_symbols.h.
// 5. A Go program without .symtab is named by its pclntab: elf/go_pclntab.h.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/index/flatten.h"
#include "symbolizer/index/index_format.h"

namespace firewatch::symbolizer {

struct FunctionSymbols {
  std::vector<InputSymbol> symbols;  // names point into the two below
  std::vector<StringTable> strings;
  std::deque<std::string> made_names;  // not in the file as they are: PLT slots
  bool has_table = false;              // there is a .symtab, a .dynsym or a pclntab
  bool is_go = false;                  // has a pclntab: dots in names are Go's own
};

// Addresses, first and last one included.
struct AddressStretch {
  uint64_t first = 0;
  uint64_t last = 0;
};

struct FunctionSymbolOptions {
  // The file has no code of its own (objcopy --only-keep-debug, .gnu_debugdata): sections of code
  // without bytes count, and what they hold is bounded by the sections alone.
  bool debug_file = false;
  // Ascending and disjoint: only symbols that have code in one of these stretches are kept, those
  // without a size only when they begin there. Neither PLT nor pclntab are read then. nullptr: all.
  const std::vector<AddressStretch>* within = nullptr;
};

// A symbol of code, or data in the middle of it (tables of hand-written assembly).
struct CodeSymbol {
  uint64_t start = 0;
  uint64_t end = 0;   // the furthest that it reaches; of data the same as `start`
  uint32_t name = 0;  // in its table's strings
  uint8_t rank = 0;   // InputSymbol::rank
  bool sized = true;
  bool data = false;
};

// Of .symtab, then of .dynsym, without reading a name. Returns how many of the two tables there
// are; errors as ElfReader's.
absl::StatusOr<int> VisitCodeSymbols(
    const ElfReader& elf, const FunctionSymbolOptions& options,
    absl::FunctionRef<void(uint32_t type, StringTable strings)> begin_table,
    absl::FunctionRef<void(const CodeSymbol&)> visit);

// Errors as ElfReader's; a PLT or pclntab that makes no sense is no error, only not named. Memory:
// 40 bytes per function, and the string tables where the source does not let view them.
absl::StatusOr<FunctionSymbols> ReadFunctionSymbols(const ElfReader& elf,
                                                    const FunctionSymbolOptions& options = {});

// The executable PT_LOAD segments, for the index.
std::vector<IndexSegment> ExecutableSegments(const ElfReader& elf);

}  // namespace firewatch::symbolizer
