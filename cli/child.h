// SPDX-License-Identifier: Apache-2.0
// A command that is started but not let go: it waits before exec until the profiler watches it, so
// that its first instruction can be sampled.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace firewatch::cli {

// One owner, one thread. The destructor ends a child that was never released; a released one that
// still runs is left alone (it is the user's command).
class Child {
 public:
  // Forks. NotFound when the command cannot be executed is reported by Release.
  static absl::StatusOr<Child> Start(std::vector<std::string> command);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  // Lets it execute the command; the error of exec (no such file, not executable) comes back here.
  absl::Status Release();
  // The exit code once it has ended (128 + signal when a signal ended it); never waits.
  std::optional<int> Ended();

 private:
  Child() = default;
  pid_t pid_ = -1;
  std::string name_;
  base::UniqueFd go_;     // closed or written: the child goes on
  base::UniqueFd error_;  // the child writes errno when exec fails; closed by a successful exec
  bool released_ = false;
  std::optional<int> exit_code_;
};

}  // namespace firewatch::cli
