// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/gdb_judge.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/unique_fd.h"

extern char** environ;

namespace firewatch::agent {
namespace {

// One line per physical frame: its address, and whether it is the trampoline of a signal.
constexpr const char* kScript = R"(python
for thread in gdb.selected_inferior().threads():
  if thread.ptid[1] == {}:
    thread.switch()
frame = gdb.newest_frame()
while frame is not None:
  if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
    print("frame %x %d" % (frame.pc(), frame.type() == gdb.SIGTRAMP_FRAME))
  try:
    frame = frame.older()
  except gdb.error:
    break
print("frames end")
end
)";

// A script in an anonymous file that the child inherits.
absl::StatusOr<base::UniqueFd> ScriptFile(pid_t tid) {
  base::UniqueFd file(::memfd_create("gdb-script", 0));
  if (!file.valid()) return base::ErrnoStatus(errno, "memfd_create");
  const std::string text = fmt::format(fmt::runtime(kScript), tid);
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return base::ErrnoStatus(errno, "write the script for gdb");
  }
  return {std::move(file)};
}

absl::StatusOr<pid_t> StartGdb(pid_t pid, const base::UniqueFd& script, int output) {
  const std::string script_path = fmt::format("/proc/self/fd/{}", script.get());
  const std::string pid_text = fmt::format("{}", pid);
  // No start-up files, no downloads, no scripts of the inspected program.
  const char* arguments[] = {"gdb",
                             "-nx",
                             "-batch",
                             "-iex",
                             "set debuginfod enabled off",
                             "-iex",
                             "set auto-load no",
                             "-iex",
                             "set backtrace past-main on",
                             "-iex",
                             "set backtrace past-entry on",
                             "-p",
                             pid_text.c_str(),
                             "-x",
                             script_path.c_str(),
                             nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  // The caller holds back signals; gdb is to end by them.
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = -1;
  const int error =
      ::posix_spawnp(&child, "gdb", &actions, &attributes, const_cast<char**>(arguments), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return base::ErrnoStatus(error, "start gdb");
  return child;
}

// Until the other side closes; false when time is up.
bool ReadAll(int fd, std::chrono::seconds timeout, std::string* text) {
  const auto end = std::chrono::steady_clock::now() + timeout;
  std::array<char, 4096> buffer;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) == 0) return false;
    const ssize_t size = ::read(fd, buffer.data(), buffer.size());
    if (size <= 0) return true;
    text->append(buffer.data(), static_cast<size_t>(size));
  }
}

std::vector<WalkedFrame> ParseFrames(std::string_view text) {
  std::vector<WalkedFrame> frames;
  bool interrupted = true;  // the leaf, then what stands above a trampoline
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string line(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    unsigned long long ip = 0;
    int trampoline = 0;
    if (std::sscanf(line.c_str(), "frame %llx %d", &ip, &trampoline) != 2) continue;
    if (ip == 0) break;
    frames.push_back({.ip = ip, .sp = 0, .interrupted = interrupted});
    interrupted = trampoline != 0;
  }
  return frames;
}

}  // namespace

bool HaveGdb() {
  const char* path = std::getenv("PATH");
  std::string_view folders = path == nullptr ? "" : path;
  while (!folders.empty()) {
    const size_t colon = folders.find(':');
    const std::string gdb = fmt::format("{}/gdb", folders.substr(0, colon));
    if (::access(gdb.c_str(), X_OK) == 0) return true;
    folders.remove_prefix(colon == std::string_view::npos ? folders.size() : colon + 1);
  }
  return false;
}

absl::StatusOr<std::vector<WalkedFrame>> GdbStack(pid_t pid, pid_t tid,
                                                  std::chrono::seconds timeout) {
  ASSIGN_OR_RETURN(const base::UniqueFd script, ScriptFile(tid));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return base::ErrnoStatus(errno, "pipe");
  const base::UniqueFd reader(ends[0]);
  base::UniqueFd writer(ends[1]);
  ASSIGN_OR_RETURN(const pid_t gdb, StartGdb(pid, script, writer.get()));
  writer.Reset();
  std::string text;
  const bool in_time = ReadAll(reader.get(), timeout, &text);
  if (!in_time) ::kill(gdb, SIGKILL);
  ::waitpid(gdb, nullptr, 0);
  if (text.find("frames end") == std::string::npos) {
    return base::Unavailable("gdb gave no stack of thread {}", tid);
  }
  return ParseFrames(text);
}

}  // namespace firewatch::agent
