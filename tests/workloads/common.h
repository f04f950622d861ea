// SPDX-License-Identifier: Apache-2.0
// What every workload needs: its options, its clocks, and its own account of the CPU time it used,
// which is the known answer that a profile is compared with.
#pragma once

#include <sys/resource.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace workload {

// The value after `name` on the command line, or `fallback`.
inline const char* Option(int argc, char** argv, const char* name, const char* fallback) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) return argv[i + 1];
  }
  return fallback;
}
inline double Number(int argc, char** argv, const char* name, double fallback) {
  const char* text = Option(argc, argv, name, nullptr);
  return text == nullptr ? fallback : std::atof(text);
}

inline uint64_t ClockNs(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// "cpu_us=51234": user and system time of this process, all its threads, until now.
inline void PrintOwnCpu() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const long us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000 +
                  usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
  std::printf("cpu_us=%ld\n", us);
  std::fflush(stdout);
}

// Burns until the thread has used `ms` of CPU time. Not inlined: it is a frame that tests look for.
[[gnu::noinline]] inline uint64_t BurnMs(double ms, uint64_t seed) {
  const uint64_t end = ClockNs(CLOCK_THREAD_CPUTIME_ID) + static_cast<uint64_t>(ms * 1e6);
  uint64_t x = seed | 1;
  do {
    for (int i = 0; i < 20'000; ++i) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
      asm volatile("" : "+r"(x));
    }
  } while (ClockNs(CLOCK_THREAD_CPUTIME_ID) < end);
  return x;
}

}  // namespace workload
