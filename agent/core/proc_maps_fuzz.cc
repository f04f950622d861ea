// SPDX-License-Identifier: Apache-2.0
// /proc/PID/maps, stat and status hold names chosen by any user of the machine.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "agent/core/proc_reader.h"
#include "agent/core/process_table.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<agent::ProcMapsEntry> entries;
  agent::ParseProcMaps(text, &entries);
  agent::MappingSet set;
  for (const agent::ProcMapsEntry& entry : entries) {
    CHECK(entry.start < entry.end);
    CHECK(!entry.file.path.empty());
    CHECK(!entry.remapped || (entry.file.inode != 0 && entry.file_offset <= entry.start));
    set.Add({.start = entry.start, .end = entry.end, .file_offset = entry.file_offset});
    CHECK(set.Find(entry.start) != nullptr);
  }
  for (size_t i = 1; i < set.all().size(); ++i) CHECK(set.all()[i - 1].end <= set.all()[i].start);
  (void)agent::ParseProcStat(text);
  (void)agent::ParseProcStatus(text);
  return 0;
}
