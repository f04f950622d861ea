// SPDX-License-Identifier: Apache-2.0
// Which threads of a process can be looked at, and which is worth it.
#pragma once

#include <sys/types.h>

#include <random>
#include <vector>

namespace firewatch::agent {

struct ThreadId {
  pid_t pid = 0;
  pid_t tid = 0;
  bool running = false;      // on a CPU, or waiting for one
  bool job_stopped = false;  // by SIGSTOP and the like
};

// Of the process and, if asked for, of its descendants. What ends meanwhile is left out; empty when
// the process is gone. Threads that cannot stop (uninterruptible, dead) are left out.
std::vector<ThreadId> ListThreads(pid_t pid, bool descendants);

// Mostly one that runs, if there is one: those that wait stand where they stood before. The list
// must not be empty.
ThreadId PickThread(const std::vector<ThreadId>& threads, std::mt19937_64& random);

}  // namespace firewatch::agent
