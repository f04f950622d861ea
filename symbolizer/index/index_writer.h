// SPDX-License-Identifier: Apache-2.0
// Writes a symbol index. Runs in the sandboxed helper for ELF files and in the agent for the
// kernel's own list. Equal input gives equal bytes.
//
// Names are demangled here, once per distinct range, and not at lookup: a demangler is a parser of
// strangers' bytes that recurses and whose output can explode (both have crashed programs), so it
// belongs behind the sandbox. A lookup then allocates nothing at all, and no name occupies memory
// of the agent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/index/flatten.h"

namespace firewatch::symbolizer {

struct IndexSource {
  BuildId id;
  bool pseudo_id = false;
  bool has_table = true;
  uint64_t file_bytes = 0;
  std::vector<InputSymbol> symbols;        // sorted by the writer
  std::vector<std::string> groups = {""};  // InputSymbol::group counts in these
};

// Writes from offset 0 of `fd` (seekable, empty). Returns the number of ranges. The caller
// publishes the file by rename; until the header is written (last) it is not an index.
absl::StatusOr<uint64_t> WriteSymbolIndex(IndexSource& source, int fd);

}  // namespace firewatch::symbolizer
