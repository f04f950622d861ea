// SPDX-License-Identifier: Apache-2.0
// Any bytes as an ELF file: headers, notes, symbols, ranges. What comes out must keep the promises
// of the headers: ranges in order, inside the file's segments, names inside the tables.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/elf/function_symbols.h"

namespace firewatch::symbolizer {
namespace {

void CheckOffsets(const ElfReader& elf) {
  for (const ElfSegment& segment : elf.segments()) {
    if (const auto offset = elf.FileOffsetOf(segment.vaddr)) {
      CHECK(elf.BytesAfter(segment.vaddr) > 0);
      elf.VaddrOf(*offset);
    }
    elf.VaddrOf(segment.file_offset);
  }
}

void CheckRanges(FunctionSymbols& functions) {
  uint64_t free_from = 0;
  for (const SymbolRange& range : Flatten(functions.symbols)) {
    CHECK(range.start >= free_from && range.end > range.start);
    CHECK(!functions.symbols[range.symbol].name.empty());
    free_from = range.end;
  }
}

}  // namespace
}  // namespace firewatch::symbolizer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const SpanByteSource source(std::as_bytes(std::span<const uint8_t>(data, size)));
  const auto elf = ElfReader::Open(source);
  if (!elf.ok()) return 0;
  CheckOffsets(*elf);
  auto functions = ReadFunctionSymbols(*elf);
  if (functions.ok()) CheckRanges(*functions);
  return 0;
}
