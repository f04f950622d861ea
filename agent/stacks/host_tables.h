// SPDX-License-Identifier: Apache-2.0
// Unwind tables as the kernel side sees them (slabs, locations, entries of `tables`), on the heap:
// what bpf/unwind.h reads when it runs in a host program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "bpf/include/unwind_table.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::agent {

// Grows only. One thread writes, afterwards any may read.
class HostTables {
 public:
  // Copies the table in; its number for FILE mappings. ResourceExhausted when no slab can hold a
  // part of it, or there are FW_SLABS_MAX slabs.
  absl::StatusOr<uint32_t> Add(const symbolizer::UnwindTable& table);

  const fw_table* table(uint32_t index) const {
    return index < tables_.size() ? &tables_[index] : nullptr;
  }
  const uint8_t* slab(uint32_t number) const {
    return number < slabs_.size() ? slabs_[number]->bytes : nullptr;
  }
  size_t slab_count() const { return slabs_.size(); }

 private:
  struct Slab {
    alignas(8) uint8_t bytes[FW_SLAB_BYTES];
  };
  absl::StatusOr<fw_location> Place(std::span<const std::byte> bytes);

  std::vector<fw_table> tables_;
  std::vector<std::unique_ptr<Slab>> slabs_;
  size_t used_bytes_ = FW_SLAB_BYTES;  // of the last slab
};

}  // namespace firewatch::agent
