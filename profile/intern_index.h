// SPDX-License-Identifier: Apache-2.0
// The index of one table: finds the row that equals a candidate, by a hash that is computed once
// and kept, and a comparison with the row itself. Nothing of the row is stored a second time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/container/flat_hash_set.h"

namespace firewatch::profile {

// One thread. Eight bytes of hash and four of row per entry.
class InternIndex {
 public:
  // The row for which equals(row) holds among those with this hash, else what add() returns.
  template <typename Equals, typename Add>
  uint32_t FindOrAdd(uint64_t hash, const Equals& equals, const Add& add) {
    const Probe<Equals> probe{hash, equals};
    const auto it =
        entries_.lazy_emplace(probe, [&](const auto& construct) { construct(Entry{hash, add()}); });
    return it->row;
  }

  // The row for which equals(row) holds, or kAbsent.
  template <typename Equals>
  uint32_t Find(uint64_t hash, const Equals& equals) const {
    const auto it = entries_.find(Probe<Equals>{hash, equals});
    return it == entries_.end() ? kAbsent : it->row;
  }
  static constexpr uint32_t kAbsent = std::numeric_limits<uint32_t>::max();

  void reserve(size_t rows) { entries_.reserve(rows); }

 private:
  struct Entry {
    uint64_t hash;
    uint32_t row;
  };
  template <typename Equals>
  struct Probe {
    uint64_t hash;
    const Equals& equals;
  };
  struct Hasher {
    using is_transparent = void;
    template <typename T>
    size_t operator()(const T& key) const {
      return key.hash;
    }
  };
  struct Same {
    using is_transparent = void;
    // Entries are distinct by construction; the set compares them only with probes.
    bool operator()(const Entry& a, const Entry& b) const { return a.row == b.row; }
    template <typename Equals>
    bool operator()(const Entry& entry, const Probe<Equals>& probe) const {
      return entry.hash == probe.hash && probe.equals(entry.row);
    }
  };
  absl::flat_hash_set<Entry, Hasher, Same> entries_;
};

}  // namespace firewatch::profile
