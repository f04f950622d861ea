// SPDX-License-Identifier: Apache-2.0
// Names for the slots of the procedure linkage table: "printf@plt". No symbol table has them.
//
// 1. Relocations (.rela.plt, .rela.dyn) say which slot of the GOT gets the address of which
//    symbol: JUMP_SLOT, GLOB_DAT, and IRELATIVE, whose symbol is found by the resolver's address.
// 2. The code of a PLT slot says which GOT slot it jumps through: jmp *disp(%rip), with or without
//    endbr64 and bnd before it; lld's retpoline loads it into r11. This covers .plt, .plt.sec,
//    .plt.got and .iplt of bfd, gold, lld and mold without knowing their layouts.
// 3. The lazy half of an IBT table (.plt beside .plt.sec) pushes the relocation's number instead.
#pragma once

#include <cstdint>
#include <span>

#include "symbolizer/elf/elf_reader.h"

namespace firewatch::symbolizer {

struct FunctionSymbols;

// Appends one symbol per slot that can be told; the header of a table has no name. Sections that
// cannot be read or make no sense are passed over. Reads at most nine sections of 16 MiB.
void AddPltSymbols(const ElfReader& elf, FunctionSymbols* functions);

// One of the addresses lies in a section whose slots AddPltSymbols names.
bool IsInPlt(const ElfReader& elf, std::span<const uint64_t> addresses);

}  // namespace firewatch::symbolizer
