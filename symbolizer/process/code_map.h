// SPDX-License-Identifier: Apache-2.0
// Ranges of machine code that a runtime has announced, the last announcement winning: a JIT reuses
// the memory of what it has thrown away. Names stay in the runtime's file, of which this holds
// offsets: 40 bytes for each range, however long its name is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/container/btree_map.h"

namespace firewatch::symbolizer {

// Where the runtime's file tells about a range.
struct CodeRange {
  uint32_t name_size = 0;
  uint64_t name_offset = 0;
  uint64_t lines_offset = 0;  // of its line table; 0: none
  uint64_t moved_by = 0;      // since that table was written; modulo 2^64
};

// One thread. Disjoint ranges by start; adding costs a search, and what it replaces.
class CodeMap {
 public:
  explicit CodeMap(size_t max_ranges) : max_ranges_(max_ranges) {}

  // Replaces whatever lay in [start, start + size); the rest of a range that is cut stays: blobs
  // are announced as a whole first and their parts later. False when the map is full (nothing
  // changes) or the range is empty, or passes 4 GiB or the end of the address space.
  bool Add(uint64_t start, uint64_t size, const CodeRange& range);

  std::optional<CodeRange> Find(uint64_t address) const;

  void Clear() { ranges_.clear(); }
  size_t size() const { return ranges_.size(); }

 private:
  struct Piece {
    uint32_t size = 0;
    CodeRange range;
  };
  // Makes `at` a border between ranges.
  void SplitAt(uint64_t at);

  const size_t max_ranges_;
  absl::btree_map<uint64_t, Piece> ranges_;
};

}  // namespace firewatch::symbolizer
