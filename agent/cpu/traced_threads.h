// SPDX-License-Identifier: Apache-2.0
// Who is to be looked at by the ptrace sampler: a tree of processes, their threads, and how much
// CPU time each thread has used, all from /proc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "agent/core/events.h"

namespace firewatch::agent {

// What the kernel says of one thread.
struct ThreadTime {
  uint64_t cpu_ns = 0;
  bool running = false;  // on a CPU, or waiting for one
};

// False when it is gone. schedstat where the kernel has it, else the ticks of stat.
bool ReadThreadTime(const std::string& proc_root, Pid pid, uint32_t tid, ThreadTime* out);

// One home thread.
class TracedThreads {
 public:
  struct Thread {
    uint32_t tid = 0;
    uint64_t seen_cpu_ns = 0;
    uint64_t credit_ns = 0;  // CPU time that no sample stands for yet
    int failures = 0;        // to stop it, in a row
    bool running = false;
    bool alive = true;
  };
  struct Process {
    Pid pid{};
    Pid parent{};
    uint64_t exe_device = 0;  // 0: not looked at yet
    uint64_t exe_inode = 0;
    uint64_t refreshed_ns = 0;
    bool met = false;  // announced as an event
    bool alive = true;
    std::vector<Thread> threads;
  };

  TracedThreads(std::vector<Pid> roots, std::string proc_root = "/proc");

  // Reads everything anew: new children and threads, CPU time into credit. Processes that are gone
  // have alive == false once, and are forgotten by the next call.
  void Scan();

  std::vector<Process>& processes() { return processes_; }
  uint64_t cpu_ns() const { return cpu_ns_; }  // used by all since the first Scan

 private:
  void AddChildren(size_t index);
  void ScanThreads(Process& process);

  const std::string proc_root_;
  std::vector<Process> processes_;
  uint64_t cpu_ns_ = 0;
  bool first_scan_ = true;
};

}  // namespace firewatch::agent
