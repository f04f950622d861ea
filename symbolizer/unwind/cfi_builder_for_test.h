// SPDX-License-Identifier: Apache-2.0
// Call frame information byte by byte, for tests: what assemblers never write can be written here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>

namespace firewatch::symbolizer {

using Bytes = std::basic_string<uint8_t>;

template <typename T>
Bytes Little(T value) {
  Bytes bytes(sizeof(value), 0);
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

// A section of .eh_frame (or .debug_frame) at kVaddr with absolute 8-byte pointers, unless the
// augmentation says otherwise.
class CfiBuilder {
 public:
  static constexpr uint64_t kVaddr = 0x100000;

  explicit CfiBuilder(bool debug_frame = false) : debug_frame_(debug_frame) {}

  // The instructions of x86-64 compilers: CFA = rsp + 8, return address at CFA - 8.
  static Bytes Usual() { return {0x0c, 7, 8, 0x90, 1}; }

  // Returns its offset. `data`: of the augmentation, behind its length when there is a z.
  uint32_t Cie(const Bytes& instructions = Usual(), std::string_view augmentation = "",
               const Bytes& data = {}, uint8_t version = 1) {
    Bytes body = debug_frame_ ? Little(uint32_t{0xffffffff}) : Little(uint32_t{0});
    body.push_back(version);
    body.append(augmentation.begin(), augmentation.end());
    body.push_back(0);
    if (version == 4) body.append({8, 0});
    body.append({1, 0x78, 16});  // code 1, data -8, return address column
    if (augmentation.starts_with('z')) body.push_back(static_cast<uint8_t>(data.size()));
    body += data + instructions;
    return Entry(body);
  }
  uint32_t Fde(uint32_t cie, uint64_t start, uint64_t size, const Bytes& instructions = {}) {
    return RawFde(cie, Little(start) + Little(size) + instructions);
  }
  uint32_t RawFde(uint32_t cie, const Bytes& body) {
    const auto at = static_cast<uint32_t>(bytes.size() + 4);  // of the pointer
    return Entry(Little(debug_frame_ ? cie : at - cie) + body);
  }
  uint32_t Entry(const Bytes& body) {
    const auto offset = static_cast<uint32_t>(bytes.size());
    bytes += Little(static_cast<uint32_t>(body.size())) + body;
    return offset;
  }

  Bytes bytes;

 private:
  const bool debug_frame_;
};

}  // namespace firewatch::symbolizer
