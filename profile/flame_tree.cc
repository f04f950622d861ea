// SPDX-License-Identifier: Apache-2.0
// BuildFlameTree in steps:
//   1. Add up the values by stack, then walk each stack once from the root, making a node for each
//      (parent, name) that is not there yet. A parent is made before its children, so one loop
//      from the back gives the totals: nothing here recurses, a stack may be 65,536 deep.
//   2. Choose what to keep; what is cut under a parent becomes its "(other)".
//   3. Lay the nodes out by level, children sorted by name, and keep only the names in use.
#include "profile/flame_tree.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/container/flat_hash_map.h"
#include "profile/frame_table.h"
#include "profile/saturating.h"

namespace firewatch::profile {
namespace {

constexpr uint32_t kUnset = std::numeric_limits<uint32_t>::max();

struct Node {
  uint32_t parent = 0;
  uint32_t name = 0;  // FrameTable's
  uint32_t file = 0;
  uint32_t source = 0;
  uint32_t line = 0;
  uint8_t flags = 0;
  int64_t self = 0;
  int64_t total = 0;
};

// |value|, also of the smallest int64.
uint64_t Weight(int64_t value) {
  return value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
}

class TreeBuilder {
 public:
  TreeBuilder(const Profile& profile, std::span<const uint8_t> reasons)
      : profile_(profile), frames_(profile, reasons) {
    nodes_.push_back({.name = frames_.Intern("total")});
  }

  FlameTree Build(const FlameTreeOptions& options) {
    const std::vector<int64_t> sums = SumByStack(profile_, options.value_index);
    for (size_t stack = 0; stack < sums.size(); ++stack) {
      if (sums[stack] != 0) AddStack(profile_.stacks[stack], sums[stack]);
    }
    for (size_t i = nodes_.size(); i-- > 0;) {
      nodes_[i].total = SaturatingAdd(nodes_[i].total, nodes_[i].self);
      if (i != 0) {
        int64_t& above = nodes_[nodes_[i].parent].total;
        above = SaturatingAdd(above, nodes_[i].total);
      }
    }
    std::vector<bool> keep(nodes_.size(), true);
    if (options.max_nodes != 0 && options.max_nodes < nodes_.size()) Prune(options.max_nodes, keep);
    return Layout(keep);
  }

 private:
  // --- step 1
  void AddStack(const std::vector<LocationId>& stack, int64_t value) {
    uint32_t node = 0;
    size_t depth = 0;
    for (size_t i = stack.size(); i-- > 0;) {
      const std::span<const Frame> frames = frames_.Of(stack[i]);
      for (size_t j = frames.size(); j-- > 0;) node = Child(node, depth++, frames[j]);
    }
    path_.resize(depth);
    nodes_[node].self = SaturatingAdd(nodes_[node].self, value);
  }

  // The node of `frame` under `parent`, which is `depth` below the root. Stacks come in an order
  // in which neighbours share their outer frames, so the last path saves most look-ups.
  uint32_t Child(uint32_t parent, size_t depth, const Frame& frame) {
    if (depth < path_.size()) {
      const Node& last = nodes_[path_[depth]];
      if (last.parent == parent && last.name == frame.name) return Meet(path_[depth], frame);
    } else {
      path_.resize(depth + 1);
    }
    const uint64_t key = uint64_t{parent} << 32 | frame.name;
    const auto [it, added] = child_.try_emplace(key, static_cast<uint32_t>(nodes_.size()));
    path_[depth] = it->second;
    if (!added) return Meet(it->second, frame);
    nodes_.push_back({.parent = parent,
                      .name = frame.name,
                      .file = frame.file,
                      .source = frame.source,
                      .line = frame.line,
                      .flags = frame.flags});
    return it->second;
  }

  // A mark stays only when all frames of the node have it, the binary only when all agree: so the
  // order of the samples does not matter.
  uint32_t Meet(uint32_t id, const Frame& frame) {
    Node& node = nodes_[id];
    const auto changed = static_cast<uint8_t>(node.flags ^ frame.flags);
    const auto marks = static_cast<uint8_t>(node.flags & frame.flags & kFrameMarks);
    if (changed >> kFrameReasonShift == 0) {
      node.flags = static_cast<uint8_t>(marks | (node.flags & ~kFrameMarks));
    } else {
      node.flags = marks | ((marks & kFrameNotSymbolized) != 0 ? kFrameReasonMixed : 0);
    }
    if (node.file != frame.file) node.file = 0;
    if (node.line != frame.line) node.line = 0;
    if (node.source != frame.source) node.source = node.line = 0;
    return id;
  }

