// SPDX-License-Identifier: Apache-2.0
// What the processor cannot guess: which memory will be read soon.
#pragma once

#include <cstddef>
#include <cstdint>

namespace firewatch::symbolizer {

// Asks for the memory at `ahead_bytes` behind `start`. Nothing is read: any address will do.
inline void ExpectRead(const void* start, size_t ahead_bytes = 0) {
  __builtin_prefetch(
      reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(start) + ahead_bytes));
}

}  // namespace firewatch::symbolizer
