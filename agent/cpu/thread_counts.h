// SPDX-License-Identifier: Apache-2.0
// When has a process ended? The kernel reports the exit of every thread, and the main thread may go
// first. So threads are counted per process that makes any: the exit of the last one is the end.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "agent/cpu/sideband_record.h"

namespace firewatch::agent {

// Fed with all records in time order. Threads that were there before the first record are not
// known: such a process ends with its main thread. Bounded by kMaxProcesses; a process beyond that
// ends with its main thread, too.
class ThreadCounts {
 public:
  static constexpr size_t kMaxProcesses = 16'384;

  // True when the record says something about the process as a whole. The exit of a last thread
  // that is not the main one is then turned into the exit of the process.
  bool Apply(SideBandRecord& record);

  size_t size() const { return processes_.size(); }

 private:
  struct Threads {
    uint32_t others = 0;  // living, beside the main thread
    bool main_exited = false;
  };
  void AddThread(Pid pid);
  bool EndThread(SideBandRecord& record);
  bool EndMain(Pid pid);

  absl::flat_hash_map<Pid, Threads> processes_;  // with at least one other thread
};

}  // namespace firewatch::agent
