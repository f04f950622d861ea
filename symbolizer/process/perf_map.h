// SPDX-License-Identifier: Apache-2.0
// /tmp/perf-PID.map, by which JITs name their code: one line "START SIZE name" per function, both
// numbers hexadecimal (Documentation/jit-interface.txt of linux/tools/perf). Appended to while the
// process runs; a later line wins.
//
// Written by a stranger, read in this process: a parser of lines that allocates nothing per line
// and knows neither recursion nor references.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/process/code_map.h"

namespace firewatch::symbolizer {

struct PerfMapLine {
  uint64_t start = 0;
  uint64_t size = 0;
  std::string_view name;
};

// Without its line break. False when it has not the shape. "0x" before a number is allowed, as some
// runtimes write it.
bool ParsePerfMapLine(std::string_view line, PerfMapLine* parsed);

// One thread. The file is handed in for each call, since a source knows the size of its time.
class PerfMap {
 public:
  explicit PerfMap(size_t max_ranges) : ranges_(max_ranges) {}

  // Reads what was appended since the last call, at most kMaxBytesPerUpdate of it; a last line
  // without its break is left for the next call. A file that has shrunk, or begins otherwise than
  // it did, is another one: it is read from its beginning. An error of reading leaves what is
  // known.
  absl::Status Update(const ByteSource& file);

  // False when no line covers the address. Reads the name from the file.
  bool Find(const ByteSource& file, uint64_t address, std::string* name) const;

  uint64_t lines() const { return lines_; }
  uint64_t malformed() const { return malformed_; }  // lines without the shape
  uint64_t dropped() const { return dropped_; }      // lines beyond max_ranges or the file's limit
  size_t ranges() const { return ranges_.size(); }

  static constexpr uint64_t kMaxBytesPerUpdate = uint64_t{16} << 20;
  static constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;
  static constexpr size_t kMaxNameBytes = 1024;  // longer ones are cut

 private:
  absl::Status CheckBeginning(const ByteSource& file);
  void TakeLine(std::string_view line, uint64_t offset);

  CodeMap ranges_;
  uint64_t read_ = 0;      // all lines before are known
  bool skipping_ = false;  // inside a line that is longer than the buffer
  std::string beginning_;
  uint64_t lines_ = 0;
  uint64_t malformed_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace firewatch::symbolizer
