// SPDX-License-Identifier: Apache-2.0
// Functions of a Go program by its pclntab, the table that the runtime itself unwinds by: it is
// there when `go build -ldflags="-s -w"` has left out .symtab and DWARF.
//
// Forms since Go 1.2 differ in where the parts lie and in how an address is written: as such until
// 1.16, from 1.18 on as an offset from the start of Go's text. That start stood in the header
// until 1.25 (relocated in position independent programs); from 1.26 on in the module data only.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/elf/elf_reader.h"

namespace firewatch::symbolizer {

struct GoFunction {
  uint64_t start = 0;
  uint64_t end = 0;
  std::string_view name;  // points into the table
};

// True when the form writes addresses as offsets: then ReadGoFunctions needs to know from where.
// `*start` gets what the header says, 0 when it says nothing.
bool NeedsGoTextStart(std::span<const char> table, uint64_t* start);

// The functions in the order of the table, which is that of addresses; those without a name and
// those that are out of order are left out. `text_start`: address of Go's text; used by forms that
// need it. InvalidArgument when it is no such table for 64-bit little-endian machines.
absl::StatusOr<std::vector<GoFunction>> ReadGoFunctions(std::span<const char> table,
                                                        uint64_t text_start);

// The section that holds the table; nullptr: not a Go program.
const ElfSection* GoPclntabSection(const ElfReader& elf);

// The table of a file and its functions; those outside of executable sections are left out.
struct GoPclntab {
  std::vector<char> table;
  std::vector<GoFunction> functions;  // names point into `table`
};
// NotFound when there is none; else errors as above. Memory: the table and 32 bytes per function.
absl::StatusOr<GoPclntab> ReadGoPclntab(const ElfReader& elf);

}  // namespace firewatch::symbolizer
