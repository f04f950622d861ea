// SPDX-License-Identifier: Apache-2.0
// A symbol index in memory: (file offset) -> name by one binary search, nothing decoded, nothing
// copied. The file was written by the sandboxed helper, which a hostile ELF file may have taken
// over: Parse checks all of it once (sums, order, every name), and every access is checked again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "symbolizer/file_identity.h"

namespace firewatch::symbolizer {

// A view: copies are cheap. Home thread: any, it is immutable.
class SymbolIndex {
 public:
  struct Entry {
    uint64_t start = 0;
    uint64_t size_bytes = 0;
    std::string_view name;
    std::string_view system_name;
    std::string_view group;
  };

  SymbolIndex() = default;

  // DataLoss, saying what is wrong. `bytes` must outlive the index and its strings. Costs a pass
  // over the bytes: about 1 ms per 2 MB.
  static absl::StatusOr<SymbolIndex> Parse(std::span<const std::byte> bytes);

  // The range that covers `offset`, or nothing: gaps are gaps.
  std::optional<Entry> Find(uint64_t offset) const;

  uint64_t symbol_count() const { return count_; }
  uint64_t file_bytes() const { return file_bytes_; }  // size of the ELF file
  bool has_table() const { return has_table_; }
  bool has_pseudo_id() const { return has_pseudo_id_; }
  const BuildId& id() const { return id_; }
  // The first byte after the last range; 0 when there is none.
  uint64_t end() const;

 private:
  uint64_t StartAt(uint64_t i) const;
  Entry EntryAt(uint64_t i) const;
  std::string_view NameAt(uint32_t offset) const;
  absl::Status CheckRanges() const;
  absl::Status CheckPool() const;

  const std::byte* starts_ = nullptr;
  const std::byte* details_ = nullptr;
  uint64_t count_ = 0;
  std::string_view pool_;
  uint64_t file_bytes_ = 0;
  bool has_table_ = false;
  bool has_pseudo_id_ = false;
  BuildId id_;
};

}  // namespace firewatch::symbolizer
