// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/slab_space.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace firewatch::agent {

void SlabSpace::Insert(SlabRun run) {
  by_place_.emplace(run.location, run.units);
  by_length_.emplace(run.units, run.location);
}

void SlabSpace::Erase(std::map<fw_location, uint32_t>::iterator run) {
  by_length_.erase({run->second, run->first});
  by_place_.erase(run);
}

void SlabSpace::Add(uint32_t slab) {
  CHECK(slab < FW_SLABS_MAX && !used_.contains(slab));
  used_.emplace(slab, 0);
  Insert({slab << FW_LOCATION_UNITS_SHIFT, kSlabUnits});
}

void SlabSpace::Remove(uint32_t slab) {
  const auto used = used_.find(slab);
  CHECK(used != used_.end() && used->second == 0);
  Erase(by_place_.find(slab << FW_LOCATION_UNITS_SHIFT));
  used_.erase(used);
  closed_.erase(slab);
}

std::optional<SlabRun> SlabSpace::Take(uint32_t wanted, uint32_t least) {
  auto found = by_length_.lower_bound({wanted, 0});
  while (found != by_length_.end() && closed_.contains(SlabOf(found->second))) ++found;
  if (found == by_length_.end()) {
    auto longest = by_length_.rbegin();
    while (longest != by_length_.rend() && closed_.contains(SlabOf(longest->second))) ++longest;
    if (longest == by_length_.rend() || longest->first < least) return std::nullopt;
    found = std::prev(longest.base());
  }
  const auto [units, location] = *found;
  const SlabRun run{location, std::min(units, wanted)};
  Erase(by_place_.find(location));
  if (units > run.units) Insert({location + run.units, units - run.units});
  used_[SlabOf(location)] += run.units;
  used_units_ += run.units;
  return run;
}

void SlabSpace::Give(SlabRun run) {
  if (run.units == 0) return;
  const auto used = used_.find(SlabOf(run.location));
  CHECK(used != used_.end() && used->second >= run.units);
  used->second -= run.units;
  used_units_ -= run.units;
  // Neighbours of one slab become one run; a run never crosses into the next slab.
  auto next = by_place_.lower_bound(run.location);
  if (next != by_place_.end() && next->first == run.location + run.units &&
      SlabOf(next->first) == SlabOf(run.location)) {
    run.units += next->second;
    Erase(std::exchange(next, std::next(next)));
  }
  if (next != by_place_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == run.location &&
        SlabOf(before->first) == SlabOf(run.location)) {
      run = {before->first, before->second + run.units};
      Erase(before);
    }
  }
  Insert(run);
}

void SlabSpace::SetClosed(uint32_t slab, bool closed) {
  if (closed) {
    closed_.insert(slab);
  } else {
    closed_.erase(slab);
  }
}

}  // namespace firewatch::agent
