// SPDX-License-Identifier: Apache-2.0
// Rows of a piece of a unit as bytes: the differences of addresses and of chains, as LEB128. A row
// takes three or four bytes instead of sixteen while it waits for the rows of all other units.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "symbolizer/dwarf/unit_lines.h"
#include "symbolizer/leb_bytes.h"

namespace firewatch::symbolizer {

struct EncodedRows {
  // Rows without a long gap.
  struct Run {
    uint64_t start;
    uint64_t end;
    size_t offset;  // in bytes
  };
  std::vector<Run> runs;  // in order of address, apart from each other
  LebBytes bytes;

  // Keeps the memory.
  void Clear() {
    runs.clear();
    bytes.Clear();
  }
};

// Replaces what is in `out`. Rows as UnitLines has them: no two neighbours say the same, and
// nothing is known behind the last one.
void EncodeRows(std::span<const dwarf::UnitLines::Row> rows, EncodedRows* out);

// The rows of all runs again, instead of what is in `rows`.
void DecodeRows(const EncodedRows& encoded, std::vector<dwarf::UnitLines::Row>* rows);

// Reads one run.
class RowDecoder {
 public:
  // `bytes` at the offset of the run.
  RowDecoder(const uint8_t* bytes, uint64_t start) : at_(bytes), address_(start) {}

  // The row, and whether another one follows; the last one is the end, where nothing is known.
  bool Next(dwarf::UnitLines::Row* row) {
    address_ += TakeUleb();
    const uint64_t code = TakeUleb();
    row->address = address_;
    row->chain = 0;
    if (code < kDifferences) return code != kEndOfRun;
    const uint64_t zigzag = code - kDifferences;
    chain_ += (zigzag & 1) != 0 ? -static_cast<int64_t>((zigzag + 1) / 2)
                                : static_cast<int64_t>(zigzag / 2);
    row->chain = static_cast<uint32_t>(chain_);
    return true;
  }

 private:
  friend void EncodeRows(std::span<const dwarf::UnitLines::Row> rows, EncodedRows* out);
  // What stands for a difference of chains: a zigzag number and two more.
  enum : uint64_t { kEndOfRun = 0, kNothing = 1, kDifferences = 2 };

  uint64_t TakeUleb() {
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const uint8_t byte = *at_++;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
  const uint8_t* at_;
  uint64_t address_;
  int64_t chain_ = 0;
};

}  // namespace firewatch::symbolizer
