// SPDX-License-Identifier: Apache-2.0
// From prefixes of many rules to runs of addresses that the same rules name.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "agent/enforce/image_writer.h"
#include "agent/enforce/prefix.h"

namespace firewatch::agent {

// From `start` to the next run; vector 0: no rule names it.
template <typename Address>
struct Run {
  Address start{};
  uint32_t vector = 0;
  friend bool operator==(const Run&, const Run&) = default;
};

// A prefix of set number `set`.
template <typename Prefix>
struct OwnedPrefix {
  Prefix prefix;
  uint32_t set = 0;
};

inline bool Next(uint32_t* address) { return ++*address != 0; }
inline bool Next(Address6* address) {
  if (++address->low != 0) return true;
  return ++address->high != 0;
}

// `masks[set]` are the rules that use a set; `none` those that take any address, which every vector
// has, too. The first run starts at 0; neighbours differ. Prefixes are nested or apart, so a sweep
// in order of address and length needs a stack of at most 129.
template <typename Address, typename Prefix>
std::vector<Run<Address>> MakeRuns(std::vector<OwnedPrefix<Prefix>> prefixes,
                                   const std::vector<RuleMask>& masks, const RuleMask& none,
                                   Vectors* vectors) {
  std::sort(prefixes.begin(), prefixes.end(),
            [](const auto& a, const auto& b) { return a.prefix < b.prefix; });
  struct Open {
    Address last;
    uint32_t vector;
  };
  std::vector<Open> stack;
  std::vector<Run<Address>> runs = {{Address{}, 0}};
  absl::flat_hash_map<std::pair<uint32_t, uint32_t>, uint32_t> joined;  // vector, set -> vector
  const auto begin_run = [&runs](const Address& start, uint32_t vector) {
    if (runs.back().start == start) {
      runs.back().vector = vector;
      // Now it may be as the one before it.
      if (runs.size() > 1 && runs[runs.size() - 2].vector == vector) runs.pop_back();
    } else if (runs.back().vector != vector) {
      runs.push_back({start, vector});
    }
  };
  const auto close = [&] {
    Address next = stack.back().last;
    stack.pop_back();
    if (Next(&next)) begin_run(next, stack.empty() ? 0 : stack.back().vector);
  };
  for (const auto& [prefix, set] : prefixes) {
    while (!stack.empty() && stack.back().last < prefix.address) close();
    const uint32_t outer = stack.empty() ? 0 : stack.back().vector;
    const auto [found, added] = joined.try_emplace({outer, set}, 0);
    if (added) {
      found->second = vectors->Intern(Union(outer == 0 ? none : vectors->mask(outer), masks[set]));
    }
    begin_run(prefix.address, found->second);
    stack.push_back({LastAddress(prefix), found->second});
  }
  while (!stack.empty()) close();
  return runs;
}

}  // namespace firewatch::agent
