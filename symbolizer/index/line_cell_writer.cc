// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/line_cell_writer.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "symbolizer/index/bit_writer.h"

namespace firewatch::symbolizer {
namespace {

// Pages without code that end an area.
constexpr uint64_t kMaxPageGap = 1024;
// What is kept back before it goes into the sink.
constexpr size_t kPieceBytes = size_t{64} << 10;

}  // namespace

absl::Status LineCellWriter::Finish() {
  if (started_ && current_.chain != 0) return base::Internal("lines: the last row has no end");
  RETURN_IF_ERROR(Extend(UINT64_MAX));
  CloseCell();
  pages_.push_back(static_cast<uint32_t>(data_bytes_));
  return WritePiece(0);
}

absl::Status LineCellWriter::Extend(uint64_t end) {
  if (!started_) return absl::OkStatus();
  if (current_.chain == 0) {
    // A gap: the open cell says so, if the gap begins in its page.
    if (open_ && current_.address >> kLinePageShift == page_) Put(current_.address, 0);
    return absl::OkStatus();
  }
  for (uint64_t at = current_.address; at < end;) {
    if (!open_ || at >> kLinePageShift != page_ || current_.block != block_) {
      CloseCell();
      RETURN_IF_ERROR(WritePiece(kPieceBytes));
      OpenCell(at);
    }
    Put(at, current_.chain);
    if (rows_ > max_rows_ || data_bytes_ > UINT32_MAX - kPieceBytes) {
      return base::ResourceExhausted("lines: more than {} rows", rows_);
    }
    at = ((at >> kLinePageShift) + 1) << kLinePageShift;
    if (at == 0) break;  // that was the last page there is
  }
  return absl::OkStatus();
}

absl::Status LineCellWriter::WritePiece(size_t minimum) {
  if (data_.size() < minimum) return absl::OkStatus();
  RETURN_IF_ERROR(out_.Append(data_));
  data_.clear();
  return absl::OkStatus();
}

void LineCellWriter::OpenCell(uint64_t address) {
  const uint64_t page = address >> kLinePageShift;
  if (areas_.empty() || page > page_) {
    const uint64_t skipped = areas_.empty() ? 0 : page - page_ - 1;
    if (areas_.empty() || skipped > kMaxPageGap) {
      areas_.push_back({page << kLinePageShift, static_cast<uint32_t>(pages_.size()), 0});
    } else {
      pages_.insert(pages_.end(), static_cast<size_t>(skipped), static_cast<uint32_t>(data_bytes_));
      areas_.back().page_count += static_cast<uint32_t>(skipped);
    }
    pages_.push_back(static_cast<uint32_t>(data_bytes_));
    ++areas_.back().page_count;
  }
  page_ = page;
  block_ = current_.block;
  open_ = true;
}

void LineCellWriter::CloseCell() {
  if (!open_) return;
  open_ = false;
  const std::span chains = std::span(chains_).first(in_cell_);
  uint32_t first = UINT32_MAX;
  uint32_t last = 0;
  for (const uint32_t chain : chains) {
    if (chain == 0) continue;
    first = std::min(first, chain);
    last = std::max(last, chain);
  }
  ++cells_;
  const size_t before = data_.size();
  LineCell cell = {.count_minus_1 = static_cast<uint8_t>(in_cell_ - 1),
                   .bits = BitsFor(uint64_t{last} - first + 1)};
  std::memcpy(cell.block, &block_, sizeof(cell.block));
  std::memcpy(cell.first_chain, &first, sizeof(first));
  data_.resize(before + sizeof(cell) + in_cell_);
  std::memcpy(data_.data() + before, &cell, sizeof(cell));
  std::memcpy(data_.data() + before + sizeof(cell), starts_.data(), in_cell_);
  BitWriter writer(&data_);
  for (const uint32_t chain : chains) writer.Put(chain == 0 ? 0 : chain - first + 1, cell.bits);
  writer.Align();
  data_bytes_ += data_.size() - before;
  in_cell_ = 0;
}

}  // namespace firewatch::symbolizer
