// SPDX-License-Identifier: Apache-2.0
// The bytes of an unwind table file; drawn in docs/formats.md, "Unwind table file". Little endian.
// Writer (table_writer.h) and reader (unwind_table.h) are the only users.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bpf/include/unwind_table.h"

namespace firewatch::symbolizer {

inline constexpr char kTableMagic[8] = {'F', 'W', 'U', 'N', 'W', 'I', 'N', 'D'};
inline constexpr uint32_t kTableVersion = 1;

inline constexpr uint32_t kTablePseudoId = 1;  // `id` is a hash of ours, not a build id

// Directory and rules must each fit into one slab.
inline constexpr uint32_t kTablePagesMax = FW_SLAB_BYTES / sizeof(fw_page_entry);
static_assert(FW_RULE_SLOTS_MAX * sizeof(fw_unwind_rule) <= FW_SLAB_BYTES);

struct TableHeader {
  char magic[8];
  uint32_t version;
  uint32_t flags;
  uint64_t file_bytes;  // of the ELF file
  uint32_t first_page;
  uint32_t page_count;
  uint32_t rule_slots;
  uint8_t id_size;
  uint8_t id[20];
  uint8_t padding[7];
  uint64_t row_count;    // in the pages
  uint64_t page_bytes;   // of all the pages
  uint64_t counts[6];    // UnwindTableCounts, in its order
  uint64_t body_xxh3;    // of all behind the header
  uint64_t header_xxh3;  // of all the bytes before it
};
static_assert(sizeof(TableHeader) == 144 && offsetof(TableHeader, header_xxh3) == 136);

// Then rule_slots rules, page_count directory entries, page_bytes of pages.

}  // namespace firewatch::symbolizer
