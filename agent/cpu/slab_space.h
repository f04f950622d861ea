// SPDX-License-Identifier: Apache-2.0
// Which parts of the slabs are free (bpf/include/unwind_table.h). Knows places, not memory. Best
// fit, because what is placed here are whole tables: a few long runs, not many small pieces.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "bpf/include/unwind_table.h"

namespace firewatch::agent {

constexpr uint32_t kSlabUnits = FW_SLAB_BYTES / 8;

inline uint32_t SlabOf(fw_location location) { return location >> FW_LOCATION_UNITS_SHIFT; }
inline uint32_t UnitOf(fw_location location) { return location & (kSlabUnits - 1); }

// `units` of 8 bytes from `location` on, within one slab.
struct SlabRun {
  fw_location location = 0;
  uint32_t units = 0;
};

// One home thread. Memory: two tree nodes for each free run.
class SlabSpace {
 public:
  // The slab is wholly free now.
  void Add(uint32_t slab);
  // Only a slab that is wholly free may go.
  void Remove(uint32_t slab);

  // Takes `wanted` units in one run if a free run is that long, else the longest run, if it has
  // `least`. Closed slabs give nothing.
  std::optional<SlabRun> Take(uint32_t wanted, uint32_t least);
  void Give(SlabRun run);

  // A closed slab is about to be emptied.
  void SetClosed(uint32_t slab, bool closed);

  // Units in use by slab, for all slabs there are.
  const std::map<uint32_t, uint32_t>& used() const { return used_; }
  uint64_t used_units() const { return used_units_; }
  uint64_t free_units() const { return uint64_t{kSlabUnits} * used_.size() - used_units_; }
  size_t slab_count() const { return used_.size(); }

 private:
  void Insert(SlabRun run);
  void Erase(std::map<fw_location, uint32_t>::iterator run);

  std::map<fw_location, uint32_t> by_place_;              // free runs: units by location
  std::set<std::pair<uint32_t, fw_location>> by_length_;  // the same; (units, location)
  std::map<uint32_t, uint32_t> used_;
  std::set<uint32_t> closed_;
  uint64_t used_units_ = 0;
};

}  // namespace firewatch::agent
