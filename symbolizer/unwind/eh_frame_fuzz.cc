// SPDX-License-Identifier: Apache-2.0
// Any bytes as .eh_frame or .debug_frame, the first byte saying which: rows must come out in order
// and inside the code, the table must be one that its reader takes, and both must say the same.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "symbolizer/unwind/table_builder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span<const uint8_t>(data, size));
  // Code where the seeds (of shared objects) have theirs, the section behind it.
  constexpr uint64_t kCodeBytes = 1 << 20;
  const CodeSegment code[] = {{.vaddr = 0x1000, .size = kCodeBytes, .file_offset = 0x1000},
                              {.vaddr = 0x400000, .size = 0x1000, .file_offset = 0x200000}};
  const CfiSection section = {
      .bytes = bytes.subspan(1),
      .vaddr = 0x2000,
      .is_debug_frame = (data[0] & 1) != 0,
      .ends_at_zero = (data[0] & 2) != 0,
      .text_vaddr = 0x1000,
      .data_vaddr = 0x3000,
      .read_pointer = [](uint64_t vaddr) { return std::optional<uint64_t>(vaddr ^ 0x1000); }};
  const UnwindBuild build = BuildRows({&section, 1}, code, (data[0] & 4) != 0 ? 0x1800 : 0);
  uint64_t last = 0;
  for (const TableRow& row : build.source.rows) {
    CHECK(row.offset >= last && row.rule < build.source.rules.size());
    last = row.offset + 1;
  }
  CHECK(build.source.rows.empty() || build.source.rows.back().rule == 0);
  CHECK(build.source.counts.fdes >= build.source.counts.fdes_refused);

  const std::string table_bytes = EncodeUnwindTable(build.source);
  const auto table = UnwindTable::Parse(
      std::as_bytes(std::span<const char>(table_bytes.data(), table_bytes.size())));
  CHECK(table.ok());
  for (const TableRow& row : build.source.rows) {
    const UnwindTable::Rule found = table->Find(row.offset);
    CHECK(WordsOf(found.rule, found.slot) == build.source.rules[row.rule]);
  }
  return 0;
}
