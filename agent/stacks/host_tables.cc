// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/host_tables.h"

#include <cstring>

#include "base/status.h"

namespace firewatch::agent {

absl::StatusOr<fw_location> HostTables::Place(std::span<const std::byte> bytes) {
  if (bytes.size() > FW_SLAB_BYTES) {
    return base::ResourceExhausted("{} bytes in one piece are more than a slab", bytes.size());
  }
  const size_t size = (bytes.size() + 7) & ~size_t{7};
  if (used_bytes_ + size > FW_SLAB_BYTES) {
    if (slabs_.size() == FW_SLABS_MAX) return base::ResourceExhausted("all slabs are full");
    slabs_.push_back(std::make_unique<Slab>());
    used_bytes_ = 0;
  }
  if (!bytes.empty()) std::memcpy(slabs_.back()->bytes + used_bytes_, bytes.data(), bytes.size());
  const auto location =
      static_cast<fw_location>((slabs_.size() - 1) << FW_LOCATION_UNITS_SHIFT | used_bytes_ / 8);
  used_bytes_ += size;
  return location;
}

absl::StatusOr<uint32_t> HostTables::Add(const symbolizer::UnwindTable& table) {
  fw_table entry{};
  entry.first_page = table.first_page();
  entry.page_count = static_cast<uint32_t>(table.directory().size());
  entry.rule_slots = static_cast<uint32_t>(table.rules().size());
  ASSIGN_OR_RETURN(entry.rules, Place(std::as_bytes(table.rules())));
  std::vector<fw_page_entry> directory(table.directory().begin(), table.directory().end());
  for (fw_page_entry& page : directory) {
    if (page.rows == 0) continue;
    ASSIGN_OR_RETURN(page.location, Place(table.page(page)));
  }
  ASSIGN_OR_RETURN(entry.directory, Place(std::as_bytes(std::span(directory))));
  entry.state = FW_TABLE_READY;
  tables_.push_back(entry);
  return static_cast<uint32_t>(tables_.size() - 1);
}

}  // namespace firewatch::agent
