// SPDX-License-Identifier: Apache-2.0
// For tests: network namespaces and processes of their own. A namespace lives as long as the child
// that holds it, and the child ends with the test, however that ends: nothing has to be put back.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "fmt/format.h"

namespace firewatch::agent {

class TestNamespace {
 public:
  // Loopback is up when this returns. valid() is false where namespaces may not be made.
  TestNamespace() {
    int ready[2];
    if (::pipe(ready) != 0) return;
    holder_ = ::fork();
    if (holder_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const char ok = ::unshare(CLONE_NEWNET) == 0 && std::system("ip link set lo up") == 0 ? 1 : 0;
      if (::write(ready[1], &ok, 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    char ok = 0;
    valid_ = holder_ > 0 && ::read(ready[0], &ok, 1) == 1 && ok == 1;
    ::close(ready[0]);
    ::close(ready[1]);
    struct stat info{};
    if (valid_ && ::stat(path().c_str(), &info) == 0) inode_ = static_cast<uint32_t>(info.st_ino);
  }
  ~TestNamespace() {
    if (holder_ <= 0) return;
    ::kill(holder_, SIGKILL);
    ::waitpid(holder_, nullptr, 0);
  }
  TestNamespace(const TestNamespace&) = delete;
  TestNamespace& operator=(const TestNamespace&) = delete;

  bool valid() const { return valid_; }
  uint32_t inode() const { return inode_; }
  pid_t holder() const { return holder_; }
  std::string path() const { return fmt::format("/proc/{}/ns/net", holder_); }

  // A shell command in the namespace; true when it succeeds.
  bool Run(const std::string& command) const {
    const std::string line =
        fmt::format("nsenter --net={} sh -c '{}' > /dev/null 2>&1", path(), command);
    return std::system(line.c_str()) == 0;
  }
  std::string Output(const std::string& command) const {
    const std::string line = fmt::format("nsenter --net={} sh -c '{}' 2>&1", path(), command);
    std::string text;
    FILE* pipe = ::popen(line.c_str(), "r");
    if (pipe == nullptr) return text;
    char buffer[4096];
    while (const size_t got = std::fread(buffer, 1, sizeof(buffer), pipe)) text.append(buffer, got);
    ::pclose(pipe);
    return text;
  }

  // Waits until so many sockets listen on IPv4 in the namespace.
  bool WaitForListeners(int count) const {
    for (int i = 0; i < 100; ++i) {
      if (std::atoi(Output("ss -4tlnH | wc -l").c_str()) >= count) return true;
      ::usleep(50'000);
    }
    return false;
  }

  // Runs `body` on a thread inside the namespace (sockets made there stay in it).
  void Enter(const std::function<void()>& body) const {
    std::thread([&] {
      const int file = ::open(path().c_str(), O_RDONLY | O_CLOEXEC);
      ASSERT_EQ(::setns(file, CLONE_NEWNET), 0);
      ::close(file);
      body();
    }).join();
  }

 private:
  pid_t holder_ = -1;
  bool valid_ = false;
  uint32_t inode_ = 0;
};

// Copies of one program in a directory of their own: other names, so other programs.
class ProgramCopies {
 public:
  explicit ProgramCopies(std::string program) : program_(std::move(program)) {
    char name[] = "/tmp/firewatch-network-XXXXXX";
    if (::mkdtemp(name) != nullptr) directory_ = name;
  }
  ~ProgramCopies() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
  ProgramCopies(const ProgramCopies&) = delete;
  ProgramCopies& operator=(const ProgramCopies&) = delete;

  // Starts a copy under `name` in the namespace; its output goes to nowhere. It ends with the
  // calling thread.
  pid_t Start(const TestNamespace& space, const std::string& name,
              std::vector<std::string> arguments) const {
    const std::string path = directory_ + "/" + name;
    std::error_code ignored;
    std::filesystem::copy_file(program_, path, ignored);
    arguments.insert(arguments.begin(), path);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const pid_t child = ::fork();
    if (child != 0) return child;
    const int file = ::open(space.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (::setns(file, CLONE_NEWNET) != 0) ::_exit(126);
    const int nowhere = ::open("/dev/null", O_RDWR);
    ::dup2(nowhere, STDOUT_FILENO);
    ::execv(path.c_str(), argv.data());
    ::_exit(127);
  }

 private:
  const std::string program_;
  std::string directory_;
};

inline bool EndedWell(pid_t child) {
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// veth pair: 10.77.0.1/24, fd77::1 in `a`, 10.77.0.2/24, fd77::2 in `b`.
inline bool Connect(const TestNamespace& a, const TestNamespace& b) {
  const std::string add = fmt::format(
      "ip link add v0 type veth peer name v0 netns {} && ip addr add 10.77.0.1/24 dev v0 && "
      "ip addr add fd77::1/64 dev v0 nodad && ip link set v0 up",
      b.holder());
  return a.Run(add) &&
         b.Run(
             "ip addr add 10.77.0.2/24 dev v0 && ip addr add fd77::2/64 dev v0 nodad && "
             "ip link set v0 up");
}

}  // namespace firewatch::agent
