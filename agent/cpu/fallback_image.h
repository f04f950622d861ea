// SPDX-License-Identifier: Apache-2.0
// A mapped ELF file as bytes at virtual addresses, for the unwinder of the fallback samplers: the
// segments, where the search table of .eh_frame is, and reads through a bounded cache of pread
// chunks. Bytes of strangers: nothing that the file says is believed before it is compared with
// limits, and a file that shrinks meanwhile is a failed read, never a signal.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// One home thread.
class FileImage {
 public:
  static constexpr size_t kChunkBytes = 4096;

  // InvalidArgument when it is no 64-bit x86-64 ELF file or its headers contradict themselves.
  static absl::StatusOr<std::shared_ptr<FileImage>> Open(base::UniqueFd fd);

  // The binary search table of .eh_frame_hdr, in virtual addresses of the file.
  struct SearchTable {
    uint64_t header = 0;  // what the entries are relative to
    uint64_t entries = 0;
    uint64_t count = 0;  // of 8 bytes each
  };
  // Nothing when the file has none, or one in an encoding that no linker writes.
  const std::optional<SearchTable>& search_table() const { return search_table_; }

  // Virtual address of the byte at `file_offset` of an executable mapping. Page rounding of the
  // loader is allowed for.
  std::optional<uint64_t> VaddrOfMapping(uint64_t file_offset) const;
  uint64_t low() const { return low_; }    // of all segments
  uint64_t high() const { return high_; }  // past the last one

  // Eight bytes at any address; zeros where a segment has memory but no file. False outside of all
  // segments, and when the file cannot be read.
  bool ReadWord(uint64_t vaddr, uint64_t* word);

  size_t chunk_count() const { return chunks_.size(); }
  void DropChunks();

 private:
  struct Segment {
    uint64_t file_offset = 0;
    uint64_t file_size = 0;
    uint64_t vaddr = 0;
    uint64_t memory_size = 0;
    bool executable = false;
  };
  using Chunk = std::array<std::byte, kChunkBytes>;

  explicit FileImage(base::UniqueFd fd) : fd_(std::move(fd)) {}
  absl::Status ReadHeaders();
  void ReadSearchTable(uint64_t header);
  const Segment* SegmentOf(uint64_t vaddr);
  const Chunk* ChunkAt(uint64_t number);

  base::UniqueFd fd_;
  uint64_t file_size_ = 0;
  std::vector<Segment> segments_;
  uint64_t low_ = 0;
  uint64_t high_ = 0;
  std::optional<SearchTable> search_table_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Chunk>> chunks_;
  const Segment* last_segment_ = nullptr;
  uint64_t last_number_ = ~uint64_t{0};
  const Chunk* last_chunk_ = nullptr;
};

}  // namespace firewatch::agent
