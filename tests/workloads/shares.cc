// SPDX-License-Identifier: Apache-2.0
// Four functions that burn 10, 20, 30 and 40 % of the work, each under 60 frames.
//
// The answer is known because all four run the same loop body and differ only in how often: one
// round calls burn_10 with n turns, burn_20 with 2n, burn_30 with 3n and burn_40 with 4n. What a
// compiler could do to spoil that, and what stands against it:
//   merge equal functions      each adds another constant (an immediate: the same cost)
//   hoist or fold the loop     asm volatile("" : "+r"(x)) in the body
//   turn a call into a jump    asm volatile("") after every call, so that no call is the last thing
//   inline or clone            noinline, noclone, and noipa on every level
//   align the loops unequally  -falign-functions=64 -falign-loops=64 (see CMakeLists.txt)
// check_shares.py reads the disassembly and proves each of these.
//
// The length of a round changes at random, so that no sampling rate falls into step with it.
#include <pthread.h>

#include "tests/workloads/common.h"

namespace {

long base_turns = 20'000;  // a round is about 1 ms of work
// The end: a time, or (--cpu-seconds) an amount of CPU time of the process, for busy machines.
clockid_t end_clock = CLOCK_MONOTONIC;
uint64_t end_ns = 0;

}  // namespace

#define LEVEL_FUNCTION extern "C" __attribute__((noinline, noclone, noipa))

#define BURN(name, constant)                             \
  LEVEL_FUNCTION uint64_t name(uint64_t x, long turns) { \
    for (long i = 0; i < turns; ++i) {                   \
      x ^= x << 13;                                      \
      x ^= x >> 7;                                       \
      x ^= x << 17;                                      \
      x += constant;                                     \
      asm volatile("" : "+r"(x));                        \
    }                                                    \
    return x;                                            \
  }

BURN(burn_10, 0x10101)
BURN(burn_20, 0x20203)
BURN(burn_30, 0x30307)
BURN(burn_40, 0x4040b)

// The last level calls the leaf, level NN calls level NN+1. The counter on the stack keeps a frame
// in every level whatever the flags.
LEVEL_FUNCTION uint64_t level_57(uint64_t x, long turns, int which) {
  volatile int depth = 57;
  switch (which) {
    case 0:
      x = burn_10(x, turns);
      break;
    case 1:
      x = burn_20(x, turns * 2);
      break;
    case 2:
      x = burn_30(x, turns * 3);
      break;
    default:
      x = burn_40(x, turns * 4);
      break;
  }
  asm volatile("" : "+r"(x));
  return x + static_cast<uint64_t>(depth);
}

#define LEVEL(number, next)                                                   \
  LEVEL_FUNCTION uint64_t level_##number(uint64_t x, long turns, int which) { \
    volatile int depth = 1##number - 100;                                     \
    x = level_##next(x, turns, which);                                        \
    asm volatile("" : "+r"(x));                                               \
    return x + static_cast<uint64_t>(depth);                                  \
  }

// clang-format off
LEVEL(56, 57) LEVEL(55, 56) LEVEL(54, 55) LEVEL(53, 54) LEVEL(52, 53) LEVEL(51, 52) LEVEL(50, 51)
LEVEL(49, 50) LEVEL(48, 49) LEVEL(47, 48) LEVEL(46, 47) LEVEL(45, 46) LEVEL(44, 45) LEVEL(43, 44)
LEVEL(42, 43) LEVEL(41, 42) LEVEL(40, 41) LEVEL(39, 40) LEVEL(38, 39) LEVEL(37, 38) LEVEL(36, 37)
LEVEL(35, 36) LEVEL(34, 35) LEVEL(33, 34) LEVEL(32, 33) LEVEL(31, 32) LEVEL(30, 31) LEVEL(29, 30)
LEVEL(28, 29) LEVEL(27, 28) LEVEL(26, 27) LEVEL(25, 26) LEVEL(24, 25) LEVEL(23, 24) LEVEL(22, 23)
LEVEL(21, 22) LEVEL(20, 21) LEVEL(19, 20) LEVEL(18, 19) LEVEL(17, 18) LEVEL(16, 17) LEVEL(15, 16)
LEVEL(14, 15) LEVEL(13, 14) LEVEL(12, 13) LEVEL(11, 12) LEVEL(10, 11) LEVEL(09, 10) LEVEL(08, 09)
LEVEL(07, 08) LEVEL(06, 07) LEVEL(05, 06) LEVEL(04, 05) LEVEL(03, 04) LEVEL(02, 03) LEVEL(01, 02);
// clang-format on

// Called by main itself in the first thread, so that its samples reach `main`.
LEVEL_FUNCTION uint64_t run_rounds(uint64_t seed) {
  uint64_t x = seed | 1;
  uint64_t jitter = seed * 0x9e3779b97f4a7c15 | 1;
  do {
    jitter ^= jitter << 13;
    jitter ^= jitter >> 7;
    jitter ^= jitter << 17;
    const long turns = base_turns + static_cast<long>(jitter % static_cast<uint64_t>(base_turns));
    for (int which = 0; which < 4; ++which) x = level_01(x, turns, which);
    asm volatile("" : "+r"(x));
  } while (workload::ClockNs(end_clock) < end_ns);
  return x;
}

namespace {

void* ThreadMain(void* argument) {
  run_rounds(reinterpret_cast<uint64_t>(argument));
  return nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = workload::Number(argc, argv, "--seconds", 10);
  if (const double cpu = workload::Number(argc, argv, "--cpu-seconds", 0); cpu > 0) {
    end_clock = CLOCK_PROCESS_CPUTIME_ID;
    seconds = cpu;
  }
  base_turns = static_cast<long>(workload::Number(argc, argv, "--turns", double(base_turns)));
  const int threads = static_cast<int>(workload::Number(argc, argv, "--threads", 1));
  end_ns = workload::ClockNs(end_clock) + static_cast<uint64_t>(seconds * 1e9);
  pthread_t others[64];
  const int other_count = threads > 64 ? 64 : threads - 1;
  for (int i = 0; i < other_count; ++i) {
    pthread_create(&others[i], nullptr, ThreadMain, reinterpret_cast<void*>(uint64_t(i) + 2));
  }
  const uint64_t x = run_rounds(1);
  for (int i = 0; i < other_count; ++i) pthread_join(others[i], nullptr);
  std::fprintf(stderr, "checksum=%llx\n", static_cast<unsigned long long>(x));
  workload::PrintOwnCpu();
  return 0;
}
