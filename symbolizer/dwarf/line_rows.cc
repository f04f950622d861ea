// SPDX-License-Identifier: Apache-2.0
// A row in bytes_: the difference of addresses; that of lines, as a zigzag number, times two, plus
// one when the file changes; then the new file. Every 64th row is in marks_ instead.
#include "symbolizer/dwarf/line_rows.h"

#include <algorithm>
#include <queue>
#include <utility>

namespace firewatch::symbolizer::dwarf {
namespace {

uint64_t TakeUleb(const uint8_t* bytes, size_t* at) {
  uint64_t value = bytes[(*at)++];
  if (value < 0x80) return value;
  value &= 0x7f;
  for (unsigned shift = 7;; shift += 7) {
    const uint8_t byte = bytes[(*at)++];
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

}  // namespace

void LineRows::Clear() {
  sequences_.clear();
  marks_.clear();
  bytes_.Clear();
  has_pending_ = false;
}

void LineRows::Begin() {
  sequences_.push_back({.first_mark = marks_.size(), .end_mark = marks_.size()});
  has_pending_ = false;
  last_address_ = 0;
}

void LineRows::Encode() {
  Sequence& sequence = sequences_.back();
  if (sequence.rows % kRowsPerMark == 0) {
    if (sequence.rows == 0) sequence.start = pending_.start;
    marks_.push_back({pending_.start, pending_.file, pending_.line, bytes_.size()});
  } else {
    const uint64_t advance = pending_.start - before_.start;
    const int64_t step = int64_t{pending_.line} - before_.line;
    const uint64_t zigzag = static_cast<uint64_t>(step) << 1 ^ static_cast<uint64_t>(step >> 63);
    const bool new_file = pending_.file != before_.file;
    const uint64_t code = zigzag << 1 | (new_file ? 1 : 0);
    if (!new_file && (advance | code) < 0x80) {
      bytes_.PutShort(static_cast<uint8_t>(advance), static_cast<uint8_t>(code));
    } else {
      bytes_.Put(advance);
      bytes_.Put(code);
      if (new_file) bytes_.Put(pending_.file);
    }
  }
  ++sequence.rows;
  before_ = pending_;
}

bool LineRows::End(uint64_t end) {
  // Many a program has a last row where the sequence ends.
  if (has_pending_ && pending_.start < end) Encode();
  Sequence& sequence = sequences_.back();
  if (sequence.rows == 0 || before_.start >= end) {
    const bool empty = sequence.rows == 0;
    Abandon();
    return empty;
  }
  sequence.end = end;
  sequence.end_mark = marks_.size();
  has_pending_ = false;
  return true;
}

void LineRows::Abandon() {
  const Sequence& sequence = sequences_.back();
  if (sequence.rows > 0) bytes_.Truncate(marks_[sequence.first_mark].offset);
  marks_.resize(sequence.first_mark);
  sequences_.pop_back();
  has_pending_ = false;
}

void LineRows::Finish() {
  const auto earlier = [](const Sequence& a, const Sequence& b) {
    return a.start != b.start ? a.start < b.start : a.first_mark < b.first_mark;
  };
  if (!std::is_sorted(sequences_.begin(), sequences_.end(), earlier)) {
    std::sort(sequences_.begin(), sequences_.end(), earlier);
  }
  for (size_t i = 1; i < sequences_.size(); ++i) {
    if (sequences_[i].start < sequences_[i - 1].end) {
      ResolveOverlaps();
      return;
    }
  }
}

// A sweep over the sequences' starts and ends; between two of them one sequence speaks.
void LineRows::ResolveOverlaps() {
  struct Part {
    size_t sequence;
    uint64_t start;
    uint64_t end;
  };
  std::vector<Part> parts;
  const auto ends_later = [this](size_t a, size_t b) {
    return sequences_[a].end != sequences_[b].end ? sequences_[a].end > sequences_[b].end : a > b;
  };
  std::priority_queue<size_t, std::vector<size_t>, decltype(ends_later)> open(ends_later);
  size_t next = 0;
  uint64_t at = 0;
  while (next < sequences_.size() || !open.empty()) {
    if (open.empty()) at = std::max(at, sequences_[next].start);
    while (next < sequences_.size() && sequences_[next].start <= at) open.push(next++);
    while (!open.empty() && sequences_[open.top()].end <= at) open.pop();
    if (open.empty()) continue;
    uint64_t to = sequences_[open.top()].end;
    if (next < sequences_.size()) to = std::min(to, sequences_[next].start);
    parts.push_back({open.top(), at, to});
    at = to;
  }
  // The rows of each part, copied.
  LineRows resolved;
  Reader reader(*this);
  for (const Part& part : parts) {
    resolved.Begin();
    bool more = reader.SeekIn(part.sequence, part.start);
    while (more && reader.row().start < part.end) {
      const LineRow& row = reader.row();
      resolved.Append(std::max(row.start, part.start), row.file, row.line);
      more = reader.has_next_ && reader.Next();
    }
    resolved.End(part.end);
  }
  *this = std::move(resolved);
}

// Sets next_ from the bytes, or to the end of the sequence.
void LineRows::Reader::ReadAhead() {
  const Sequence& sequence = rows_->sequences_[sequence_];
  if (rows_left_ == 0) {
    has_next_ = false;
    next_.start = sequence.end;
    return;
  }
  const uint32_t number = sequence.rows - rows_left_;
  --rows_left_;
  has_next_ = true;
  if (number % kRowsPerMark == 0) {
    const Mark& mark = rows_->marks_[sequence.first_mark + number / kRowsPerMark];
    next_ = {.start = mark.address, .file = mark.file, .line = mark.line};
    offset_ = mark.offset;
    return;
  }
  const uint8_t* const bytes = rows_->bytes_.data();
  next_.start += TakeUleb(bytes, &offset_);
  const uint64_t code = TakeUleb(bytes, &offset_);
  const uint64_t zigzag = code >> 1;
  const auto step = static_cast<int64_t>(zigzag >> 1 ^ (~(zigzag & 1) + 1));
  next_.line = static_cast<uint32_t>(static_cast<int64_t>(next_.line) + step);
  if ((code & 1) != 0) next_.file = static_cast<uint32_t>(TakeUleb(bytes, &offset_));
}

bool LineRows::Reader::Seek(uint64_t address) {
  const std::vector<Sequence>& sequences = rows_->sequences_;
  const auto found =
      std::upper_bound(sequences.begin(), sequences.end(), address,
                       [](uint64_t at, const Sequence& sequence) { return at < sequence.end; });
  return SeekIn(static_cast<size_t>(found - sequences.begin()), address);
}

// `address` is below the end of the sequence.
bool LineRows::Reader::SeekIn(size_t sequence, uint64_t address) {
  sequence_ = sequence;
  valid_ = sequence < rows_->sequences_.size();
  if (!valid_) return false;
  const Sequence& entered = rows_->sequences_[sequence];
  // The last mark at or before the address; the first one when there is none.
  const auto first = rows_->marks_.begin() + static_cast<std::ptrdiff_t>(entered.first_mark);
  const auto last = rows_->marks_.begin() + static_cast<std::ptrdiff_t>(entered.end_mark);
  auto mark = std::upper_bound(first, last, address,
                               [](uint64_t at, const Mark& m) { return at < m.address; });
  if (mark != first) --mark;
  rows_left_ = entered.rows - static_cast<uint32_t>(mark - first) * kRowsPerMark;
  ReadAhead();
  do {
    row_ = next_;
    ReadAhead();
    row_.end = next_.start;
  } while (row_.end <= address);
  return true;
}

bool LineRows::Reader::Next() {
  if (!valid_) return false;
  if (!has_next_) {
    valid_ = ++sequence_ < rows_->sequences_.size();
    if (!valid_) return false;
    rows_left_ = rows_->sequences_[sequence_].rows;
    ReadAhead();
  }
  row_ = next_;
  ReadAhead();
  row_.end = next_.start;
  return true;
}

}  // namespace firewatch::symbolizer::dwarf
