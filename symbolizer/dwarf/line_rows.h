// SPDX-License-Identifier: Apache-2.0
// The rows of a line program, ascending and disjoint, two to three bytes each: a program may have
// hundreds of thousands, which functions then look up in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "symbolizer/leb_bytes.h"

namespace firewatch::symbolizer::dwarf {

// Code that a row of the program is about.
struct LineRow {
  uint64_t start = 0;
  uint64_t end = 0;   // exclusive
  uint32_t file = 0;  // index in the program's table of files
  uint32_t line = 0;  // 0: code without a line
};

// One thread. Use: per sequence Begin, Append…, End; then Finish; then readers.
class LineRows {
 public:
  void Clear();

  void Begin();
  // Of two rows at one address the later one counts. False, and nothing is done, when the address
  // is below the one before.
  bool Append(uint64_t address, uint32_t file, uint32_t line) {
    if (has_pending_) {
      if (address < pending_.start) return false;
      if (address > pending_.start) {
        if (file == pending_.file && line == pending_.line) {
          last_address_ = address;
          return true;
        }
        if (address < last_address_) return false;
        Encode();
      } else if (address < last_address_) {
        return false;
      }
    }
    pending_ = {.start = address, .file = file, .line = line};
    last_address_ = address;
    has_pending_ = true;
    return true;
  }
  // Where the sequence starts; only between the first Append and End.
  uint64_t first_address() const {
    return sequences_.back().rows == 0 ? pending_.start : sequences_.back().start;
  }
  bool has_rows() const { return has_pending_; }
  // Rows at `end` or behind are dropped; false, and the sequence is abandoned, when there is more
  // than one.
  bool End(uint64_t end);
  void Abandon();

  // Sorts the sequences. Where two overlap, the one that ends first counts.
  void Finish();
  bool empty() const { return sequences_.empty(); }

  class Reader;

 private:
  struct Sequence {
    uint64_t start = 0;
    uint64_t end = 0;
    size_t first_mark = 0;
    size_t end_mark = 0;
    uint32_t rows = 0;
  };
  // A row whose values are known without those before it.
  struct Mark {
    uint64_t address;
    uint32_t file;
    uint32_t line;
    size_t offset;  // in bytes_, behind the row
  };
  static constexpr uint32_t kRowsPerMark = 64;

  void Encode();
  void ResolveOverlaps();

  std::vector<Sequence> sequences_;
  std::vector<Mark> marks_;
  LebBytes bytes_;
  // Of the sequence under way: the row that may still change, and the one before it.
  LineRow pending_;
  LineRow before_;
  uint64_t last_address_ = 0;
  bool has_pending_ = false;
};

// Goes through rows in order. The rows must outlive it and stay as they are.
class LineRows::Reader {
 public:
  explicit Reader(const LineRows& rows) : rows_(&rows) {}

  // To the first row that ends behind `address`; false when there is none.
  bool Seek(uint64_t address);
  // To the next one; there may be a gap before it. False when there is none.
  bool Next();
  bool valid() const { return valid_; }
  const LineRow& row() const { return row_; }

 private:
  friend class LineRows;
  bool SeekIn(size_t sequence, uint64_t address);
  void ReadAhead();

  const LineRows* rows_;
  bool valid_ = false;
  size_t sequence_ = 0;
  uint32_t rows_left_ = 0;  // of the sequence, behind next_
  size_t offset_ = 0;
  LineRow row_;
  LineRow next_;  // start, file and line of the row behind; its start is the end of the sequence
                  // when there is none
  bool has_next_ = false;
};

}  // namespace firewatch::symbolizer::dwarf
