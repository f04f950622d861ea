// SPDX-License-Identifier: Apache-2.0
// Cuts rows, which come in order of address, into the cells, pages and areas of a lines section
// (line_table_format.h). A part of LineTableWriter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "symbolizer/index/line_table_format.h"
#include "symbolizer/index/section_sink.h"

namespace firewatch::symbolizer {

struct LineBlockRow {
  uint64_t address;
  uint32_t block;
  uint32_t chain;  // of the block; 0: nothing is known from here on
};

// One thread.
class LineCellWriter {
 public:
  // `out` must outlive it. More than `max_rows` rows as they are stored are ResourceExhausted.
  LineCellWriter(uint64_t max_rows, SectionOutput& out) : max_rows_(max_rows), out_(out) {}

  // Addresses ascend; of several rows at one the last counts.
  absl::Status Add(const LineBlockRow& row);
  // Writes the last cell. The last row must have been one of chain 0.
  absl::Status Finish();

  // After Finish.
  std::span<const LineArea> areas() const { return areas_; }
  std::span<const uint32_t> pages() const { return pages_; }  // with the end
  uint32_t cell_count() const { return cells_; }
  uint64_t data_bytes() const { return data_bytes_; }
  uint64_t row_count() const { return rows_; }

 private:
  // Puts down the current row, which reaches to `end`.
  absl::Status Extend(uint64_t end);
  absl::Status WritePiece(size_t minimum);
  void Put(uint64_t address, uint32_t chain);
  void OpenCell(uint64_t address);
  void CloseCell();

  uint64_t max_rows_;
  SectionOutput& out_;
  std::vector<LineArea> areas_;
  std::vector<uint32_t> pages_;
  std::vector<std::byte> data_;  // not yet in out_
  uint64_t data_bytes_ = 0;
  uint64_t rows_ = 0;
  uint32_t cells_ = 0;
  LineBlockRow current_ = {};
  bool started_ = false;
  bool open_ = false;  // a cell of page_ and block_ is under way
  uint64_t page_ = 0;
  uint32_t block_ = 0;
  std::vector<uint8_t> starts_;
  std::vector<uint32_t> chains_;
};

}  // namespace firewatch::symbolizer
