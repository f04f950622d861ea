// SPDX-License-Identifier: Apache-2.0
// Room for bytes that were inflated: an unlinked file (or a memfd), written block by block and
// mapped read-only. Not private memory: the kernel writes pages of a file on disk out when memory
// is short, and gigabytes of sections do not count against the helper's limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace firewatch::symbolizer {

// One home thread. Spans live as long as the object; any thread may read them.
class ScratchFile {
 public:
  // `fd`: O_RDWR, empty, nobody else writes; borrowed, must outlive the object. -1: a memfd, made
  // at the first block. `max_bytes`: of all blocks.
  ScratchFile(int fd, uint64_t max_bytes) : fd_(fd), max_bytes_(max_bytes) {}
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  // Opens a block that will have exactly `size` bytes. ResourceExhausted when they do not fit.
  absl::Status Begin(uint64_t size);
  // Appends. ResourceExhausted past the size of the block or of the disk.
  absl::Status Write(std::span<const std::byte> bytes);
  // Maps the block; DataLoss when it is not full.
  absl::StatusOr<std::span<const std::byte>> End();
  uint64_t used_bytes() const { return used_; }

 private:
  struct Mapping {
    void* start;
    size_t size;
  };
  int fd_;
  const uint64_t max_bytes_;
  base::UniqueFd own_fd_;
  uint64_t used_ = 0;  // blocks that are done, rounded to pages
  uint64_t size_ = 0;  // of the open block
  uint64_t filled_ = 0;
  std::vector<Mapping> mappings_;
};

}  // namespace firewatch::symbolizer
