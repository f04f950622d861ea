// SPDX-License-Identifier: Apache-2.0
// What leaves a machine of an ELF file that another machine is to name frames with: all of it, but
// with zeros for the sections that names are not made of (code, read-only data, data). Headers,
// symbols, relocations and debug sections stay where they are, so that an index of the copy is the
// index of the file; the zeros cost nothing once compressed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/elf/elf_reader.h"

namespace firewatch::symbolizer {

// [begin, end) in the file; ascending. They may overlap or reach past the file's end where a
// stranger's headers do.
using BlankRanges = std::vector<std::pair<uint64_t, uint64_t>>;

// Empty for Go programs: their own tables of functions point into .rodata and .data.
BlankRanges BlankRangesOf(const ElfReader& elf);

// Writes the copy from offset 0 of `output_fd` (seekable, empty); what is blank stays a hole.
// Returns its size, which is the file's. Unavailable when the file cannot be read, Internal when
// the output cannot be written.
absl::StatusOr<uint64_t> WriteDebugCopy(const ElfReader& elf, int output_fd);

// A file as one zstd frame, blank where told; parses nothing. One thread; `fd` must stay open.
class CompressedFile {
 public:
  CompressedFile(int fd, BlankRanges blank);
  ~CompressedFile();
  // Fills up to `capacity` bytes and returns how many; 0: that was all.
  absl::StatusOr<size_t> Read(char* buffer, size_t capacity);
  uint64_t sent_bytes() const { return sent_bytes_; }

 private:
  struct Compressor;
  absl::Status Fill();

  const int fd_;
  const BlankRanges blank_;
  const std::unique_ptr<Compressor> compressor_;
  std::vector<char> piece_;
  size_t piece_bytes_ = 0;
  size_t piece_at_ = 0;
  uint64_t file_at_ = 0;
  bool ended_ = false;
  uint64_t sent_bytes_ = 0;
};

}  // namespace firewatch::symbolizer
