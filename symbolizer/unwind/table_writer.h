// SPDX-License-Identifier: Apache-2.0
// Writes an unwind table file: rows to pages, rules by how often rows use them. Equal input gives
// equal bytes. Runs in the sandboxed helper.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/unwind/rules.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {

// From `offset` of the file to the next row: rule `rule` of the table.
struct TableRow {
  uint64_t offset : FW_FRAME_FILE_OFFSET_BITS;
  uint64_t rule : 64 - FW_FRAME_FILE_OFFSET_BITS;
};
static_assert(sizeof(TableRow) == 8);
inline constexpr uint32_t kMaxDistinctRules = 1 << 16;

struct TableSource {
  BuildId id;
  bool pseudo_id = false;
  uint64_t file_bytes = 0;
  UnwindTableCounts counts;
  std::vector<RuleWords> rules;  // rules[0]: NONE
  std::vector<TableRow> rows;    // ascending offsets, neighbours differ in rule, the last is NONE
};

// Rules beyond FW_RULE_SLOTS_MAX slots, the rarest, become NONE and their rows count in
// rows_no_rule; so do rows behind the last page that a directory may have.
std::string EncodeUnwindTable(const TableSource& source);

// The same, to offset 0 of `fd` (empty); the header last. Returns the bytes written.
absl::StatusOr<uint64_t> WriteUnwindTable(const TableSource& source, int fd);

}  // namespace firewatch::symbolizer
