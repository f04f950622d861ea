// SPDX-License-Identifier: Apache-2.0
// Any bytes as a line program: rows ascend, do not overlap, and a search finds each.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/check.h"
#include "symbolizer/dwarf/line_program.h"
#include "symbolizer/dwarf/packed_sections_for_test.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const PackedSections sections(std::span(data, size));
  dwarf::LineProgram program;
  if (!program.Open(sections.input().main, 0, 8)) return 0;
  std::string path;
  const auto ask_for_paths = [&] {
    for (uint64_t file = 0; file < 12; ++file) program.PathOf(file, "/c", &path);
    program.PathOf(UINT64_MAX, "/c", &path);
  };
  ask_for_paths();
  dwarf::LineRows rows;
  program.Run(dwarf::CodeFilter({}), &rows);
  ask_for_paths();  // the program may define more
  dwarf::LineRows::Reader reader(rows);
  uint64_t at = 0;
  int seeks = 0;
  for (bool more = reader.Seek(0); more; more = reader.Next()) {
    CHECK(reader.row().start >= at && reader.row().start < reader.row().end);
    at = reader.row().end;
    if (++seeks > 200) continue;
    dwarf::LineRows::Reader other(rows);
    CHECK(other.Seek(at - 1) && other.row().end == at && other.row().line == reader.row().line);
  }
  return 0;
}
