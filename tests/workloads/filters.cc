// SPDX-License-Identifier: Apache-2.0
// A family: the parent burns, its child burns, the child's child burns, each under a function of
// its own name. `--pid PARENT` must show all three; a bystander started beside it must not appear.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/workloads/common.h"

#define BURNER extern "C" __attribute__((noinline, noclone, noipa))

// Same work, distinct functions: what tells the three processes apart in a profile.
BURNER uint64_t burn_parent(double ms) { return workload::BurnMs(ms, 3) + 1; }
BURNER uint64_t burn_child(double ms) { return workload::BurnMs(ms, 5) + 2; }
BURNER uint64_t burn_grandchild(double ms) { return workload::BurnMs(ms, 7) + 3; }

namespace {

double seconds = 5;

void Burn(uint64_t (*work)(double)) {
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) work(5);
}

}  // namespace

int main(int argc, char** argv) {
  seconds = workload::Number(argc, argv, "--seconds", seconds);
  // With --delay the children are made later: a profiler attached before then must follow them.
  usleep(static_cast<useconds_t>(workload::Number(argc, argv, "--delay", 0) * 1e6));
  const pid_t child = fork();
  if (child == 0) {
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      Burn(burn_grandchild);
      _exit(0);
    }
    Burn(burn_child);
    waitpid(grandchild, nullptr, 0);
    _exit(0);
  }
  Burn(burn_parent);
  waitpid(child, nullptr, 0);
  workload::PrintOwnCpu();
  return 0;
}
