// SPDX-License-Identifier: Apache-2.0
// Reads little-endian fields and LEB128 numbers from foreign bytes. Never leaves them: a read that
// would gives 0 and makes the cursor fail for good, so callers ask once, at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace firewatch::symbolizer {

class ByteCursor {
 public:
  explicit ByteCursor(std::span<const std::byte> bytes)
      : at_(bytes.data()), begin_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  bool ok() const { return ok_; }
  size_t position() const { return static_cast<size_t>(at_ - begin_); }
  size_t left() const { return static_cast<size_t>(end_ - at_); }
  bool at_end() const { return at_ == end_; }
  std::span<const std::byte> rest() const { return {at_, left()}; }

  template <typename T>
  T Fixed() {
    T value{};
    if (left() < sizeof(T)) {
      Fail();
    } else {
      std::memcpy(&value, at_, sizeof(T));
      at_ += sizeof(T);
    }
    return value;
  }
  uint8_t Byte() {
    if (at_ == end_) {
      Fail();
      return 0;
    }
    return static_cast<uint8_t>(*at_++);
  }
  // At most 10 bytes, as many as 64 bits need; bits beyond the 64th are dropped.
  uint64_t Uleb() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      const uint8_t byte = Byte();
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    Fail();
    return 0;
  }
  int64_t Sleb() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      const uint8_t byte = Byte();
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) != 0) continue;
      if (shift + 7 < 64 && (byte & 0x40) != 0) value |= ~uint64_t{0} << (shift + 7);
      return static_cast<int64_t>(value);
    }
    Fail();
    return 0;
  }
  // The next `size` bytes, which are skipped; empty when there are fewer.
  std::span<const std::byte> Take(uint64_t size) {
    if (size > left()) {
      Fail();
      return {};
    }
    const std::span<const std::byte> taken(at_, static_cast<size_t>(size));
    at_ += size;
    return taken;
  }
  void Skip(uint64_t size) { Take(size); }

 private:
  void Fail() {
    ok_ = false;
    at_ = end_;
  }
  const std::byte* at_;
  const std::byte* begin_;
  const std::byte* end_;
  bool ok_ = true;
};

}  // namespace firewatch::symbolizer
