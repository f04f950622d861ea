// SPDX-License-Identifier: Apache-2.0
// Values of a partition's rows, apart from blocks (block.h). An interned row starts with its
// 16-byte content hash, so that a partition's tables are rebuilt without decoding the rest. Byte
// layouts: docs/formats.md.
//
// Decoders return false on bytes that no encoder wrote; the caller names the key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "profile/profile.h"

namespace firewatch::server {

// Hash and payload of an interned row; the payload may be any of those below, or LabelSet::Encode.
std::string EncodeInterned(const base::Hash128& hash, std::string_view payload);
[[nodiscard]] bool DecodeInterned(std::string_view value, base::Hash128* hash,
                                  std::string_view* payload);

struct FunctionRow {
  std::string name, system_name, file;
  int64_t start_line = 0;
  std::string Encode() const;
  [[nodiscard]] bool Decode(std::string_view payload);
};

struct MappingRow {
  std::string file, build_id;
  uint64_t memory_start = 0, memory_limit = 0, file_offset = 0;
  std::string Encode() const;
  [[nodiscard]] bool Decode(std::string_view payload);
};

// Hash: profile::IdentityOf. Names stand in rows of their own.
struct LocationRow {
  uint32_t mapping = 0;  // 0: none, else mapping id + 1
  uint64_t address = 0;
  profile::LocationKind kind = profile::LocationKind::kUnknown;
  bool is_folded = false;
  std::string Encode() const;
  [[nodiscard]] bool Decode(std::string_view payload);
};

struct NamesRow {
  struct Line {
    uint32_t function = 0;
    int64_t line = 0, column = 0;
  };
  std::vector<Line> lines;  // innermost inlined function first
  std::string Encode() const;
  [[nodiscard]] bool Decode(std::string_view value);
};

// How good a location's names are: 0 for a bare one; named beats bare, more lines beat fewer, then
// more lines with file and number beat fewer.
uint16_t NameScore(const profile::Profile& profile, const profile::Location& location);

// Location ids, leaf first.
std::string EncodeStack(const std::vector<uint32_t>& locations);
[[nodiscard]] bool DecodeStack(std::string_view payload, std::vector<uint32_t>* locations);

using NamedCounts = std::vector<std::pair<std::string, uint64_t>>;

// One per upload: who sent it, what was lost, and the total of each series, so that a time line
// reads no block.
struct WindowRow {
  struct SeriesTotal {
    uint32_t series = 0;
    int64_t samples = 0, cpu_ns = 0;
  };
  int64_t end_ms = 0;
  std::string node;
  std::vector<SeriesTotal> totals;  // ascending by series
  NamedCounts losses, stack_ends;
  std::string Encode(int64_t start_ms) const;
  [[nodiscard]] bool Decode(int64_t start_ms, std::string_view value);
};

}  // namespace firewatch::server
