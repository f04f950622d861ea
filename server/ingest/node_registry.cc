// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/node_registry.h"

#include <algorithm>

namespace firewatch::server {
namespace {

// Of what an agent says about its sampler, for the page.
constexpr size_t kMaxSamplerBytes = 16;
constexpr size_t kMaxNoteBytes = 1024;
// Of what it says about its modules.
constexpr size_t kMaxModules = 32;
constexpr size_t kMaxModuleNameBytes = 32;

constexpr int64_t kAgentAliveMs = 5 * 60'000;
constexpr size_t kMaxAgentsPerNode = 16;

void NoteAgent(std::vector<std::pair<std::string, int64_t>>& agents, const std::string& id,
               int64_t now_ms) {
  const auto known = std::ranges::find(agents, id, &std::pair<std::string, int64_t>::first);
  if (known != agents.end()) {
    known->second = now_ms;
  } else if (agents.size() < kMaxAgentsPerNode) {
    agents.emplace_back(id, now_ms);
  } else {
    *std::ranges::min_element(agents, {}, &std::pair<std::string, int64_t>::second) = {id, now_ms};
  }
}

}  // namespace

NodeRegistry::Entry& NodeRegistry::FindOrAdd(std::string_view tenant, std::string_view node) {
  const std::pair key{std::string(tenant), std::string(node)};
  if (const auto known = nodes_.find(key); known != nodes_.end()) return known->second;
  if (nodes_.size() >= max_nodes_) {
    nodes_.erase(std::ranges::min_element(
        nodes_, {}, [](const auto& entry) { return entry.second.status.last_seen_ms; }));
  }
  Entry& entry = nodes_[key];
  entry.status.tenant = tenant;
  entry.status.node = node;
  if (const auto version = versions_.find(node); version != versions_.end()) {
    entry.status.agent_version = version->second;
  }
  return entry;
}

void NodeRegistry::NoteHello(std::string_view node, std::string_view agent_version,
                             int64_t now_ms) {
  base::MutexLock lock(mutex_);
  if (!versions_.contains(node) && versions_.size() >= max_nodes_) versions_.clear();
  versions_.insert_or_assign(std::string(node), std::string(agent_version));
  for (auto& [key, entry] : nodes_) {
    if (key.second != node) continue;
    entry.status.agent_version = agent_version;
    entry.status.last_seen_ms = std::max(entry.status.last_seen_ms, now_ms);
  }
}

void NodeRegistry::NoteWindow(const WindowBatch& batch, uint32_t sample_hz, bool duplicate,
                              int64_t now_ms) {
  base::MutexLock lock(mutex_);
  Entry& entry = FindOrAdd(batch.tenant.value, batch.node);
  NodeStatus& status = entry.status;
  // Only the profiler's windows have a rate.
  if (sample_hz != 0) status.sample_hz = sample_hz;
  status.last_seen_ms = std::max(status.last_seen_ms, now_ms);
  if (batch.window.from_ms >= status.last_window_from_ms) {
    status.last_window_from_ms = batch.window.from_ms;
    status.last_window_to_ms = batch.window.to_ms;
  }
  ++(duplicate ? status.duplicates : status.windows);
  NoteAgent(entry.agents, batch.upload.agent_id, now_ms);
}

void NodeRegistry::NoteSampler(const WindowBatch& batch, std::string_view sampler,
                               std::string_view note) {
  base::MutexLock lock(mutex_);
  NodeStatus& status = FindOrAdd(batch.tenant.value, batch.node).status;
  status.sampler = sampler.substr(0, kMaxSamplerBytes);
  status.sampler_note = note.substr(0, kMaxNoteBytes);
}

void NodeRegistry::NoteModules(const WindowBatch& batch, std::vector<NodeModule> modules) {
  if (modules.size() > kMaxModules) modules.resize(kMaxModules);
  for (NodeModule& module : modules) {
    module.name.resize(std::min(module.name.size(), kMaxModuleNameBytes));
    module.why.resize(std::min(module.why.size(), kMaxNoteBytes));
    // What a page may compare with.
    if (module.state != "active" && module.state != "degraded") module.state = "off";
  }
  base::MutexLock lock(mutex_);
  FindOrAdd(batch.tenant.value, batch.node).status.modules = std::move(modules);
}

std::vector<NodeStatus> NodeRegistry::Nodes(int64_t now_ms) const {
  base::MutexLock lock(mutex_);
  std::vector<NodeStatus> result;
  for (const auto& [key, entry] : nodes_) {
    result.push_back(entry.status);
    result.back().agents = static_cast<int>(std::ranges::count_if(
        entry.agents, [&](const auto& agent) { return agent.second >= now_ms - kAgentAliveMs; }));
  }
  return result;
}

size_t NodeRegistry::size() const {
  base::MutexLock lock(mutex_);
  return nodes_.size();
}

}  // namespace firewatch::server
