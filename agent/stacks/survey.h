// SPDX-License-Identifier: Apache-2.0
// `firewatch doctor --stacks PID`: stops threads of a process at random moments and compares what
// our unwinder makes of each with what libunwind makes of it; gdb is asked where they disagree.
// Shows names of files and functions, rules and counts; never memory or arguments.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/stacks/stack_compare.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

struct SurveyOptions {
  pid_t pid = 0;
  uint32_t stops = 200;
  bool children = false;  // threads of its descendants, too
  bool judge = false;     // ask gdb about each disagreement: seconds each, the process stands still
  bool functions = false;  // collect folded stacks
  uint64_t seed = 1;
};

// Disagreements of one kind behind one rule of one file: the rule of the last frame that both have.
struct SurveyClass {
  std::string binary;
  std::string rule;
  StackDifference difference = StackDifference::kNone;
  std::string end;      // how our stack ended
  std::string example;  // the last common frame, function and file offset
  std::string ours;     // of the example: where we went on, and where they did
  std::string theirs;
  uint64_t stops = 0;
  uint64_t frames = 0;                   // compared, and not agreed
  std::map<Verdict, uint64_t> verdicts;  // stops
};

struct SurveyReport {
  uint64_t stops = 0;
  std::map<std::string, uint64_t> failed;  // stops that came to nothing, by reason
  uint64_t frames_compared = 0;
  uint64_t frames_agreed = 0;
  uint64_t frames_against_us = 0;  // of stops where gdb sides against us, from the difference on
  uint64_t our_roots = 0;          // stops whose stack ends at a proven root
  uint64_t their_roots = 0;
  uint64_t jit_stops = 0;                // compared only up to JIT code
  std::map<std::string, uint64_t> ends;  // of our stacks, by the metric's labels
  // Where stacks ended that have no proven root: "no_rule after lib.so+0x1234 function".
  std::map<std::string, uint64_t> open_ends;
  std::vector<SurveyClass> classes;                        // by stops, most first
  std::map<std::string, std::string> files_without_table;  // path, why
  uint64_t pause_median_ns = 0;
  uint64_t pause_max_ns = 0;
  // Root first, ";" between. Functions of the program itself by name, others as [file].
  std::map<std::string, uint64_t> folded;
};

// Home thread of `symbolizer`. An error when not a single stop succeeded: PermissionDenied when the
// process may not be traced. Ends early, with what there is, when the process ends.
absl::StatusOr<SurveyReport> SurveyStacks(const SurveyOptions& options,
                                          symbolizer::Symbolizer& symbolizer);

}  // namespace firewatch::agent
