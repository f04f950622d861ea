// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/thread_names.h"

#include <fmt/format.h>

#include <fstream>

namespace firewatch::agent {

void ThreadNames::Apply(const ProcessEvent& event) {
  switch (event.kind) {
    case ProcessEventKind::kExec:
    case ProcessEventKind::kComm:
      if (names_.size() >= kMaxThreads) names_.clear();
      names_[event.tid] = event.comm;
      break;
    case ProcessEventKind::kFork:
    case ProcessEventKind::kExit:
      names_.erase(event.tid);
      break;
    case ProcessEventKind::kMmap:
    case ProcessEventKind::kLost:
      break;
  }
}

std::string_view ThreadNames::Of(Pid pid, uint32_t tid) {
  if (const auto known = names_.find(tid); known != names_.end()) return known->second;
  std::ifstream file(
      fmt::format("{}/{}/task/{}/comm", proc_root_, static_cast<uint32_t>(pid), tid));
  std::string name;
  std::getline(file, name);
  if (names_.size() >= kMaxThreads) names_.clear();
  return names_.emplace(tid, std::move(name)).first->second;
}

}  // namespace firewatch::agent
