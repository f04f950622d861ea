// SPDX-License-Identifier: Apache-2.0
// Stacks merged by name from the root: what a flame graph draws. Inlined lines become frames of
// their own (marked), so a location with three lines is three nodes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "profile/profile.h"

namespace firewatch::profile {

struct FlameTreeOptions {
  int value_index = 0;  // which sample type
  // 0: every node. Else this many nodes are kept, the root included, by total, largest first (a
  // parent is always kept with its child), and what is cut under a parent becomes one child named
  // "(other)" that carries the exact total: the weight of the tree never changes. The "(other)"
  // nodes come on top, at most one per kept node.
  uint32_t max_nodes = 0;
  // Why locations have no name, by LocationId, 0 to 15; shown in `flags`. Empty: not known.
  std::span<const uint8_t> reasons = {};
};

// Column per field, level order (a parent comes before its children, children of one parent are
// adjacent and sorted by name). Node 0 is the root, named "total".
struct FlameTree {
  std::vector<uint32_t> parent;  // parent[0] = 0
  std::vector<uint32_t> name;    // index into `names`
  std::vector<int64_t> self;
  std::vector<int64_t> total;
  // Bit 0 inlined, bit 1 kernel, bit 2 not symbolized, bit 3 "(other)"; bits 4 to 7 the reason of a
  // frame that is not symbolized, 15 when its locations have several.
  std::vector<uint8_t> flags;
  std::vector<uint32_t> file;  // index into `names`: binary (base name of the mapping), or "" when
                               // there is none or the frames of the node come from several
  std::vector<uint32_t> source;  // index into `names`: path of the source file, by the same rule
  std::vector<uint32_t> line;    // in `source`: where the function begins; 0: unknown, or several
  std::vector<std::string> names;
  size_t size() const { return parent.size(); }
};

// Stacks whose value is 0 make no node. Values are added saturating. A value_index that the profile
// does not have gives a tree of the root alone.
FlameTree BuildFlameTree(const Profile& profile, const FlameTreeOptions& options);

struct FunctionTotals {
  std::string name;
  std::string file;  // binary
  int64_t self = 0;
  int64_t total = 0;  // recursion counted once per stack
};
// One row per (name, binary). Sorted by self descending, then total, then name. `limit` 0: all.
std::vector<FunctionTotals> TopFunctions(const Profile& profile, int value_index, size_t limit);

// What a frame is called: the function's name, else its system name, else "binary+0xoffset" (hex
// file offset, raw address in the kernel and in [anon]), "build-id:0123456789ab+0xoffset" when only
// the build id is known, else "[unknown]+0xaddress".
std::string FrameName(const Profile& profile, const Location& location, size_t line_index);

}  // namespace firewatch::profile
