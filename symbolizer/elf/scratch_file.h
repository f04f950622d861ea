// SPDX-License-Identifier: Apache-2.0
// Room for bytes that were inflated, and for what a build puts aside: an unlinked file (or a
// memfd), written block by block and mapped read-only. Not private memory: the kernel writes pages
// of a file on disk out when memory is short, and gigabytes of sections do not count against the
// helper's limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/unique_fd.h"

namespace firewatch::symbolizer {

// One home thread, but for Put. Spans live as long as the object; any thread may read them.
class ScratchFile {
 public:
  // `fd`: O_RDWR, empty, nobody else writes; borrowed, must outlive the object. -1: a memfd, made
  // at the first block. `max_bytes`: of all blocks.
  ScratchFile(int fd, uint64_t max_bytes) : fd_(fd), on_disk_(fd >= 0), max_bytes_(max_bytes) {}
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  // Opens a block that will have exactly `size` bytes. ResourceExhausted when they do not fit.
  absl::Status Begin(uint64_t size);
  // Appends. ResourceExhausted past the size of the block or of the disk.
  absl::Status Write(std::span<const std::byte> bytes);
  // Maps the block; DataLoss when it is not full.
  absl::StatusOr<std::span<const std::byte>> End();
  // Of the blocks that are done, rounded to pages; without what Put wrote.
  uint64_t used_bytes() const { return used_; }

  // A block at once. Any thread, also while another block is open. ResourceExhausted when the disk
  // is full or kMaxPutBytes are there.
  absl::StatusOr<std::span<const std::byte>> Put(std::span<const std::byte> bytes);
  // The sandbox lets no file grow to 4 GiB; 3 are for sections.
  static constexpr uint64_t kMaxPutBytes = uint64_t{768} << 20;
  // A file was given: what is put there does not stay in memory.
  bool on_disk() const { return on_disk_; }

 private:
  struct Mapping {
    void* start;
    size_t size;
  };
  // Where so many bytes may go, of which there are `*taken` and may be `max`.
  absl::StatusOr<uint64_t> Allocate(uint64_t size, uint64_t max, uint64_t* taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropOpenBlock();
  absl::StatusOr<std::span<const std::byte>> Map(uint64_t offset, uint64_t size);

  int fd_;
  const bool on_disk_;
  const uint64_t max_bytes_;
  base::UniqueFd own_fd_;
  uint64_t used_ = 0;
  uint64_t offset_ = 0;  // of the open block, like the next two
  uint64_t size_ = 0;
  uint64_t filled_ = 0;
  base::Mutex mutex_;
  uint64_t end_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t section_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t put_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Mapping> mappings_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::symbolizer
