// SPDX-License-Identifier: Apache-2.0
// LEB128 varints, as protobuf, our label encoding and the flame tree columns use them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace firewatch::profile {

inline constexpr size_t kMaxVarintBytes = 10;

// Writes at `out`, which has room for kMaxVarintBytes; returns the end.
inline char* PutVarint(char* out, uint64_t value) {
  while (value >= 0x80) {
    *out++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *out++ = static_cast<char>(value);
  return out;
}

inline void AppendVarint(std::string& out, uint64_t value) {
  char buffer[kMaxVarintBytes];
  out.append(buffer, static_cast<size_t>(PutVarint(buffer, value) - buffer));
}

inline constexpr uint64_t ZigZag(int64_t value) {
  return (static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63);
}

// Takes a varint off the front of `bytes`. False, with `bytes` in an unspecified state, when it is
// truncated or longer than ten bytes. Bits past the 64th are dropped, as protobuf does.
inline bool TakeVarint(std::string_view& bytes, uint64_t& value) {
  const char* cursor = bytes.data();
  const size_t limit = bytes.size() < kMaxVarintBytes ? bytes.size() : kMaxVarintBytes;
  uint64_t result = 0;
  for (size_t i = 0; i < limit; ++i) {
    const auto byte = static_cast<unsigned char>(cursor[i]);
    result |= static_cast<uint64_t>(byte & 0x7F) << (7 * i);
    if (byte < 0x80) {
      value = result;
      bytes.remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

}  // namespace firewatch::profile
