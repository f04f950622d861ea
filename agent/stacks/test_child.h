// SPDX-License-Identifier: Apache-2.0
// A forked child that runs a function until the end of its scope.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace firewatch::agent {

class TestChild {
 public:
  template <typename Function>
  explicit TestChild(Function function) : pid_(::fork()) {
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      function();
      ::_exit(0);
    }
  }
  TestChild(const TestChild&) = delete;
  TestChild& operator=(const TestChild&) = delete;
  ~TestChild() { End(); }

  pid_t pid() const { return pid_; }
  // Kills and collects it; afterwards its id may be somebody else's.
  void End() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

}  // namespace firewatch::agent
