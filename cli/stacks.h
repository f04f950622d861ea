// SPDX-License-Identifier: Apache-2.0
// `firewatch doctor --stacks PID`: does our unwinder see what libunwind sees?
#pragma once

#include <cstdint>
#include <string>

namespace firewatch::cli {

struct StacksOptions {
  int pid = 0;
  uint32_t stops = 200;
  bool children = false;
  bool judge = false;      // ask gdb where the two disagree
  bool functions = false;  // folded stacks, in the JSON form
  bool json = false;
  uint64_t seed = 1;
  std::string cache_directory;  // "" = a temporary one
};

// Prints the comparison. 0: printed; 1: the process cannot be looked at (why is said).
int RunStacks(const StacksOptions& options);

}  // namespace firewatch::cli
