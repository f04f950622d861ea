// SPDX-License-Identifier: Apache-2.0
// Content hashes (xxh3) and the transparent hash that lets maps of std::string be asked by
// std::string_view. A content hash is stable across machines, runs and versions: it may be stored.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace firewatch::base {

// XXH3 64 bit of the bytes, seed 0.
uint64_t Hash64(std::string_view bytes);
uint64_t Hash64(std::span<const uint64_t> words);

// XXH3 128 bit. Collisions are taken as impossible: it names stored stacks and locations.
struct Hash128 {
  uint64_t high = 0;
  uint64_t low = 0;
  friend auto operator<=>(const Hash128&, const Hash128&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const Hash128& hash) {
    return H::combine(std::move(state), hash.low);
  }
};
Hash128 HashBytes128(std::string_view bytes);

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return Hash64(text); }
};
struct StringEqual {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const { return a == b; }
};

template <typename V>
using StringMap = absl::flat_hash_map<std::string, V, StringHash, StringEqual>;
using StringSet = absl::flat_hash_set<std::string, StringHash, StringEqual>;

}  // namespace firewatch::base
