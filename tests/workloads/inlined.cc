// SPDX-License-Identifier: Apache-2.0
// All work is done in inlined functions: without debug information only spin_outer is seen.
#include "tests/workloads/common.h"

[[gnu::always_inline]] static inline uint64_t inlined_leaf(uint64_t x) {
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  asm volatile("" : "+r"(x));
  return x;
}

[[gnu::always_inline]] static inline uint64_t inlined_middle(uint64_t x) {
  for (int i = 0; i < 100'000; ++i) {
    x = inlined_leaf(x);
  }
  return x;
}

extern "C" [[gnu::noinline, gnu::noipa]] uint64_t spin_outer(uint64_t x) {
  x = inlined_middle(x);
  asm volatile("" : "+r"(x));
  return x + 1;
}

int main(int argc, char** argv) {
  const double seconds = workload::Number(argc, argv, "--seconds", 10);
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  uint64_t x = 1;
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) x = spin_outer(x);
  std::fprintf(stderr, "checksum=%llx\n", static_cast<unsigned long long>(x));
  workload::PrintOwnCpu();
  return 0;
}
