// SPDX-License-Identifier: Apache-2.0
// Lives in the kernel: getpid, a byte through a pipe, a read of /proc/self/stat. For kernel stacks
// and for the join of a kernel stack with the user stack under it.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/workloads/common.h"

extern "C" __attribute__((noinline, noclone, noipa)) int call_kernel(int read_end, int write_end) {
  char buffer[1024];
  for (int i = 0; i < 64; ++i) syscall(SYS_getpid);
  for (int i = 0; i < 16; ++i) {
    if (write(write_end, buffer, 1) != 1 || read(read_end, buffer, 1) != 1) return 1;
  }
  const int stat = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (stat < 0) return 1;
  const ssize_t size = read(stat, buffer, sizeof(buffer));
  close(stat);
  return size > 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  const double seconds = workload::Number(argc, argv, "--seconds", 10);
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  int ends[2];
  if (pipe(ends) != 0) return 1;
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) {
    if (call_kernel(ends[0], ends[1]) != 0) return 1;
  }
  workload::PrintOwnCpu();
  return 0;
}
