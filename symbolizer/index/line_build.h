// SPDX-License-Identifier: Apache-2.0
// Reads all units of a DWARF input, several at a time, and writes the `lines` section of a symbol
// index (line_table_writer.h; read back by line_table.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "symbolizer/dwarf/input.h"
#include "symbolizer/dwarf/unit_lines.h"
#include "symbolizer/index/name_interner.h"
#include "symbolizer/index/put_aside.h"
#include "symbolizer/index/section_sink.h"

namespace firewatch::symbolizer {

struct LineBuildOptions {
  int threads = 1;
  // Rows as they are stored; more is ResourceExhausted. Also limited by the size of the input, of
  // which no true one has as many rows as bytes.
  uint64_t max_rows = 100'000'000;
  PutAside put_aside = nullptr;  // for what waits until all units are read; else in memory
};

struct LineBuildStats : dwarf::UnitCounts {
  uint64_t dwarf_bytes = 0;  // of all sections of all files that were given at once
  uint64_t rows = 0;
  uint64_t overlaps = 0;  // rows of code that two units claim
};

// Fails with NotFound when the input has no .debug_info, DataLoss when not one of its units can be
// read, ResourceExhausted at a limit. A damaged unit is skipped and counted. The bytes of the
// section and the order of names are the same for any number of threads. The section goes into the
// sink piece by piece while units are read, so that it is not in memory as a whole; on failure what
// went there is worthless.
//
// In two steps, so that whoever asks is free for something else meanwhile: all threads but one read
// units from the constructor on, as many as may wait for their names. Finish, called once, takes
// part; its errors are those above. The destructor waits for the threads.
class LineBuild {
 public:
  // `input` must outlive it.
  LineBuild(const DwarfInput& input, const LineBuildOptions& options);
  ~LineBuild();
  LineBuild(const LineBuild&) = delete;
  LineBuild& operator=(const LineBuild&) = delete;

  // `names_done` is called once, when all units are read and no more names will be asked for: what
  // remains is the end of the section, by the calling thread alone.
  absl::StatusOr<LineBuildStats> Finish(
      NameInterner& names, SectionSink& section, const std::function<void()>& names_done = [] {});

 private:
  class Reading;
  const DwarfInput& input_;
  const LineBuildOptions options_;
  std::unique_ptr<Reading> reading_;  // nullptr: there is nothing to read
};

absl::StatusOr<LineBuildStats> BuildLines(const DwarfInput& input, const LineBuildOptions& options,
                                          NameInterner& names, SectionSink& section);

}  // namespace firewatch::symbolizer
