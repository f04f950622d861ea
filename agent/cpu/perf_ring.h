// SPDX-License-Identifier: Apache-2.0
// The kernel's perf ring of one event: whole records out of shared memory.
#pragma once

#include <linux/perf_event.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace firewatch::agent {

// One home thread. Unmapped by the destructor.
class PerfRing {
 public:
  // `data_bytes` is a power of two and a multiple of the page size. The event stays the caller's
  // and may be closed before or after.
  static absl::StatusOr<PerfRing> Map(int event_fd, size_t data_bytes);

  PerfRing(PerfRing&& other) noexcept;
  PerfRing& operator=(PerfRing&& other) noexcept;
  PerfRing(const PerfRing&) = delete;
  PerfRing& operator=(const PerfRing&) = delete;
  ~PerfRing();

  // The oldest record with its header; empty when there is none. Valid until Pop.
  std::span<const std::byte> Front();
  // Gives the space of the record that Front returned back to the kernel.
  void Pop();

 private:
  PerfRing(perf_event_mmap_page* page, size_t data_offset, size_t data_bytes)
      : page_(page), data_offset_(data_offset), data_bytes_(data_bytes) {}
  void Unmap();

  perf_event_mmap_page* page_ = nullptr;
  size_t data_offset_ = 0;
  size_t data_bytes_ = 0;
  size_t front_size_ = 0;
  std::vector<std::byte> wrapped_;  // a record that goes over the end, put together; 64 KiB at most
};

}  // namespace firewatch::agent
