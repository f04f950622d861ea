// SPDX-License-Identifier: Apache-2.0
// Memory of a stopped process, by the page: a walk of its stack reads many words of few pages.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"

namespace firewatch::agent {

// One thread. Holds at most kMaxPages pages; nothing of them is ever shown to anybody.
class RemoteMemory {
 public:
  explicit RemoteMemory(pid_t pid) : pid_(pid) {}

  // False when any of the bytes cannot be read.
  bool Read(void* to, size_t size, uint64_t address);

  // The process has run since: what is cached is old.
  void Forget() { pages_.clear(); }

  pid_t pid() const { return pid_; }

 private:
  static constexpr size_t kPageBytes = 4096;
  static constexpr size_t kMaxPages = 4096;
  struct Page {
    bool readable = false;
    std::array<std::byte, kPageBytes> bytes;
  };

  const Page& Fetch(uint64_t page);

  const pid_t pid_;
  absl::flat_hash_map<uint64_t, Page> pages_;  // by address / kPageBytes
};

}  // namespace firewatch::agent
