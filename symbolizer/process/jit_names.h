// SPDX-License-Identifier: Apache-2.0
// Names of code that has no file, told by the process itself: its jitdump (found by the executable
// mapping that runtimes make of it as a marker) and its perf map. Both belong to the process's own
// mount namespace, and the map's name has the pid of its own pid namespace.
//
// Only files that the process's user or root owns are believed, as perf does: anybody can write
// /tmp/perf-1.map.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/process/jitdump.h"
#include "symbolizer/process/perf_map.h"

namespace firewatch::symbolizer {

// What the map of a process is called inside it, and who may have written it.
struct JitOwner {
  uint32_t inner_pid = 0;  // last of NSpid
  uint32_t uid = 0;        // effective
};
// From the text of /proc/PID/status. InvalidArgument when a field is missing. Kernels before 4.1
// have no NSpid: `pid` stands in.
absl::StatusOr<JitOwner> ParseJitOwner(std::string_view status, uint32_t pid);

// /tmp/perf-PID.map of the process. NotFound when it has none, PermissionDenied when the owner is
// wrong, InvalidArgument when it is no regular file. A FIFO is never opened for reading.
absl::StatusOr<base::UniqueFd> OpenPerfMap(const std::string& proc_root, uint32_t pid,
                                           const JitOwner& owner);

// One home thread. Holds two descriptors and the ranges of each of the kMaxProcesses that were
// asked for last; all ranges together take at most kMaxRanges times 60 bytes (a B-tree's nodes are
// two thirds full), 8 MiB.
class JitNames {
 public:
  // `clock` and `metrics` must outlive it.
  JitNames(std::string proc_root, const base::Clock& clock, base::MetricsRegistry& metrics);
  ~JitNames();

  // The process has code without a file and lives: opens its files while they can be had, again
  // after kRetryNs when there were none. `incarnation` names one life of the process.
  void Request(uint32_t pid, uint64_t incarnation);
  // True once for each life: whether the caller should look for the marker of a jitdump.
  bool WantsDump(uint64_t incarnation) const;
  // The file behind the marker.
  void SetDump(uint64_t incarnation, base::UniqueFd dump);

  // Takes what was appended when the process was requested since. False when nothing names it.
  bool Lookup(uint64_t incarnation, uint64_t address, JitSymbol* symbol);

  static constexpr size_t kMaxProcesses = 64;
  static constexpr size_t kMaxRangesPerFile = 65'536;
  static constexpr size_t kMaxRanges = 131'072;
  static constexpr uint64_t kRetryNs = 5'000'000'000;

 private:
  struct Process;
  Process* Find(uint64_t incarnation) const;
  void Update(Process* process);
  void MakeRoom(uint64_t keep);
  size_t TotalRanges() const;

  const std::string proc_root_;
  const base::Clock& clock_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Process>> processes_;
  uint64_t use_clock_ = 0;
  base::Counter& maps_;
  base::Counter& dumps_;
  base::Counter& refused_;
  base::Counter& malformed_;
  base::Counter& dropped_;
  base::Gauge& ranges_gauge_;
};

}  // namespace firewatch::symbolizer
