// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/row_codec.h"

#include "base/check.h"

namespace firewatch::symbolizer {
namespace {

using dwarf::UnitLines;

// A gap as long as this ends a run; what is shorter is part of it.
constexpr uint64_t kMaxGapInRun = 256;

}  // namespace

void EncodeRows(std::span<const UnitLines::Row> rows, EncodedRows* out) {
  out->Clear();
  LebBytes& bytes = out->bytes;
  bool in_run = false;
  uint64_t address = 0;
  uint32_t chain = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const UnitLines::Row& row = rows[i];
    if (row.chain == 0) {
      CHECK(in_run);  // two rows never say the same, and the first says something
      const bool ends = i + 1 == rows.size() || rows[i + 1].address - row.address > kMaxGapInRun;
      bytes.Put(row.address - address);
      bytes.Put(ends ? RowDecoder::kEndOfRun : RowDecoder::kNothing);
      address = row.address;
      if (ends) {
        out->runs.back().end = row.address;
        in_run = false;
      }
      continue;
    }
    if (!in_run) {
      out->runs.push_back({.start = row.address, .end = row.address, .offset = bytes.size()});
      in_run = true;
      address = row.address;
      chain = 0;
    }
    bytes.Put(row.address - address);
    const int64_t step = int64_t{row.chain} - chain;
    const uint64_t zigzag =
        step < 0 ? static_cast<uint64_t>(-step) * 2 - 1 : static_cast<uint64_t>(step) * 2;
    bytes.Put(zigzag + RowDecoder::kDifferences);
    address = row.address;
    chain = row.chain;
  }
  CHECK(!in_run);
}

void DecodeRows(const EncodedRows& encoded, std::vector<UnitLines::Row>* rows) {
  rows->clear();
  for (const EncodedRows::Run& run : encoded.runs) {
    RowDecoder decoder(encoded.bytes.data() + run.offset, run.start);
    for (bool more = true; more;) more = decoder.Next(&rows->emplace_back());
  }
}

}  // namespace firewatch::symbolizer
