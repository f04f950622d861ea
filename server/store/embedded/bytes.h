// SPDX-License-Identifier: Apache-2.0
// Varints, strings and big-endian integers: the alphabet of the store's keys and values. The reader
// never runs past the end; its failure is sticky, so a decoder checks once at its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/hash.h"

namespace firewatch::server {

inline void PutVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

// Small negative numbers stay short.
inline void PutSigned(std::string& out, int64_t value) {
  PutVarint(out, (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}

inline void PutString(std::string& out, std::string_view text) {
  PutVarint(out, text.size());
  out.append(text);
}

// Big-endian: keys sort as numbers do.
template <typename Unsigned>
inline void PutBigEndian(std::string& out, Unsigned value) {
  for (size_t i = sizeof(Unsigned); i-- > 0;) out.push_back(static_cast<char>(value >> (8 * i)));
}

inline void PutHash(std::string& out, const base::Hash128& hash) {
  PutBigEndian(out, hash.high);
  PutBigEndian(out, hash.low);
}

// Reads what the Put functions wrote. `bytes` must outlive the reader and the views it returns.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

  uint64_t Varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (position_ >= bytes_.size()) break;
      const auto byte = static_cast<uint8_t>(bytes_[position_++]);
      if (shift == 63 && byte > 1) break;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return Fail();
  }
  uint32_t Varint32() {
    const uint64_t value = Varint();
    return value <= UINT32_MAX ? static_cast<uint32_t>(value) : static_cast<uint32_t>(Fail());
  }
  int64_t Signed() {
    const uint64_t value = Varint();
    return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1));
  }
  std::string_view Bytes(uint64_t count) {
    if (count > bytes_.size() - position_) {
      Fail();
      return {};
    }
    const std::string_view result = bytes_.substr(position_, count);
    position_ += count;
    return result;
  }
  std::string_view String() { return Bytes(Varint()); }
  template <typename Unsigned>
  Unsigned BigEndian() {
    Unsigned value = 0;
    for (const char c : Bytes(sizeof(Unsigned))) {
      value = static_cast<Unsigned>((static_cast<uint64_t>(value) << 8) | static_cast<uint8_t>(c));
    }
    return value;
  }
  base::Hash128 Hash() {
    const auto high = BigEndian<uint64_t>();
    const auto low = BigEndian<uint64_t>();
    return {.high = high, .low = low};
  }
  // How many rows of at least `row_bytes` may still follow: bounds what a count may allocate.
  bool CanHold(uint64_t rows, size_t row_bytes) const { return rows <= remaining() / row_bytes; }

  size_t remaining() const { return bytes_.size() - position_; }
  bool failed() const { return failed_; }
  // Everything was read and nothing failed.
  bool Complete() const { return !failed_ && remaining() == 0; }

 private:
  uint64_t Fail() {
    failed_ = true;
    position_ = bytes_.size();
    return 0;
  }

  std::string_view bytes_;
  size_t position_ = 0;
  bool failed_ = false;
};

}  // namespace firewatch::server
