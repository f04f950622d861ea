// SPDX-License-Identifier: Apache-2.0
// Protobuf's wire format, read and written without message objects: a profile of a megabyte has
// 15,000 small messages, and making an object of each costs more than everything else.
// Facts: field = varint(number << 3 | type), type 0 varint, 1 64 bit, 2 length + bytes, 5 32 bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "profile/varint.h"

namespace firewatch::profile {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct WireField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;      // of a varint
  std::string_view bytes;  // of a kBytes field: points into the input
};

// Walks the fields of one message. Never reads outside `bytes`, never allocates.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : rest_(bytes) {}

  // False at the end and at the first damage; ok() tells them apart. Groups (types 3 and 4) count
  // as damage: no profile has them.
  bool Next(WireField& field) {
    if (rest_.empty()) return false;
    uint64_t tag = 0;
    if (!TakeVarint(rest_, tag) || tag >> 3 == 0 || tag >> 3 > kMaxFieldNumber) return Fail();
    field.number = static_cast<uint32_t>(tag >> 3);
    field.type = static_cast<WireType>(tag & 7);
    switch (field.type) {
      case WireType::kVarint:
        return TakeVarint(rest_, field.value) || Fail();
      case WireType::kFixed64:
        return Skip(8);
      case WireType::kFixed32:
        return Skip(4);
      case WireType::kBytes: {
        uint64_t size = 0;
        if (!TakeVarint(rest_, size) || size > rest_.size()) return Fail();
        field.bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return true;
      }
    }
    return Fail();
  }
  bool ok() const { return ok_; }

 private:
  static constexpr uint64_t kMaxFieldNumber = (uint64_t{1} << 29) - 1;

  bool Fail() {
    ok_ = false;
    rest_ = {};
    return false;
  }
  bool Skip(size_t size) {
    if (size > rest_.size()) return Fail();
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
  bool ok_ = true;
};

// Appends fields to a buffer. Scalars that are zero are left out, as proto3 does.
class WireWriter {
 public:
  void Scalar(uint32_t number, uint64_t value) {
    if (value == 0) return;
    char* cursor = Reserve(2 * kMaxVarintBytes);
    cursor = PutVarint(cursor, uint64_t{number} << 3);
    Commit(PutVarint(cursor, value));
  }
  void Scalar(uint32_t number, int64_t value) { Scalar(number, static_cast<uint64_t>(value)); }

  void Bytes(uint32_t number, std::string_view bytes) {
    char* cursor = Reserve(2 * kMaxVarintBytes + bytes.size());
    cursor = PutVarint(cursor, uint64_t{number} << 3 | static_cast<uint8_t>(WireType::kBytes));
    cursor = PutVarint(cursor, bytes.size());
    if (!bytes.empty()) std::memcpy(cursor, bytes.data(), bytes.size());
    Commit(cursor + bytes.size());
  }

  // One packed field; `to_wire` makes a uint64_t of an element. Nothing when there is none.
  template <typename Range, typename ToWire>
  void Packed(uint32_t number, const Range& elements, const ToWire& to_wire) {
    if (std::empty(elements)) return;
    const size_t start = Begin(number);
    char* cursor = Reserve(std::size(elements) * kMaxVarintBytes);
    for (const auto& element : elements) cursor = PutVarint(cursor, to_wire(element));
    Commit(cursor);
    End(start);
  }

  // Begin and End around the fields of a nested message. Most are shorter than 128 bytes, so one
  // byte is left for the length and longer ones are moved: cheaper than sizing everything twice.
  size_t Begin(uint32_t number) {
    char* cursor = Reserve(kMaxVarintBytes + 1);
    cursor = PutVarint(cursor, uint64_t{number} << 3 | static_cast<uint8_t>(WireType::kBytes));
    Commit(cursor + 1);
    return used_;
  }
  void End(size_t start) {
    const size_t size = used_ - start;
    char length[kMaxVarintBytes];
    const auto length_bytes = static_cast<size_t>(PutVarint(length, size) - length);
    if (length_bytes > 1) {
      Reserve(length_bytes - 1);
      std::memmove(buffer_.data() + start + length_bytes - 1, buffer_.data() + start, size);
      used_ += length_bytes - 1;
    }
    std::memcpy(buffer_.data() + start - 1, length, length_bytes);
  }

  std::string Take() {
    buffer_.resize(used_);
    used_ = 0;
    return std::move(buffer_);
  }

 private:
  char* Reserve(size_t bytes) {
    if (buffer_.size() - used_ < bytes) buffer_.resize(2 * buffer_.size() + bytes + 4096);
    return buffer_.data() + used_;
  }
  void Commit(const char* end) { used_ = static_cast<size_t>(end - buffer_.data()); }

  std::string buffer_;
  size_t used_ = 0;
};

}  // namespace firewatch::profile
