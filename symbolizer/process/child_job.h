// SPDX-License-Identifier: Apache-2.0
// Work in a child process, which has a copy of this one's memory: what it allocates is gone with
// it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/unique_fd.h"

namespace firewatch::symbolizer {

// One thread at a time. The child is killed and waited for by the destructor.
class ChildJob {
 public:
  // Of the other threads' locks only malloc's is free in the child (pthread_atfork of glibc):
  // `work` may allocate and make system calls, but not log. Its error comes back as text, with its
  // code.
  static absl::StatusOr<std::unique_ptr<ChildJob>> Start(const std::function<absl::Status()>& work,
                                                         const base::Clock& clock);
  ~ChildJob();
  ChildJob(const ChildJob&) = delete;
  ChildJob& operator=(const ChildJob&) = delete;

  // Waits up to `timeout_ms` for its end (0: does not wait). One that takes longer than a minute in
  // all is killed.
  bool IsDone(int timeout_ms);
  // Of one that is done.
  const absl::Status& result() const { return result_; }
  uint64_t cpu_ns() const { return cpu_ns_; }

 private:
  ChildJob(pid_t child, base::UniqueFd read_end, const base::Clock& clock);
  void Reap();

  pid_t child_;  // -1: it has been waited for
  base::UniqueFd read_end_;
  const base::Clock& clock_;
  const uint64_t deadline_ns_;
  absl::Status result_;
  uint64_t cpu_ns_ = 0;
};

}  // namespace firewatch::symbolizer