  // --- step 2
  void Prune(uint32_t max_nodes, std::vector<bool>& keep) {
    // The weight of the heaviest node below: never more than the parent's, also in a difference
    // of profiles, where totals may be negative. So the heaviest nodes bring their parents along.
    std::vector<uint64_t> weight(nodes_.size(), 0);
    for (size_t i = nodes_.size(); i-- > 0;) {
      weight[i] = std::max(weight[i], Weight(nodes_[i].total));
      weight[nodes_[i].parent] = std::max(weight[nodes_[i].parent], weight[i]);
    }
    std::vector<uint32_t> order(nodes_.size());
    std::iota(order.begin(), order.end(), 0u);
    const auto heavier = [&](uint32_t a, uint32_t b) {
      return weight[a] != weight[b] ? weight[a] > weight[b] : a < b;
    };
    std::nth_element(order.begin(), order.begin() + max_nodes, order.end(), heavier);
    for (size_t i = max_nodes; i < order.size(); ++i) keep[order[i]] = false;

    const uint32_t other_name = frames_.Intern("(other)");
    absl::flat_hash_map<uint32_t, uint32_t> other_of;
    const size_t real_nodes = nodes_.size();
    for (uint32_t i = 0; i < real_nodes; ++i) {
      const uint32_t parent = nodes_[i].parent;
      if (keep[i] || !keep[parent]) continue;
      const auto [it, added] = other_of.try_emplace(parent, static_cast<uint32_t>(nodes_.size()));
      if (added) {
        nodes_.push_back({.parent = parent, .name = other_name, .flags = kFrameOther});
        keep.push_back(true);
      }
      Node& other = nodes_[it->second];
      other.total = SaturatingAdd(other.total, nodes_[i].total);
      other.self = other.total;
    }
  }

  // --- step 3
  FlameTree Layout(const std::vector<bool>& keep) const {
    // Children of node p: children[first[p] .. first[p + 1]).
    std::vector<uint32_t> first(nodes_.size() + 1, 0);
    for (size_t i = 1; i < nodes_.size(); ++i) {
      if (keep[i]) ++first[nodes_[i].parent + 1];
    }
    std::partial_sum(first.begin(), first.end(), first.begin());
    std::vector<uint32_t> children(first.back());
    std::vector<uint32_t> next(first.begin(), first.end() - 1);
    for (uint32_t i = 1; i < nodes_.size(); ++i) {
      if (keep[i]) children[next[nodes_[i].parent]++] = i;
    }
    const std::vector<uint32_t> rank = NameRanks();
    FlameTree tree;
    Names names(frames_, tree.names);
    std::vector<uint32_t> order = {0};  // old index by new index
    Append(tree, names, 0, 0);
    for (uint32_t parent = 0; parent < order.size(); ++parent) {
      const auto begin = children.begin() + first[order[parent]];
      const auto end = children.begin() + first[order[parent] + 1];
      std::sort(begin, end, [&](uint32_t a, uint32_t b) {
        const uint32_t left = rank[nodes_[a].name];
        const uint32_t right = rank[nodes_[b].name];
        return left != right ? left < right : nodes_[a].flags < nodes_[b].flags;
      });
      for (auto it = begin; it != end; ++it) {
        order.push_back(*it);
        Append(tree, names, *it, parent);
      }
    }
    return tree;
  }

  // Position of each name in sorted order: names are compared once, not at every level.
  std::vector<uint32_t> NameRanks() const {
    std::vector<uint32_t> sorted(frames_.names().size());
    std::iota(sorted.begin(), sorted.end(), 0u);
    std::ranges::sort(
        sorted, [&](uint32_t a, uint32_t b) { return frames_.names()[a] < frames_.names()[b]; });
    std::vector<uint32_t> rank(sorted.size());
    for (uint32_t i = 0; i < sorted.size(); ++i) rank[sorted[i]] = i;
    return rank;
  }

  // Copies a name into the tree when it is first used.
  class Names {
   public:
    Names(const FrameTable& frames, std::vector<std::string>& names)
        : frames_(frames), names_(names), new_id_(frames.names().size(), kUnset) {}
    uint32_t Use(uint32_t id) {
      if (new_id_[id] == kUnset) {
        new_id_[id] = static_cast<uint32_t>(names_.size());
        names_.push_back(frames_.names()[id]);
      }
      return new_id_[id];
    }

   private:
    const FrameTable& frames_;
    std::vector<std::string>& names_;
    std::vector<uint32_t> new_id_;
  };

  void Append(FlameTree& tree, Names& names, uint32_t id, uint32_t parent) const {
    const Node& node = nodes_[id];
    tree.parent.push_back(parent);
    tree.name.push_back(names.Use(node.name));
    tree.self.push_back(node.self);
    tree.total.push_back(node.total);
    tree.flags.push_back(node.flags);
    tree.file.push_back(names.Use(node.file));
    tree.source.push_back(names.Use(node.source));
    tree.line.push_back(node.line);
  }

  const Profile& profile_;
  FrameTable frames_;
  std::vector<Node> nodes_;
  absl::flat_hash_map<uint64_t, uint32_t> child_;  // by parent << 32 | name
  std::vector<uint32_t> path_;                     // nodes of the last stack, below the root
};

}  // namespace

FlameTree BuildFlameTree(const Profile& profile, const FlameTreeOptions& options) {
  return TreeBuilder(profile, options.reasons).Build(options);
}

}  // namespace firewatch::profile
