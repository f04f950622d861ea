// SPDX-License-Identifier: Apache-2.0
// What a file has to offer to a server that is to name frames, and its bytes as they are sent:
// compressed, with zeros for the sections that names are not made of (code, read-only data), which
// neither cost anything then nor leave the machine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
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
  uint64_t bytes = 0;
  // [begin, end) of sections that are sent as zeros; ascending, apart.
  std::vector<std::pair<uint64_t, uint64_t>> blank;
};

// Errors: it cannot be opened, is no x86-64 ELF file, or has no build id (FailedPrecondition).
absl::StatusOr<DebugFile> OpenDebugFileAt(const std::string& path);
absl::StatusOr<DebugFile> InspectDebugFile(std::string path, base::UniqueFd fd);

// Its separate debug file on this machine, of the same build. NotFound names what was tried.
absl::StatusOr<DebugFile> FindSeparateDebugFile(const DebugFile& file);

// The bytes to send, as one zstd frame. One thread; `file` must outlive it.
class DebugFileReader {
 public:
  explicit DebugFileReader(const DebugFile& file);
  ~DebugFileReader();
  // For transport::HttpPut.
  absl::StatusOr<size_t> Read(char* buffer, size_t capacity);
  uint64_t sent_bytes() const { return sent_bytes_; }

 private:
  struct Compressor;
  absl::Status Fill();

  const DebugFile& file_;
  std::unique_ptr<Compressor> compressor_;
  std::vector<char> piece_;
  size_t piece_bytes_ = 0;
  size_t piece_at_ = 0;
  uint64_t file_at_ = 0;
  bool ended_ = false;
  uint64_t sent_bytes_ = 0;
};

}  // namespace firewatch::cli
