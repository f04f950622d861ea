// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/thread_counts.h"

namespace firewatch::agent {

bool ThreadCounts::Apply(SideBandRecord& record) {
  ProcessEvent& event = record.event;
  switch (event.kind) {
    case ProcessEventKind::kFork:
      if (record.thread) {
        AddThread(event.pid);
        return false;
      }
      processes_.erase(event.pid);  // a number that is used again
      return true;
    case ProcessEventKind::kExec:
      // exec ends all other threads, and whoever called it is the main thread now.
      processes_.erase(event.pid);
      return true;
    case ProcessEventKind::kExit:
      return record.thread ? EndThread(record) : EndMain(event.pid);
    case ProcessEventKind::kLost:
      // Counts that missed an exit would keep a process alive for ever.
      processes_.clear();
      return true;
    case ProcessEventKind::kComm:
    case ProcessEventKind::kMmap:
      return true;
  }
  return true;
}

void ThreadCounts::AddThread(Pid pid) {
  const auto it = processes_.find(pid);
  if (it != processes_.end()) {
    ++it->second.others;
  } else if (processes_.size() < kMaxProcesses) {
    processes_.emplace(pid, Threads{.others = 1});
  }
}

bool ThreadCounts::EndThread(SideBandRecord& record) {
  const auto it = processes_.find(record.event.pid);
  if (it == processes_.end() || --it->second.others > 0) return false;
  const bool last = it->second.main_exited;
  processes_.erase(it);
  record.thread = !last;
  return last;
}

bool ThreadCounts::EndMain(Pid pid) {
  const auto it = processes_.find(pid);
  if (it == processes_.end()) return true;
  it->second.main_exited = true;
  return false;
}

}  // namespace firewatch::agent
