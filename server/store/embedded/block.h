// SPDX-License-Identifier: Apache-2.0
// A block holds one series' samples of one window: four columns (stack, label set, samples, cpu
// nanoseconds) in one zstd frame behind a plain header. Byte layout: docs/formats.md.
//
// The cpu column is left out when every row's cpu is samples × period, which is what a sampling
// agent sends.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace firewatch::server {

// Ids are those of the partition's tables.
struct BlockRow {
  uint32_t stack = 0;
  uint32_t labels = 0;
  int64_t samples = 0;  // not negative
  int64_t cpu_ns = 0;   // not negative
  friend bool operator==(const BlockRow&, const BlockRow&) = default;
};

struct BlockHeader {
  int64_t period_ns = 0;
  uint64_t row_count = 0;
  int64_t samples = 0;  // sums; a block whose rows do not add up to them is damaged
  int64_t cpu_ns = 0;
};

// Sorts by (stack, labels) and adds up equal ones. False when a sum does not fit 63 bits.
[[nodiscard]] bool NormalizeRows(std::vector<BlockRow>& rows);

// Holds the compression context. One thread.
class BlockEncoder {
 public:
  BlockEncoder();
  ~BlockEncoder();
  BlockEncoder(const BlockEncoder&) = delete;
  BlockEncoder& operator=(const BlockEncoder&) = delete;
  // `rows` normalized.
  std::string Encode(const std::vector<BlockRow>& rows, int64_t period_ns);

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Holds the decompression context and its buffer. One thread.
class BlockDecoder {
 public:
  BlockDecoder();
  ~BlockDecoder();
  BlockDecoder(const BlockDecoder&) = delete;
  BlockDecoder& operator=(const BlockDecoder&) = delete;
  // Replaces `rows`. DataLoss says what is wrong with the bytes.
  absl::Status Decode(std::string_view block, BlockHeader* header, std::vector<BlockRow>* rows);

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace firewatch::server
