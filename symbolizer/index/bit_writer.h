// SPDX-License-Identifier: Apache-2.0
// Packs numbers of a few bits one behind the other, least significant bit first; LoadBits
// (line_table_format.h) reads them back.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace firewatch::symbolizer {

class BitWriter {
 public:
  // Appends to `bytes`, which must outlive it and is as long as what was written after Align alone.
  explicit BitWriter(std::vector<std::byte>* bytes) : bytes_(bytes), end_(bytes->size()) {}
  BitWriter(const BitWriter&) = delete;
  BitWriter& operator=(const BitWriter&) = delete;
  ~BitWriter() { Align(); }

  // `value` has no more than `bits` bits, at most 32.
  void Put(uint32_t value, unsigned bits) {
    word_ |= uint64_t{value} << used_;
    used_ += bits;
    if (used_ < 32) return;
    Append(4);
    word_ >>= 32;
    used_ -= 32;
  }
  // To the next whole byte.
  void Align() {
    if (used_ > 0) Append((used_ + 7) / 8);
    bytes_->resize(end_);
    word_ = 0;
    used_ = 0;
  }

 private:
  // Room is made for some numbers at once: those of a cell are 10 to 30 bytes.
  static constexpr size_t kRoom = 64;

  // At most 4 bytes; behind them may be any.
  void Append(size_t size) {
    if (bytes_->size() - end_ < sizeof(uint32_t)) bytes_->resize(end_ + kRoom);
    std::memcpy(bytes_->data() + end_, &word_, sizeof(uint32_t));
    end_ += size;
  }

  std::vector<std::byte>* bytes_;
  size_t end_;  // of what was written
  uint64_t word_ = 0;
  unsigned used_ = 0;  // bits of word_; less than 32 between calls
};

// Bits that every number up to `largest` fits in.
inline uint8_t BitsFor(uint64_t largest) { return static_cast<uint8_t>(std::bit_width(largest)); }

}  // namespace firewatch::symbolizer
