// SPDX-License-Identifier: Apache-2.0
#include "cli/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/status.h"

namespace firewatch::cli {
namespace {

absl::StatusOr<std::pair<base::UniqueFd, base::UniqueFd>> MakePipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) return base::ErrnoStatus(errno, "pipe");
  return std::pair(base::UniqueFd(fds[0]), base::UniqueFd(fds[1]));
}

// In the child, between fork and exec: only async-signal-safe calls.
[[noreturn]] void WaitAndExec(int go, int error, char* const* arguments) {
  char byte = 0;
  // Zero bytes: the parent gave up (or is gone) before letting go.
  if (::read(go, &byte, 1) != 1) ::_exit(127);
  ::execvp(arguments[0], arguments);
  const int failure = errno;
  [[maybe_unused]] const ssize_t written = ::write(error, &failure, sizeof(failure));
  ::_exit(127);
}

}  // namespace

absl::StatusOr<Child> Child::Start(std::vector<std::string> command) {
  ASSIGN_OR_RETURN(auto go, MakePipe());
  ASSIGN_OR_RETURN(auto error, MakePipe());
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  Child child;
  child.pid_ = ::fork();
  if (child.pid_ < 0) return base::ErrnoStatus(errno, "fork");
  if (child.pid_ == 0) {
    go.second.Reset();  // else the child keeps its own go-pipe open and never sees the end of it
    WaitAndExec(go.first.get(), error.second.get(), arguments.data());
  }
  child.name_ = command.front();
  child.go_ = std::move(go.second);
  child.error_ = std::move(error.first);
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      name_(std::move(other.name_)),
      go_(std::move(other.go_)),
      error_(std::move(other.error_)),
      released_(other.released_),
      exit_code_(other.exit_code_) {}

Child::~Child() {
  if (pid_ <= 0 || released_) return;
  go_.Reset();
  ::waitpid(pid_, nullptr, 0);
}

absl::Status Child::Release() {
  const char byte = 1;
  if (::write(go_.get(), &byte, 1) != 1) return base::ErrnoStatus(errno, "start the command");
  released_ = true;
  int failure = 0;
  // The write end is close-on-exec: end of file means that exec succeeded.
  if (::read(error_.get(), &failure, sizeof(failure)) == sizeof(failure)) {
    ::waitpid(pid_, nullptr, 0);
    exit_code_ = 127;
    return base::ErrnoStatus(failure, name_);
  }
  return absl::OkStatus();
}

std::optional<int> Child::Ended() {
  if (exit_code_.has_value() || pid_ <= 0) return exit_code_;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == pid_) {
    exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  return exit_code_;
}

}  // namespace firewatch::cli
