// SPDX-License-Identifier: Apache-2.0
// A fork storm: N children a second for S seconds. Each exits at once. Prints how many it made, so
// that a test knows whether the machine kept up with the rate asked for.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/workloads/common.h"

int main(int argc, char** argv) {
  const double rate = workload::Number(argc, argv, "--rate", 5000);
  const double seconds = workload::Number(argc, argv, "--seconds", 10);
  const uint64_t start = workload::ClockNs(CLOCK_MONOTONIC);
  uint64_t forked = 0;
  for (;;) {
    const double elapsed = double(workload::ClockNs(CLOCK_MONOTONIC) - start) / 1e9;
    if (elapsed >= seconds) break;
    if (double(forked) >= elapsed * rate) {
      usleep(200);
      continue;
    }
    const pid_t child = fork();
    if (child == 0) _exit(0);
    if (child > 0) ++forked;
    while (waitpid(-1, nullptr, child < 0 ? 0 : WNOHANG) > 0) {
    }
  }
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  std::printf("forks=%llu seconds=%.3f\n", static_cast<unsigned long long>(forked),
              double(workload::ClockNs(CLOCK_MONOTONIC) - start) / 1e9);
  workload::PrintOwnCpu();
  return 0;
}
