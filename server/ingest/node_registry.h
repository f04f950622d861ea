// SPDX-License-Identifier: Apache-2.0
// Which nodes have spoken to this server since it started: what /api/v1/status shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

// A part of an agent, as the agent says it.
struct NodeModule {
  std::string name;   // "cpu"
  std::string state;  // "active", "degraded", "off"
  std::string why;    // "" when active
};

struct NodeStatus {
  std::string tenant;
  std::string node;
  std::string agent_version;  // "" until a Hello
  uint32_t sample_hz = 0;
  std::string sampler;              // "ebpf", "perf", "ptrace"; "" from an agent that does not say
  std::string sampler_note;         // why it is a fallback; "" when it is none
  std::vector<NodeModule> modules;  // those that are enabled; of the newest window that tells any
  int64_t last_seen_ms = 0;         // any call
  int64_t last_window_from_ms = 0;  // of the newest window stored; 0: none yet
  int64_t last_window_to_ms = 0;
  uint64_t windows = 0;     // stored since this server started
  uint64_t duplicates = 0;  // sent again
  // Agents heard within five minutes: more than one per node is a mistake.
  int agents = 0;
};

// Bounded: beyond `max_nodes` the one not heard for longest is forgotten. Any thread.
class NodeRegistry {
 public:
  explicit NodeRegistry(size_t max_nodes = 20'000) : max_nodes_(max_nodes) {}

  void NoteHello(std::string_view node, std::string_view agent_version, int64_t now_ms)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void NoteWindow(const WindowBatch& batch, uint32_t sample_hz, bool duplicate, int64_t now_ms)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // What the newest window of a node was taken with.
  void NoteSampler(const WindowBatch& batch, std::string_view sampler, std::string_view note)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // At most 32 are kept, and of each text so much that a page can show it.
  void NoteModules(const WindowBatch& batch, std::vector<NodeModule> modules)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Sorted by tenant and node.
  std::vector<NodeStatus> Nodes(int64_t now_ms) const ABSL_LOCKS_EXCLUDED(mutex_);
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    NodeStatus status;
    std::vector<std::pair<std::string, int64_t>> agents;  // id, last seen
  };
  Entry& FindOrAdd(std::string_view tenant, std::string_view node)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_nodes_;
  mutable base::Mutex mutex_;
  std::map<std::pair<std::string, std::string>, Entry> nodes_ ABSL_GUARDED_BY(mutex_);
  // A Hello names no tenant: the version waits here for the node's first window.
  std::map<std::string, std::string, std::less<>> versions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace firewatch::server
