// SPDX-License-Identifier: Apache-2.0
// Reads all units of a DWARF input and writes the `lines` section of a symbol index
// (docs/formats.md, "Lines"; read back by line_table.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/dwarf/input.h"

namespace firewatch::symbolizer {

// Where names go: dense ids in order of first use, 0 is "". The face of the builder of the index's
// name table, so that the DWARF reader does not know how names are kept. Called by one thread at a
// time (not always the same), in an order that does not depend on the number of threads.
class NameInterner {
 public:
  virtual ~NameInterner() = default;
  // `name` points into a section of the input: it outlives the interner, no copy is needed.
  virtual uint32_t Intern(std::string_view name) = 0;
  // `name` is gone after the call (joined paths).
  virtual uint32_t InternCopy(std::string_view name) = 0;
};

struct LineBuildOptions {
  int threads = 1;
  uint64_t max_rows = 400'000'000;  // more is ResourceExhausted
};

struct LineBuildStats {
  uint64_t units = 0;
  uint64_t units_bad = 0;          // header or entries that cannot be read; the rest is used
  uint64_t units_without_dwo = 0;  // skeletons whose split unit cannot be had
  uint64_t functions = 0;          // concrete functions with code
  uint64_t inlined = 0;            // inlined calls with code
  uint64_t ranges_dropped = 0;     // tombstones and code outside the executable segments
  uint64_t sequences_dropped = 0;  // the same, of line programs
  uint64_t line_programs_bad = 0;
  uint64_t names_missing = 0;  // functions whose name is in a file that was not given, or nowhere
  uint64_t rows = 0;
  uint64_t overlaps = 0;  // rows that two units claim
};

// Fails with DataLoss when nothing at all can be read, NotFound when the input has no .debug_info,
// and ResourceExhausted at a limit. A damaged unit is skipped and counted. The bytes of the section
// and the order of names are the same for any number of threads.
absl::StatusOr<LineBuildStats> BuildLines(const DwarfInput& input, const LineBuildOptions& options,
                                          NameInterner& names, std::vector<std::byte>* section);

}  // namespace firewatch::symbolizer
