// SPDX-License-Identifier: Apache-2.0
// Reads little-endian fields, LEB128 numbers and strings from foreign bytes. Never leaves them: a
// read that would gives 0 and makes the cursor fail for good, so callers ask once, at the end.
// Entries of DWARF are skipped by the ten million: short numbers and fixed sizes cost one
// comparison.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "symbolizer/expect.h"

namespace firewatch::symbolizer {

class ByteCursor {
 public:
  explicit ByteCursor(std::span<const std::byte> bytes, uint64_t offset = 0)
      : begin_(reinterpret_cast<const uint8_t*>(bytes.data())),
        at_(begin_),
        end_(begin_ + bytes.size()) {
    if (offset > bytes.size()) {
      Fail();
    } else {
      at_ += offset;
    }
  }

  bool ok() const { return ok_; }
  bool at_end() const { return at_ == end_; }
  uint64_t position() const { return static_cast<uint64_t>(at_ - begin_); }
  uint64_t left() const { return static_cast<uint64_t>(end_ - at_); }
  std::span<const std::byte> rest() const {
    return {reinterpret_cast<const std::byte*>(at_), left()};
  }
  // Moves the end nearer; beyond the present end it stays.
  void LimitTo(uint64_t end_offset) {
    if (end_offset < static_cast<uint64_t>(end_ - begin_)) end_ = begin_ + end_offset;
    if (at_ > end_) Fail();
  }
  void JumpTo(uint64_t offset) {
    if (offset > static_cast<uint64_t>(end_ - begin_)) {
      Fail();
    } else {
      at_ = begin_ + offset;
    }
  }
  // The bytes so far ahead will be read soon: asks for their memory, if there is any.
  void Expect(size_t ahead_bytes) const { ExpectRead(at_, ahead_bytes); }

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
  uint8_t U8() { return Fixed<uint8_t>(); }
  uint16_t U16() { return Fixed<uint16_t>(); }
  uint32_t U32() { return Fixed<uint32_t>(); }
  uint64_t U64() { return Fixed<uint64_t>(); }
  uint32_t U24() {
    if (left() < 3) {
      Fail();
      return 0;
    }
    const uint32_t value = static_cast<uint32_t>(at_[0] | at_[1] << 8 | at_[2] << 16);
    at_ += 3;
    return value;
  }
  // A number of 1, 2, 4 or 8 bytes; any other size fails.
  uint64_t Sized(unsigned size) {
    switch (size) {
      case 1:
        return U8();
      case 2:
        return U16();
      case 4:
        return U32();
      case 8:
        return U64();
      default:
        Fail();
        return 0;
    }
  }

  // At most 10 bytes, as many as 64 bits need; bits beyond the 64th are dropped.
  uint64_t Uleb() {
    if (at_ < end_ && *at_ < 0x80) return *at_++;
    return LongUleb();
  }
  // Two numbers of one byte each, where that is the rule. Otherwise false, and nothing is read.
  bool ShortUlebs(uint64_t* first, uint64_t* second) {
    if (left() < 2 || ((at_[0] | at_[1]) & 0x80) != 0) return false;
    *first = at_[0];
    *second = at_[1];
    at_ += 2;
    return true;
  }
  int64_t Sleb() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      if (at_ == end_) break;
      const uint8_t byte = *at_++;
      value |= static_cast<uint64_t>(byte & 0x7f) << (shift > 63 ? 63 : shift);
      if ((byte & 0x80) != 0) continue;
      if (shift + 7 < 64 && (byte & 0x40) != 0) value |= ~uint64_t{0} << (shift + 7);
      return static_cast<int64_t>(value);
    }
    Fail();
    return 0;
  }
  void SkipLeb() {
    while (at_ < end_) {
      if (*at_++ < 0x80) return;
    }
    Fail();
  }
  void Skip(uint64_t size) {
    if (left() < size) {
      Fail();
    } else {
      at_ += size;
    }
  }
  // The next `size` bytes, which are skipped; empty when there are fewer.
  std::span<const std::byte> Take(uint64_t size) {
    if (left() < size) {
      Fail();
      return {};
    }
    const std::span<const std::byte> taken = rest().first(size);
    at_ += size;
    return taken;
  }
  // Up to the NUL, which is skipped.
  std::string_view String() {
    const void* nul = at_ == end_ ? nullptr : std::memchr(at_, 0, left());
    if (nul == nullptr) {
      Fail();
      return {};
    }
    const auto* start = reinterpret_cast<const char*>(at_);
    const auto size = static_cast<size_t>(static_cast<const uint8_t*>(nul) - at_);
    at_ += size + 1;
    return {start, size};
  }
  void Fail() {
    ok_ = false;
    at_ = end_;
  }

 private:
  uint64_t LongUleb() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      if (at_ == end_) break;
      const uint8_t byte = *at_++;
      if (shift < 63) {
        value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      } else if (shift == 63) {
        value |= static_cast<uint64_t>(byte & 1) << 63;
      }
      if ((byte & 0x80) == 0) return value;
    }
    Fail();
    return 0;
  }

  const uint8_t* begin_;
  const uint8_t* at_;
  const uint8_t* end_;
  bool ok_ = true;
};

// The string that starts at `offset`; empty when there is none. Valid as long as the section.
inline std::string_view StringAt(std::span<const std::byte> section, uint64_t offset) {
  ByteCursor cursor(section, offset);
  return cursor.String();
}

}  // namespace firewatch::symbolizer
