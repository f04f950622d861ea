// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/helper/helper_process.h"

#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "symbolizer/helper/sandbox.h"

namespace firewatch::symbolizer {
namespace {

// Marks the helper's environment. A program that does not serve --symbol-helper (a unit test, say)
// and builds a Symbolizer of its own when started as one would otherwise start itself for ever.
constexpr char kMark[] = "FIREWATCH_SYMBOL_HELPER";

absl::StatusOr<pid_t> Spawn(const std::string& path, int child_socket) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  // Also when both numbers are equal: that clears close-on-exec.
  ::posix_spawn_file_actions_adddup2(&actions, child_socket, kSandboxFd);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);

  std::string program = path.empty() ? "/proc/self/exe" : path;
  std::string flag = "--symbol-helper";
  std::string number = std::to_string(kSandboxFd);
  std::string mark = std::string(kMark) + "=1";
  // The leak check at exit would trace its own threads, which the sandbox forbids.
  std::string sanitizer = "ASAN_OPTIONS=detect_leaks=0";
  char* argv[] = {program.data(), flag.data(), number.data(), nullptr};
  char* envp[] = {mark.data(), sanitizer.data(), nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, argv, envp);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return base::ErrnoStatus(error, fmt::format("start {}", program));
  return pid;
}

std::string DescribeEnd(int status) {
  if (WIFSIGNALED(status)) {
    const char* name = ::sigabbrev_np(WTERMSIG(status));
    return fmt::format("killed by SIG{}", name == nullptr ? "?" : name);
  }
  return fmt::format("exit code {}", WEXITSTATUS(status));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HelperProcess>> HelperProcess::Start(const std::string& path,
                                                                    const HelperConfig& config) {
  if (std::getenv(kMark) != nullptr) {
    return base::FailedPrecondition("this process is a symbol helper itself");
  }
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    return base::ErrnoStatus(errno, "make the helper's socket");
  }
  base::UniqueFd ours(pair[0]);
  const base::UniqueFd theirs(pair[1]);
  if (::send(ours.get(), &config, sizeof(config), MSG_NOSIGNAL) != sizeof(config)) {
    return base::ErrnoStatus(errno, "configure the helper");
  }
  ASSIGN_OR_RETURN(const pid_t pid, Spawn(path, theirs.get()));
  return std::unique_ptr<HelperProcess>(new HelperProcess(std::move(ours), pid));
}

HelperProcess::~HelperProcess() {
  if (pid_ > 0) End();
}

HelperProcess::Transfer HelperProcess::Send(const HelperRequest& request,
                                            std::span<const int> fds) {
  HelperRequest copy = request;
  iovec data = {.iov_base = &copy, .iov_len = sizeof(copy)};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxHelperFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return Transfer::kDone;  // a datagram goes whole or not at all
  return errno == EPIPE || errno == ECONNRESET ? Transfer::kDead : Transfer::kLater;
}

HelperProcess::Transfer HelperProcess::Receive(HelperHello* hello) {
  const ssize_t got = ::recv(socket_.get(), hello, sizeof(*hello), MSG_DONTWAIT);
  if (got == sizeof(*hello)) return Transfer::kDone;
  return got < 0 && (errno == EAGAIN || errno == EINTR) ? Transfer::kLater : Transfer::kDead;
}

HelperProcess::Transfer HelperProcess::Receive(HelperAnswer* answer, HelperDwoQuestion* question,
                                               bool* is_question) {
  char buffer[std::max(sizeof(HelperAnswer), sizeof(HelperDwoQuestion))];
  const ssize_t got = ::recv(socket_.get(), buffer, sizeof(buffer), MSG_DONTWAIT | MSG_TRUNC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Transfer::kLater;
  *is_question = got == sizeof(HelperDwoQuestion);
  if (*is_question) {
    std::memcpy(question, buffer, sizeof(*question));
  } else if (got == sizeof(HelperAnswer)) {
    std::memcpy(answer, buffer, sizeof(*answer));
  } else {
    return Transfer::kDead;  // closed, or it speaks another language
  }
  return Transfer::kDone;
}

std::string HelperProcess::End() {
  if (pid_ <= 0) return "ended";
  socket_.Reset();
  int status = 0;
  // A dead one is reaped as it died; one that idles in recvmsg sees the end of the conversation.
  for (int tries = 0; tries < 20; ++tries) {
    const pid_t got = ::waitpid(pid_, &status, WNOHANG);
    if (got == pid_) {
      pid_ = -1;
      return DescribeEnd(status);
    }
    if (got < 0) break;
    ::poll(nullptr, 0, 1);
  }
  ::kill(pid_, SIGKILL);
  const pid_t got = ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return got < 0 ? "ended" : DescribeEnd(status);
}

}  // namespace firewatch::symbolizer
