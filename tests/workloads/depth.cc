// SPDX-License-Identifier: Apache-2.0
// Recursion of a chosen depth, then work at the bottom: 10, 60 (usual), 127 (where
// bpf_get_stackid ends), 500, 2000 (deeper than Firewatch keeps: the cut must be marked).
// Stack at the bottom: burn_leaf, BurnMs is not used; recurse x depth, main.
#include "tests/workloads/common.h"

extern "C" __attribute__((noinline, noclone, noipa)) uint64_t burn_leaf(double seconds) {
  volatile int frame = 1;  // a frame of its own even for g++ 12
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  uint64_t x = static_cast<uint64_t>(frame);
  do {
    for (int i = 0; i < 20'000; ++i) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
      asm volatile("" : "+r"(x));
    }
  } while (workload::ClockNs(CLOCK_MONOTONIC) < end);
  return x;
}

extern "C" __attribute__((noinline, noclone, noipa)) uint64_t recurse(int depth, double seconds) {
  volatile int frame = depth;
  uint64_t x = depth <= 1 ? burn_leaf(seconds) : recurse(depth - 1, seconds);
  asm volatile("" : "+r"(x));
  return x + static_cast<uint64_t>(frame);
}

int main(int argc, char** argv) {
  const int depth = static_cast<int>(workload::Number(argc, argv, "--depth", 60));
  const uint64_t x = recurse(depth, workload::Number(argc, argv, "--seconds", 10));
  std::fprintf(stderr, "checksum=%llx\n", static_cast<unsigned long long>(x));
  workload::PrintOwnCpu();
  return 0;
}
