// SPDX-License-Identifier: Apache-2.0
// The memory of this process, as the kernel counts it, and the bound on it.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace firewatch::agent {

// A field of /proc/self/status that is given in kB ("VmRSS"), in bytes; 0 when it cannot be read.
uint64_t StatusBytes(std::string_view field);

// RssAnon in bytes: heap and stacks; neither mapped files nor mapped BPF maps. 0 when it cannot be
// read.
uint64_t RssAnonBytes();

// The bound of heap (RssAnon) and charged BPF maps together. Unwind tables in the kernel are what
// can give way, so they get what the rest leaves:
//
//   limit = fixed maps | heap, as high as it was in this window or the last one
//         | reserved: what may still come onto the heap in one go | slack | tables
//
// The heap grows between two looks at it, by other threads too: the slack, a sixteenth of the limit
// and 1 MiB at least, is for that. Tables grow only up to the whole slack and give way when half of
// it is used up, so that they do not come and go with every page of the heap.
//
// One home thread.
class MemoryBudget {
 public:
  // Bytes that the kernel may charge for unwind tables.
  struct Room {
    uint64_t grow_to = 0;  // no new one beyond this
    uint64_t keep = 0;     // those that are there beyond this go
  };

  // `heap_bytes` is RssAnonBytes unless set, then a system call of some 3 us.
  explicit MemoryBudget(uint64_t limit_bytes, std::function<uint64_t()> heap_bytes = nullptr);

  // Maps that keep their size.
  void SetFixedBytes(uint64_t bytes) { fixed_bytes_ = bytes; }
  // What somebody is entitled to allocate at any time and has not allocated yet.
  void SetReservedBytes(uint64_t bytes) { reserved_bytes_ = bytes; }

  // The heap now; it counts for this window and the next. To be called where the heap is high.
  uint64_t Look();
  void EndWindow();

  Room ForTables();
  // Half of the slack is used up now, whatever the heap was before: time to give back what is free.
  bool IsTight(uint64_t table_bytes);

  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  static constexpr uint64_t kSlackShare = 16;
  static constexpr uint64_t kMinSlackBytes = uint64_t{1} << 20;

  const uint64_t limit_bytes_;
  const uint64_t slack_bytes_;
  std::function<uint64_t()> heap_bytes_;
  uint64_t fixed_bytes_ = 0;
  uint64_t reserved_bytes_ = 0;
  uint64_t peak_bytes_ = 0;       // of this window
  uint64_t last_peak_bytes_ = 0;  // of the one before
};

}  // namespace firewatch::agent
