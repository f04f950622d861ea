// SPDX-License-Identifier: Apache-2.0
// Each test enters the sandbox in a forked child and tries something there.
#include "symbolizer/helper/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>

#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {
namespace {

constexpr int kNoSandbox = 99;

// Wait status of a child that entered the sandbox and then ran `probe`.
int InSandbox(const std::function<int(uint32_t bits)>& probe) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    const int fd = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const auto bits = EnterSandbox({.keep_fd = fd, .max_bytes = uint64_t{1} << 30});
    ::_exit(bits.ok() ? probe(*bits) : kNoSandbox);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return status;
}

void ExpectKilledBySeccomp(int status) {
  EXPECT_TRUE(WIFSIGNALED(status)) << "exit code " << WEXITSTATUS(status);
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}

TEST(SandboxTest, FilesCannotBeOpened) {
  ExpectKilledBySeccomp(InSandbox([](uint32_t) { return ::open("/etc/passwd", O_RDONLY); }));
}

TEST(SandboxTest, SocketsCannotBeMade) {
  ExpectKilledBySeccomp(InSandbox([](uint32_t) { return ::socket(AF_INET, SOCK_STREAM, 0); }));
  ExpectKilledBySeccomp(InSandbox([](uint32_t) { return ::socket(AF_UNIX, SOCK_STREAM, 0); }));
}

TEST(SandboxTest, ProcessesCannotBeStartedTracedOrSignalled) {
  ExpectKilledBySeccomp(InSandbox([](uint32_t) { return static_cast<int>(::fork()); }));
  ExpectKilledBySeccomp(InSandbox([](uint32_t) { return ::execl("/bin/true", "true", nullptr); }));
  ExpectKilledBySeccomp(InSandbox([](uint32_t) { return ::kill(1, 0); }));
  ExpectKilledBySeccomp(
      InSandbox([](uint32_t) { return static_cast<int>(::syscall(SYS_tgkill, 1, 1, 0)); }));
}

TEST(SandboxTest, LimitsOtherThanCpuCannotBeRaised) {
  ExpectKilledBySeccomp(InSandbox([](uint32_t) {
    const rlimit limit = {.rlim_cur = 1000, .rlim_max = 1000};
    return ::setrlimit(RLIMIT_NOFILE, &limit);
  }));
}

TEST(SandboxTest, KeptDescriptorAndMemoryWork) {
  const int status = InSandbox([](uint32_t bits) {
    AllowCpuSeconds(5);
    char byte = 1;
    if (::pread(kSandboxFd, &byte, 1, 0) != 1 || byte != 0) return 1;
    void* memory =
        ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 2;
    return (bits & kSandboxSyscalls) != 0 ? 0 : 3;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(SandboxTest, OtherDescriptorsAreClosed) {
  const int status = InSandbox([](uint32_t) {
    char byte = 0;
    for (int fd = kSandboxFd + 1; fd < 64; ++fd) {
      if (::read(fd, &byte, 0) != -1 || errno != EBADF) return 1;
    }
    return 0;
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(SandboxTest, RootGivesUpItsIdentityNamespacesAndRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const int status = InSandbox([](uint32_t bits) { return static_cast<int>(bits); });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_NE(WEXITSTATUS(status) & kSandboxIdentity, 0);
  EXPECT_NE(WEXITSTATUS(status), kNoSandbox);
}

TEST(SandboxTest, CpuTimeIsBounded) {
  const int status = InSandbox([](uint32_t) {
    AllowCpuSeconds(0);
    while (true) asm volatile("");
    return 0;
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGXCPU);
}

TEST(SandboxTest, HelperStartedByHandExplainsItself) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  ASSERT_EQ(::send(pair[0], "hello", 5, 0), 5);
  EXPECT_EQ(RunSymbolHelper(pair[1]), 2);
  ::close(pair[0]);
  ::close(pair[1]);
}

}  // namespace
}  // namespace firewatch::symbolizer
