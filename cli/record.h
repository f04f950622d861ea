// SPDX-License-Identifier: Apache-2.0
// `firewatch record`: profile a command, some processes or the whole machine into a file, with no
// server.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace firewatch::cli {

struct RecordOptions {
  std::vector<uint32_t> pids;        // and their children
  bool all = false;                  // every process
  std::vector<std::string> command;  // start this and follow it and its children
  double seconds = 0;                // 0: until the command or the processes end, or Ctrl-C
  uint32_t hz = 99;
  // auto, ebpf, perf or ptrace (agent/cpu/open_source.h), and the stack that perf copies per
  // sample.
  std::string sampler = "auto";
  bool hz_given = false;  // ptrace goes beyond its low default only when told to
  uint32_t stack_bytes = 16'384;
  // Of heap and BPF maps together, as far as unwind tables can give way. Larger than the agent's: a
  // recording keeps all its stacks until it ends.
  uint64_t memory_limit_bytes = uint64_t{256} << 20;
  std::string output = "firewatch.pb.gz";  // "-" writes to standard output
  bool folded = false;                     // folded stacks instead of pprof
  std::string cache_directory;             // symbol indexes; "" = the user's cache folder
  std::string lines = "on";                // files, lines and inlined functions; off
  bool quiet = false;                      // no progress bar, no summary
};

// Returns the exit code: the command's own when one was started and a profile was written, else 0.
// Errors say what is missing and what can be done instead.
absl::StatusOr<int> RunRecord(const RecordOptions& options);

}  // namespace firewatch::cli
