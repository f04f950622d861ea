// SPDX-License-Identifier: Apache-2.0
// For tests: network namespaces and processes of their own. A namespace lives as long as the child
// that holds it, and the child ends with the test, however that ends: nothing has to be put back.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

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

// veth pair: 10.77.0.1/24, fd77::1 in `a`, 10.77.0.2/24, fd77::2 in `b`.
inline bool Connect(const TestNamespace& a, const TestNamespace& b) {
  const std::string add = fmt::format(
      "ip link add v0 type veth peer name v0 netns {} && ip addr add 10.77.0.1/24 dev v0 && "
      "ip addr add fd77::1/64 dev v0 nodad && ip link set v0 up",
      b.holder());
  return a.Run(add) &&
         b.Run("ip addr add 10.77.0.2/24 dev v0 && ip addr add fd77::2/64 dev v0 nodad && "
               "ip link set v0 up");
}

}  // namespace firewatch::agent
