// SPDX-License-Identifier: Apache-2.0
// Packs numbers of a few bits one behind the other, least significant bit first; LoadBits
// (line_table_format.h) reads them back.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace firewatch::symbolizer {

class BitWriter {
 public:
  // Appends to `bytes`, which must outlive it.
  explicit BitWriter(std::vector<std::byte>* bytes) : bytes_(bytes) {}
  BitWriter(const BitWriter&) = delete;
  BitWriter& operator=(const BitWriter&) = delete;
  ~BitWriter() { Align(); }

  // `value` has no more than `bits` bits, at most 32.
  void Put(uint32_t value, unsigned bits) {
    word_ |= uint64_t{value} << used_;
    used_ += bits;
    while (used_ >= 8) {
      bytes_->push_back(static_cast<std::byte>(word_ & 0xff));
      word_ >>= 8;
      used_ -= 8;
    }
  }
  // To the next whole byte.
  void Align() {
    if (used_ > 0) bytes_->push_back(static_cast<std::byte>(word_));
    word_ = 0;
    used_ = 0;
  }

 private:
  std::vector<std::byte>* bytes_;
  uint64_t word_ = 0;
  unsigned used_ = 0;
};

// Bits that every number up to `largest` fits in.
inline uint8_t BitsFor(uint64_t largest) { return static_cast<uint8_t>(std::bit_width(largest)); }

}  // namespace firewatch::symbolizer
