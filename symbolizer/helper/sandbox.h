// SPDX-License-Identifier: Apache-2.0
// The walls around the process that reads strangers' ELF files. In the order of building:
// every other descriptor closed; own session; nice 10; rlimits; own namespaces and an empty root
// (where allowed); no uid, group or capability left; and last a list of system calls, all others
// kill the process. The list alone suffices: nothing on it opens, connects, forks or signals
// others.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace firewatch::symbolizer {

// What could be built. Only kSandboxSyscalls is required.
enum SandboxBit : uint32_t {
  kSandboxSyscalls = 1,    // seccomp list
  kSandboxIdentity = 2,    // uid, gid 65534 (only needed, and only possible, from root)
  kSandboxNamespaces = 4,  // own network, mount and IPC namespace
  kSandboxRoot = 8,        // chroot into an empty file system
  kSandboxMemory = 16,     // RLIMIT_DATA; not under AddressSanitizer, which reserves terabytes
};

struct SandboxOptions {
  int keep_fd = -1;        // becomes descriptor 3; 0 and 1 become /dev/null, 2 stays for messages
  uint64_t max_bytes = 0;  // private memory
  uint64_t max_file_bytes = uint64_t{4} << 30;  // any one file that it writes
};

inline constexpr int kSandboxFd = 3;

// For the calling process, for good; single-threaded callers only. Returns SandboxBits, or
// FailedPrecondition when the system call list cannot be installed: then do not read foreign files.
absl::StatusOr<uint32_t> EnterSandbox(const SandboxOptions& options);

// From inside: lets the process use `seconds` more of CPU time (SIGXCPU afterwards).
void AllowCpuSeconds(uint32_t seconds);

}  // namespace firewatch::symbolizer
