// SPDX-License-Identifier: Apache-2.0
// Work three inlined calls deep: `outer` is a function of its own, `middle` and `inner` are compiled
// into it, so only debug information knows them. Stack: inner, middle, outer, main.
#include "tests/workloads/common.h"

namespace {

inline __attribute__((always_inline)) uint64_t inner(uint64_t x) {
  for (int i = 0; i < 20'000; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    asm volatile("" : "+r"(x));
  }
  return x;
}

inline __attribute__((always_inline)) uint64_t middle(uint64_t x) { return inner(x + 1) + 1; }

}  // namespace

extern "C" __attribute__((noinline, noclone, noipa)) uint64_t outer(double seconds) {
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  uint64_t x = 1;
  do {
    x = middle(x);
  } while (workload::ClockNs(CLOCK_MONOTONIC) < end);
  return x;
}

int main(int argc, char** argv) {
  const uint64_t x = outer(workload::Number(argc, argv, "--seconds", 10));
  std::fprintf(stderr, "checksum=%llx\n", static_cast<unsigned long long>(x));
  workload::PrintOwnCpu();
  return 0;
}
