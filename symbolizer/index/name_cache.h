// SPDX-License-Identifier: Apache-2.0
// Names of one index that somebody has asked for, by id: what is shown is shown again, so each is
// unpacked once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/container/node_hash_map.h"
#include "symbolizer/index/name_table.h"

namespace firewatch::symbolizer {

// One thread at a time. Bounded by its owner, which calls Clear when bytes() is too much.
class NameCache {
 public:
  struct Names {
    std::string_view linkage;  // as in the file
    std::string_view display;  // demangled, without the compiler's suffixes
  };

  // Always from the same table. Views are valid until Clear. A name that cannot be had is "".
  Names Get(const NameTable& table, uint32_t id, NameReader& reader);

  // The cache's own memory, approximately.
  size_t bytes() const { return bytes_; }
  void Clear();

 private:
  struct Entry {
    std::string linkage;
    std::string display;  // "" when it equals the linkage name
  };
  absl::node_hash_map<uint32_t, Entry> names_;
  size_t bytes_ = 0;
};

}  // namespace firewatch::symbolizer
