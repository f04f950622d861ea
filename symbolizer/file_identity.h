// SPDX-License-Identifier: Apache-2.0
// How the kernel names a mapped file, before anybody opened it.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace firewatch::symbolizer {

// The GNU build id (up to 20 bytes, as PERF_RECORD_MMAP2 carries it) or nothing.
struct BuildId {
  std::array<uint8_t, 20> bytes{};
  uint8_t size = 0;
  bool empty() const { return size == 0; }
  std::string ToHex() const;  // lower case; "" when empty
  // Empty when the text is not an even number of at most 40 hexadecimal digits.
  static BuildId FromHex(std::string_view hex) {
    const auto digit = [](char c) {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      if (c >= 'A' && c <= 'F') return c - 'A' + 10;
      return -1;
    };
    BuildId id;
    if (hex.size() % 2 != 0 || hex.size() > 2 * id.bytes.size()) return {};
    for (size_t i = 0; i < hex.size(); i += 2) {
      const int high = digit(hex[i]);
      const int low = digit(hex[i + 1]);
      if (high < 0 || low < 0) return {};
      id.bytes[id.size++] = static_cast<uint8_t>(high << 4 | low);
    }
    return id;
  }
  friend auto operator<=>(const BuildId&, const BuildId&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const BuildId& id) {
    return H::combine(std::move(state), id.bytes, id.size);
  }
};

// A kernel with build ids in MMAP2 (5.12+) reports those instead of device and inode; /proc and
// older kernels report device and inode. Two identities of one file meet once it has been opened.
struct FileIdentity {
  std::string path;  // as the process saw it; "//anon", "[vdso]", "[stack]", "… (deleted)" as given
  BuildId build_id;
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  uint64_t inode = 0;
  uint64_t inode_generation = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const FileIdentity& file) {
    return H::combine(std::move(state), file.path, file.build_id, file.device_major,
                      file.device_minor, file.inode, file.inode_generation);
  }
};

}  // namespace firewatch::symbolizer
