// SPDX-License-Identifier: Apache-2.0
// TopFunctions of flame_tree.h.
#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "profile/flame_tree.h"
#include "profile/frame_table.h"
#include "profile/saturating.h"

namespace firewatch::profile {
namespace {

struct Row {
  uint32_t name = 0;
  uint32_t file = 0;
  int64_t self = 0;
  int64_t total = 0;
  size_t last_stack = std::numeric_limits<size_t>::max();  // recursion counts once per stack
};

class Table {
 public:
  Row& Of(const Frame& frame) {
    const uint64_t key = uint64_t{frame.name} << 32 | frame.file;
    const auto [it, added] = index_.try_emplace(key, rows_.size());
    if (added) rows_.push_back({.name = frame.name, .file = frame.file});
    return rows_[it->second];
  }
  std::vector<Row>& rows() { return rows_; }

 private:
  absl::flat_hash_map<uint64_t, size_t> index_;
  std::vector<Row> rows_;
};

}  // namespace

std::vector<FunctionTotals> TopFunctions(const Profile& profile, int value_index, size_t limit) {
  const FrameTable frames(profile);
  const std::vector<int64_t> sums = SumByStack(profile, value_index);
  Table table;
  for (size_t stack = 0; stack < sums.size(); ++stack) {
    if (sums[stack] == 0 || profile.stacks[stack].empty()) continue;
    for (const LocationId location : profile.stacks[stack]) {
      for (const Frame& frame : frames.Of(location)) {
        Row& row = table.Of(frame);
        if (row.last_stack == stack) continue;
        row.last_stack = stack;
        row.total = SaturatingAdd(row.total, sums[stack]);
      }
    }
    Row& leaf = table.Of(frames.Of(profile.stacks[stack].front()).front());
    leaf.self = SaturatingAdd(leaf.self, sums[stack]);
  }
  std::vector<Row>& rows = table.rows();
  const size_t kept = limit == 0 ? rows.size() : std::min(limit, rows.size());
  std::partial_sort(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(kept), rows.end(),
                    [&](const Row& a, const Row& b) {
                      if (a.self != b.self) return a.self > b.self;
                      if (a.total != b.total) return a.total > b.total;
                      if (a.name != b.name) return frames.names()[a.name] < frames.names()[b.name];
                      return frames.names()[a.file] < frames.names()[b.file];
                    });
  std::vector<FunctionTotals> result;
  result.reserve(kept);
  for (size_t i = 0; i < kept; ++i) {
    result.push_back({.name = frames.names()[rows[i].name],
                      .file = frames.names()[rows[i].file],
                      .self = rows[i].self,
                      .total = rows[i].total});
  }
  return result;
}

}  // namespace firewatch::profile
