// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/helper/sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>

#include "base/status.h"
#include "base/unique_fd.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FIREWATCH_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FIREWATCH_SANITIZED 1
#endif
#endif
#ifndef FIREWATCH_SANITIZED
#define FIREWATCH_SANITIZED 0
#endif

namespace firewatch::symbolizer {
namespace {

constexpr uid_t kNobody = 65534;
// Debug files with their inflated sections: the largest known (a browser's) are 10 GB together.
constexpr uint64_t kMaxMappedBytes = uint64_t{64} << 30;

absl::Status KeepOnly(int fd) {
  const base::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int standard : {0, 1}) {
    if (null.valid()) {
      ::dup2(null.get(), standard);
    } else {
      ::close(standard);
    }
  }
  if (fd != kSandboxFd && ::dup2(fd, kSandboxFd) < 0) {
    return base::ErrnoStatus(errno, "keep the helper's socket");
  }
  // The raw call: Debian's libc has a wrapper, older kernels (before 5.9) have no call.
  if (::syscall(SYS_close_range, kSandboxFd + 1, ~0U, 0) != 0) {
    struct rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    const int last = static_cast<int>(files.rlim_cur < 65536 ? files.rlim_cur : 65536);
    for (int other = kSandboxFd + 1; other < last; ++other) ::close(other);
  }
  return absl::OkStatus();
}

void Limit(int resource, rlim_t value) {
  const struct rlimit limit = {.rlim_cur = value, .rlim_max = value};
  ::setrlimit(static_cast<__rlimit_resource_t>(resource), &limit);
}

uint32_t SetLimits(const SandboxOptions& options) {
  // A tenth of a busy core. At 19 it would be a hundredth: a table that takes 3 ms came a third of
  // a second after its first sample.
  ::setpriority(PRIO_PROCESS, 0, 10);
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_NOFILE, 16);
  Limit(RLIMIT_FSIZE, options.max_file_bytes);
  if (FIREWATCH_SANITIZED || options.max_bytes == 0) return 0;
  // Private memory is what it costs; mapped files, of gigabytes at times, only take addresses.
  Limit(RLIMIT_DATA, options.max_bytes);
  Limit(RLIMIT_AS, options.max_bytes + kMaxMappedBytes);
  return kSandboxMemory;
}

// An unprivileged process gets its namespaces through a user namespace, where that is allowed.
uint32_t LeaveNamespaces() {
  const int own = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC;
  if (::unshare(own) != 0 && ::unshare(own | CLONE_NEWUSER) != 0) return 0;
  return kSandboxNamespaces;
}

// An empty read-only file system over /tmp of the own mount namespace becomes the root.
uint32_t LeaveFileSystem() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 0;
  const uint64_t flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
  for (const char* place : {"/tmp", "/proc", "/dev"}) {
    if (::mount("none", place, "tmpfs", flags, "size=4k,nr_inodes=2") != 0) continue;
    if (::chdir(place) == 0 && ::chroot(".") == 0) return kSandboxRoot;
    return 0;
  }
  return 0;
}

void DropCapabilities() {
  for (uint64_t capability = 0; capability < 64; ++capability) {
    ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

uint32_t DropIdentity() {
  DropCapabilities();
  uint32_t bits = 0;
  if (::geteuid() == 0) {
    ::setgroups(0, nullptr);
    const bool changed =
        ::setresgid(kNobody, kNobody, kNobody) == 0 && ::setresuid(kNobody, kNobody, kNobody) == 0;
    if (changed) bits = kSandboxIdentity;
  }
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
  ::syscall(SYS_capset, &header, none.data());
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  return bits;
}

// What the reader needs, what malloc and the sanitizers' runtimes need, how a process ends.
constexpr int kAllowed[] = {
    SCMP_SYS(read),
    SCMP_SYS(pread64),
    SCMP_SYS(write),
    SCMP_SYS(pwrite64),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(fstat),
    SCMP_SYS(lseek),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fsync),
    SCMP_SYS(close),
    SCMP_SYS(memfd_create),  // for inflated sections, where no scratch file came along
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(getrandom),
    SCMP_SYS(sched_yield),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(restart_syscall),
};

absl::Status AllowSystemCalls() {
  const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (filter == nullptr) return base::FailedPrecondition("seccomp: no filter");
  int error = 0;
  for (int call : kAllowed) {
    if (error == 0) error = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
  }
  // abort() signals itself; AllowCpuSeconds moves its own CPU limit.
  const auto self = static_cast<scmp_datum_t>(::getpid());
  if (error == 0) {
    error = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                               SCMP_A0(SCMP_CMP_EQ, self, 0));
  }
  if (error == 0) {
    error = ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2,
                               SCMP_A0(SCMP_CMP_EQ, 0, 0), SCMP_A1(SCMP_CMP_EQ, RLIMIT_CPU, 0));
  }
  if (error == 0) error = ::seccomp_load(filter);
  ::seccomp_release(filter);
  return error == 0 ? absl::OkStatus() : base::FailedPrecondition("seccomp: error {}", -error);
}

}  // namespace

absl::StatusOr<uint32_t> EnterSandbox(const SandboxOptions& options) {
  RETURN_IF_ERROR(KeepOnly(options.keep_fd));
  ::setsid();
  uint32_t bits = LeaveNamespaces();
  if ((bits & kSandboxNamespaces) != 0) bits |= LeaveFileSystem();
  bits |= DropIdentity();
  bits |= SetLimits(options);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return base::FailedPrecondition("no_new_privs: error {}", errno);
  }
  RETURN_IF_ERROR(AllowSystemCalls());
  return bits | kSandboxSyscalls;
}

void AllowCpuSeconds(uint32_t seconds) {
  struct timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  // The kernel rounds used time down; one more second keeps a fresh limit from striking at once.
  const struct rlimit limit = {.rlim_cur = static_cast<rlim_t>(used.tv_sec) + seconds + 1,
                               .rlim_max = RLIM_INFINITY};
  ::setrlimit(RLIMIT_CPU, &limit);
}

}  // namespace firewatch::symbolizer
