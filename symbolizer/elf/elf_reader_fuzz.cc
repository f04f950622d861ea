// SPDX-License-Identifier: Apache-2.0
// Any bytes as an ELF file: headers, notes, symbols, ranges, sections (plain and inflated), links
// to other files, .gnu_debugdata. What comes out must keep the promises of the headers: ranges in
// order, inside the file's segments, names inside the tables, never more bytes than allowed.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/check.h"
#include "symbolizer/elf/elf_file.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/elf/inflate.h"
#include "symbolizer/elf/object_facts.h"
#include "symbolizer/elf/scratch_file.h"

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

constexpr uint64_t kMaxInflated = 1 << 16;
constexpr uint64_t kMaxXz = 1 << 18;

void CheckSections(const ByteSource& source) {
  ScratchFile scratch(-1, kMaxInflated);
  const auto file = ElfFile::FromSource(source, {}, scratch);
  if (!file.ok()) return;
  for (const char* name : {".debug_info", ".debug_str", ".debug_line", ".debug_abbrev"}) {
    const auto bytes = (*file)->Section(name);
    if (!bytes.ok()) continue;
    CHECK(bytes->empty() == !(*file)->Has(name) || bytes->empty());
    const auto again = (*file)->Section(name);
    CHECK(again.ok() && again->data() == bytes->data());
  }
  CHECK(scratch.used_bytes() <= kMaxInflated + 4 * 4096);
  const auto facts = ReadObjectFacts(**file);
  if (facts.ok()) {
    CHECK(!facts->id.empty());
    CHECK(facts->debuglink.find('/') == std::string::npos);
    CHECK(facts->altlink.find('\0') == std::string::npos);
  }
  const auto packed = (*file)->ReadRaw(".gnu_debugdata", 1 << 16);
  if (packed.ok() && !packed->empty()) {
    const auto mini = InflateXz(*packed, kMaxXz);
    CHECK(!mini.ok() || mini->size() <= kMaxXz);
  }
}

}  // namespace
}  // namespace firewatch::symbolizer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const SpanByteSource source(std::as_bytes(std::span<const uint8_t>(data, size)));
  const auto elf = ElfReader::Open(source);
  if (!elf.ok()) return 0;
  CheckSections(source);
  CheckOffsets(*elf);
  auto functions = ReadFunctionSymbols(*elf);
  if (functions.ok()) CheckRanges(*functions);
  return 0;
}
