// SPDX-License-Identifier: Apache-2.0
// The third unwinder: gdb, as a program. Slow (it reads the symbols of every mapped file), so only
// for stacks that two others disagree about.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/stacks/libunwind_ptrace.h"

namespace firewatch::agent {

// False: there is no gdb in PATH.
bool HaveGdb();

// The stack of one thread of a process that job control has stopped (SIGSTOP). Inlined functions
// and tail calls that gdb adds from debug information are left out. No sp.
absl::StatusOr<std::vector<WalkedFrame>> GdbStack(pid_t pid, pid_t tid,
                                                  std::chrono::seconds timeout);

}  // namespace firewatch::agent
