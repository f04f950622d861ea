// SPDX-License-Identifier: Apache-2.0
// Who a process is, for every module: executable, names, labels, parent, also for a while after it
// has ended. The process table (the profiler's, process_table.h) writes each life down as events
// come; modules ask from threads of their own. What the table has not heard of, or where nobody
// feeds the directory, is read from /proc, at most 200 times a second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "agent/core/events.h"
#include "agent/core/labels.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "profile/labels.h"

namespace firewatch::agent {

// One life between exec and exec, as it was when it was asked for.
struct ProcessInfo {
  Pid pid{};
  Pid parent{};            // 0: unknown
  uint64_t start_ns = 0;   // CLOCK_MONOTONIC; 0: before the agent, or unknown
  uint64_t end_ns = 0;     // 0: it lives
  std::string comm;        // of the main thread
  std::string exe_path;    // "" for kernel threads and when unknown
  uint64_t cgroup_id = 0;  // 0: unknown
  bool kernel_thread = false;
  // node, service, container_id, cgroup, exe, comm: those of its profiles. Never null.
  std::shared_ptr<const profile::LabelSet> labels;
};

// What a caller knows by itself, e.g. captured in the kernel: used where the directory knows less.
struct ProcessHints {
  uint64_t time_ns = 0;    // CLOCK_MONOTONIC of what happened; 0: now
  std::string_view comm;   // of the process or of the thread
  uint64_t cgroup_id = 0;  // bpf_get_current_cgroup_id
};

struct ProcessDirectoryOptions {
  std::string proc_root = "/proc";
  std::string cgroup_root = "/sys/fs/cgroup";
  LabelOptions labels;
  size_t max_living = 32'768;
  size_t max_ended = 8'192;  // 2 MB; beyond, the oldest goes
  uint64_t keep_ended_ns = 60'000'000'000;
};

// Any thread; nothing is called under its lock but /proc and cgroupfs. `clock` and `metrics` must
// outlive it.
class ProcessDirectory {
 public:
  ProcessDirectory(ProcessDirectoryOptions options, const base::Clock& clock,
                   base::MetricsRegistry& metrics);
  ~ProcessDirectory();

  // The life of `pid` at the time of the hints; the nearest one when none covers it. Nothing when
  // nobody has heard of the pid, /proc neither, and there is no hint to make one up from: with a
  // comm or a cgroup id there always is an answer (and a counter of those made up).
  //
  // The table hears of events up to three seconds late. Who asks about something that happened just
  // now may get the life before an exec; who asks four seconds later does not.
  // About 0.3 us when it has been asked for before.
  std::optional<ProcessInfo> Find(Pid pid, const ProcessHints& hints = {});

  // The labels of a program of which this is all that is known, made as all others are: where the
  // pid belongs to another program by now, and for what belongs to no process. Each may be empty
  // or 0.
  std::shared_ptr<const profile::LabelSet> LabelsOf(std::string_view exe, std::string_view comm,
                                                    uint64_t cgroup_id);

  // --- for who feeds it: one thread, in time order ---
  // Until the first call, and after StopFeeding, /proc alone answers (ended processes are then
  // known only as far as they were asked for).

  // A life has begun, after a fork or an exec; start_ns 0: it was found living. It inherits what is
  // known of the life before the exec, else of the parent.
  void Began(Pid pid, Pid parent, uint64_t start_ns);
  // Of the newest life, all that is known now. cgroup_id 0 leaves what is known.
  void Describe(Pid pid, std::string_view comm, std::string_view exe_path, uint64_t cgroup_id,
                bool kernel_thread);
  // Labels that the table has made for a sample.
  void Labelled(Pid pid, std::shared_ptr<const profile::LabelSet> labels);
  void Ended(Pid pid, uint64_t end_ns);
  void StopFeeding();

  size_t living() const;
  size_t ended() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
