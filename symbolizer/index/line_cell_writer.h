// SPDX-License-Identifier: Apache-2.0
// Cuts rows, which come in order of address, into the cells, pages and areas of a lines section
// (line_table_format.h). A part of LineTableWriter.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/check.h"
#include "base/status.h"
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
  absl::Status Add(const LineBlockRow& row) {
    if (row.address == current_.address && started_) {
      current_.chain = row.chain;
      current_.block = row.block;
      return absl::OkStatus();
    }
    if (CurrentFitsIn(row.address)) {
      Put(current_.address, current_.chain);
    } else {
      RETURN_IF_ERROR(Extend(row.address));
    }
    current_ = row;
    started_ = true;
    return absl::OkStatus();
  }
  // Writes the last cell. The last row must have been one of chain 0.
  absl::Status Finish();

  // After Finish.
  std::span<const LineArea> areas() const { return areas_; }
  std::span<const uint32_t> pages() const { return pages_; }  // with the end
  uint32_t cell_count() const { return cells_; }
  uint64_t data_bytes() const { return data_bytes_; }
  uint64_t row_count() const { return rows_; }

 private:
  // The rule: the current row goes into the cell under way, and ends in its page.
  bool CurrentFitsIn(uint64_t end) const {
    return open_ && current_.chain != 0 && current_.block == block_ &&
           current_.address >> kLinePageShift == page_ && (end - 1) >> kLinePageShift == page_ &&
           rows_ < max_rows_;
  }
  // Puts down the current row, which reaches to `end`.
  absl::Status Extend(uint64_t end);
  absl::Status WritePiece(size_t minimum);
  // Each starts at a byte of its own.
  void Put(uint64_t address, uint32_t chain) {
    CHECK(in_cell_ < starts_.size());  // addresses ascend
    starts_[in_cell_] = static_cast<uint8_t>(address & (kLinePageBytes - 1));
    chains_[in_cell_++] = chain;
    ++rows_;
  }
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
  size_t in_cell_ = 0;  // rows, of the two below
  std::array<uint8_t, kLinePageBytes> starts_ = {};
  std::array<uint32_t, kLinePageBytes> chains_ = {};
};

}  // namespace firewatch::symbolizer
