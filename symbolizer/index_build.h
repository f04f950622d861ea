// SPDX-License-Identifier: Apache-2.0
// From opened files to a whole symbol index. Runs in the sandboxed helper, in `firewatch symbolize`
// and in tests; never in the agent or the server.
//
// 1. Symbols: .symtab and .dynsym of the file that runs, .symtab of its .gnu_debugdata and of its
//    debug file, Go's own table. Nothing else is read: that takes milliseconds for any size.
// 2. Lines, when asked for: DWARF by dwarf/, from the debug file or the file itself.
// 3. Names, symbols and lines are written by index/.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/object_files.h"

namespace firewatch::symbolizer {

struct IndexBuildOptions {
  bool lines = false;
  // Of reading DWARF and of demangling. The bytes are the same for any number. The sandbox allows
  // one.
  int threads = 1;
};

struct IndexBuildReport {
  uint64_t symbols = 0;  // ranges with a name
  uint64_t index_bytes = 0;
  LinesState lines = LinesState::kNotTried;
  std::string lines_reason;  // "" or why there are none, or only some
  uint64_t dwarf_bytes = 0;  // of the sections that were read, inflated
  uint64_t functions = 0;    // of the lines
  uint64_t rows = 0;
  uint64_t units_bad = 0;  // units that could not be read
  uint64_t units_without_dwo = 0;
};

// For programs that build indexes; once, before the first thread. Large blocks go back to the
// system when they are freed, always: by itself glibc raises the size from which it maps blocks to
// that of the largest one ever freed, and keeps the holes of vectors that grew (ceph-mon: 12.9 MB
// instead of 8.7 for an index of 8.7 MB, in the same CPU time).
void ReturnLargeBlocks();

// Writes from offset 0 of `out_fd` (seekable, empty). An index without lines is no error: the
// report (and the index) says why. Errors: as ElfReader's when symbols cannot be read; Internal
// when `out_fd` cannot be written.
absl::StatusOr<IndexBuildReport> BuildIndex(ObjectFiles& files, const IndexBuildOptions& options,
                                            int out_fd);

}  // namespace firewatch::symbolizer
