// SPDX-License-Identifier: Apache-2.0
// Programs whose stacks are known and hard to unwind: `workload_stacks_BUILD MODE SECONDS`.
// Each mode spends its time in a function MODE_leaf (or in a library) below a chain of named
// functions that tests/stacks/chains.py knows. Built without frame pointers, by several compilers.
#pragma once

#include <cstdint>

// A frame that stays one: never inlined, and KEEP_FRAME after its last call makes a tail call
// impossible. C names, so that every compiler writes the same symbol.
#define FRAME extern "C" __attribute__((noinline)) void
#define KEEP_FRAME asm volatile("" ::: "memory")

// Work of the CPU in registers, for that many microseconds by the clock. Inlined into its leaf, so
// that the leaf has nothing on the stack between looks at the clock.
uint64_t NowNs();
inline __attribute__((always_inline)) void SpinUs(uint64_t us) {
  const uint64_t end = NowNs() + us * 1000;
  uint64_t x = end | 1;
  do {
    for (int i = 0; i < 5'000; ++i) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
      asm volatile("" : "+r"(x));
    }
  } while (NowNs() < end);
}

// False once the time given on the command line is over.
bool TimeLeft();

// For numbers that no compiler may see through.
template <typename T>
inline T Opaque(T value) {
  asm volatile("" : "+r"(value));
  return value;
}
inline void Use(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

// A mode runs until TimeLeft() is false; false when this build does not have it.
using Mode = bool();
Mode RunAlloca, RunProtector, RunRecursion, RunRealign, RunLongjmp, RunCoroutine;  // frames.cc
Mode RunException, RunSignal, RunAltstack, RunVfork, RunThreads;                   // control.cc
Mode RunPlt, RunResolve, RunOpenssl, RunZstd, RunQsort, RunLibc;                   // libraries.cc
