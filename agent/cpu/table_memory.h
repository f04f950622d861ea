// SPDX-License-Identifier: Apache-2.0
// The memory that the unwinder in the kernel reads and user space writes (layout:
// bpf/include/unwind_table.h). Behind an interface, because what is stored there when is worth
// testing without a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "bpf/include/unwind_table.h"

namespace firewatch::agent {

// One home thread.
class TableMemory {
 public:
  virtual ~TableMemory() = default;

  // The map `tables`. Programs write last_used_s and uses at any time, the rest is user space's.
  virtual std::span<fw_table> tables() = 0;

  // Makes a slab of zeros and puts it where programs find it. `slab` is below FW_SLABS_MAX and not
  // there yet.
  virtual absl::Status AddSlab(uint32_t slab) = 0;
  // FW_SLAB_BYTES. Valid until RemoveSlab.
  virtual std::byte* Slab(uint32_t slab) = 0;
  // Takes it away from programs, waits until none can be reading it, frees it.
  virtual void RemoveSlab(uint32_t slab) = 0;
  // Returns when every program that is running now has ended. Needs a slab.
  virtual void WaitForPrograms() = 0;
  // What the kernel charges for one slab.
  virtual uint64_t SlabBytes() const = 0;

  // The map `known_files`. ResourceExhausted when it is full.
  virtual absl::Status SetKnownFile(const fw_file_key& key, const fw_known_file& file) = 0;
  virtual void ForgetFile(const fw_file_key& key) = 0;
};

}  // namespace firewatch::agent
