// SPDX-License-Identifier: Apache-2.0
// One file's unwind table as the helper wrote it and the cache keeps it: where callers are, for
// every byte of code. Bytes in docs/formats.md, rules and pages in bpf/include/unwind_table.h.
//
// Reading order of this folder: cfi_sections (finds .eh_frame and .debug_frame) -> cfi_reader
// (entries) -> cfi_rows, cfi_expressions (the state machine: entries to rows) -> rules (rows to
// 8-byte rules) -> table_builder (a file's rows, in order) -> table_writer (rows to pages) -> this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/mapped_file.h"
#include "bpf/include/unwind_table.h"
#include "symbolizer/file_identity.h"

namespace firewatch::symbolizer {

// What the builder met, for doctor and metrics; counts of FDEs unless said.
struct UnwindTableCounts {
  uint64_t fdes = 0;
  uint64_t fdes_refused = 0;  // malformed: their functions have no rows
  uint64_t rows_read = 0;     // before equal neighbours were merged
  uint64_t rows_merged = 0;   // distinct neighbours: what the table represents
  uint64_t rows_no_rule = 0;  // rows with a CFA or register rule that no fw_unwind_rule can say
  uint64_t cfi_bytes = 0;     // of .eh_frame and .debug_frame
};

// A view of `bytes`, which must outlive it.
class UnwindTable {
 public:
  struct Rule {
    fw_unwind_rule rule;
    fw_rule_slot slot;  // zero unless rule.two_slots
  };

  // Checks all that a reader relies on (every location, count and rule number inside its bounds,
  // checksum): afterwards neither Find nor the kernel side can leave the table. DataLoss.
  static absl::StatusOr<UnwindTable> Parse(std::span<const std::byte> bytes);

  // FW_CFA_NONE where there is no rule. As slow and obvious as the search in bpf/unwind.h is fast:
  // its twin in tests.
  Rule Find(uint64_t file_offset) const;

  const BuildId& build_id() const { return build_id_; }  // or the pseudo id of symbolizer's cache
  uint64_t row_count() const { return row_count_; }      // in the pages, with those that begin them
  const UnwindTableCounts& counts() const { return counts_; }

  // For the loader: pages are copied as they are, locations of the directory are moved.
  uint32_t first_page() const { return first_page_; }  // file offset >> FW_PAGE_SHIFT
  std::span<const fw_page_entry> directory() const { return directory_; }
  std::span<const fw_unwind_rule> rules() const { return rules_; }
  // The bytes of one page, a multiple of 8; empty when it has no rows.
  std::span<const std::byte> page(const fw_page_entry& entry) const;
  static size_t PageBytes(const fw_page_entry& entry);

 private:
  BuildId build_id_;
  uint64_t row_count_ = 0;
  uint32_t first_page_ = 0;
  UnwindTableCounts counts_;
  std::span<const fw_page_entry> directory_;
  std::span<const fw_unwind_rule> rules_;
  std::span<const std::byte> pages_;
};

// A table and the mapping it lives in. Immutable, shared by everybody who uses it: files with one
// build id have one.
struct MappedUnwindTable {
  base::MappedFile file;
  UnwindTable table;
};

}  // namespace firewatch::symbolizer
