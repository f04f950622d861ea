// SPDX-License-Identifier: Apache-2.0
// Room for vectors that grow during a whole build. A vector that starts small leaves what it
// outgrew behind, between blocks that stay, where memory is lost to the build; so these start with
// a block that is mapped by itself (ReturnLargeBlocks), of which only what is used is memory.
#pragma once

#include <cstddef>
#include <vector>

namespace firewatch::symbolizer {

inline constexpr size_t kRoomBytes = size_t{256} << 10;

template <typename T>
void ReserveRoom(std::vector<T>* vector) {
  vector->reserve(kRoomBytes / sizeof(T));
}

}  // namespace firewatch::symbolizer
