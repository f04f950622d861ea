// SPDX-License-Identifier: Apache-2.0
// Any bytes as debug sections: an index can be made of what is readable, and it says of an address
// what a cold lookup says.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "symbolizer/dwarf/lookup.h"
#include "symbolizer/dwarf/names_for_test.h"
#include "symbolizer/dwarf/packed_sections_for_test.h"
#include "symbolizer/index/line_build.h"
#include "symbolizer/index/line_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const PackedSections sections(std::span(data, size));
  NamesForTest names;
  VectorSink section;
  const auto stats = BuildLines(sections.input(), {.max_rows = 1 << 16}, names, section);
  const std::vector<uint64_t> addresses = {0, 0x10, 0x1004, 0x1139, 0x1200, 0x401136, UINT64_MAX};
  std::vector<LookupAnswer> answers;
  dwarf::UnitCounts counts;
  (void)LookupAddresses(sections.input(), addresses, &answers, &counts);
  if (!stats.ok()) return 0;
  const auto table = LineTable::Parse(section.bytes(), static_cast<uint32_t>(names.size()));
  CHECK(table.ok());  // ours
  LineFrame frames[256];
  for (size_t i = 0; i < addresses.size(); ++i) {
    const size_t count = table->Find(addresses[i], frames);
    for (size_t k = 0; k < count; ++k) {
      CHECK(frames[k].function == kNoFunction || frames[k].function < table->function_count());
      CHECK(frames[k].inlined == (k + 1 < count));
    }
  }
  return 0;
}
