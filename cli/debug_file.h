// SPDX-License-Identifier: Apache-2.0
// What a file has to offer to a server that is to name frames. Its bytes as they are sent:
// symbolizer/debug_copy.h.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "symbolizer/debug_copy.h"
#include "symbolizer/file_identity.h"

namespace firewatch::cli {

struct DebugFile {
  std::string path;
  base::UniqueFd fd;
  symbolizer::BuildId id;
  bool has_code = false;     // false: what `objcopy --only-keep-debug` leaves
  bool has_symbols = false;  // .symtab
  bool has_dynamic_symbols = false;
  bool has_lines = false;  // .debug_info
  std::string debuglink;   // name in .gnu_debuglink; "" none
  std::string altlink;     // path in .gnu_debugaltlink, of the common file of dwz; "" none
  symbolizer::BuildId altlink_id;
  bool is_common = false;  // such a file itself
  uint64_t bytes = 0;
  symbolizer::BlankRanges blank;  // what is sent as zeros
};

// Errors: it cannot be opened, is no x86-64 ELF file, or has no build id (FailedPrecondition).
absl::StatusOr<DebugFile> OpenDebugFileAt(const std::string& path);
absl::StatusOr<DebugFile> InspectDebugFile(std::string path, base::UniqueFd fd);

// Its separate debug file on this machine, of the same build. NotFound names what was tried.
absl::StatusOr<DebugFile> FindSeparateDebugFile(const DebugFile& file);
// The common file of dwz that `file` refers to, on this machine; NotFound likewise.
absl::StatusOr<DebugFile> FindCommonFile(const DebugFile& file);

}  // namespace firewatch::cli
