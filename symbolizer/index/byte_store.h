// SPDX-License-Identifier: Apache-2.0
// Bytes that are kept until the end of a build, in large blocks: between the vectors of the units
// that are read they would hold on to what those leave behind.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

namespace firewatch::symbolizer {

// One thread at a time.
class ByteStore {
 public:
  // A copy of `bytes`, as long as the store lives.
  std::span<const uint8_t> Add(std::span<const uint8_t> bytes) {
    if (bytes.empty()) return {};
    if (bytes.size() > left_) {
      left_ = std::max(kBlockBytes, bytes.size());
      blocks_.push_back(std::make_unique_for_overwrite<uint8_t[]>(left_));
      next_ = blocks_.back().get();
    }
    std::memcpy(next_, bytes.data(), bytes.size());
    const std::span<const uint8_t> copy(next_, bytes.size());
    next_ += bytes.size();
    left_ -= bytes.size();
    return copy;
  }

 private:
  // Is mapped by itself (ReturnLargeBlocks), and memory only as far as it is used.
  static constexpr size_t kBlockBytes = size_t{256} << 10;

  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace firewatch::symbolizer
