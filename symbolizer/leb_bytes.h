// SPDX-License-Identifier: Apache-2.0
// Bytes that grow by LEB128 numbers. Rows are written by the million, two numbers each: room is
// made for many at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace firewatch::symbolizer {

class LebBytes {
 public:
  LebBytes() = default;
  // The bytes, not the room.
  LebBytes(const LebBytes& other) { *this = other; }
  LebBytes& operator=(const LebBytes& other) {
    if (this == &other) return *this;
    room_.assign(other.room_.data(), other.room_.data() + other.size_);
    size_ = other.size_;
    return *this;
  }
  LebBytes(LebBytes&& other) noexcept { *this = std::move(other); }
  // What was here is in the other one afterwards.
  LebBytes& operator=(LebBytes&& other) noexcept {
    room_.swap(other.room_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~LebBytes() = default;

  void Put(uint64_t value) {
    if (room_.size() - size_ < kMostPerNumber) room_.resize(size_ + kRoom);
    uint8_t* at = room_.data() + size_;
    while (value >= 0x80) {
      *at++ = static_cast<uint8_t>(value | 0x80);
      value >>= 7;
    }
    *at++ = static_cast<uint8_t>(value);
    size_ = static_cast<size_t>(at - room_.data());
  }
  // Two numbers below 128.
  void PutShort(uint8_t first, uint8_t second) {
    if (room_.size() - size_ < kMostPerNumber) room_.resize(size_ + kRoom);
    uint8_t* const at = room_.data() + size_;
    at[0] = first;
    at[1] = second;
    size_ += 2;
  }
  // Keeps the memory.
  void Clear() { size_ = 0; }
  // `size` is at most size().
  void Truncate(size_t size) { size_ = size; }

  size_t size() const { return size_; }
  const uint8_t* data() const { return room_.data(); }
  std::span<const uint8_t> bytes() const { return std::span(room_).first(size_); }

 private:
  static constexpr size_t kMostPerNumber = 10;
  // A piece of a unit has hundreds of rows.
  static constexpr size_t kRoom = 1024;

  std::vector<uint8_t> room_;
  size_t size_ = 0;
};

}  // namespace firewatch::symbolizer
