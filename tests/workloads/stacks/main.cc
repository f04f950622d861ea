// SPDX-License-Identifier: Apache-2.0
#include <sys/prctl.h>
#include <time.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/workloads/common.h"
#include "tests/workloads/stacks/stacks.h"

namespace {

uint64_t end_ns = 0;

struct NamedMode {
  const char* name;
  Mode* run;
};
constexpr NamedMode kModes[] = {
    {"alloca", RunAlloca},       {"protector", RunProtector}, {"recursion", RunRecursion},
    {"realign", RunRealign},     {"longjmp", RunLongjmp},     {"coroutine", RunCoroutine},
    {"exception", RunException}, {"signal", RunSignal},       {"altstack", RunAltstack},
    {"vfork", RunVfork},         {"threads", RunThreads},     {"plt", RunPlt},
    {"resolve", RunResolve},     {"openssl", RunOpenssl},     {"zstd", RunZstd},
    {"qsort", RunQsort},         {"libc", RunLibc},
};

}  // namespace

uint64_t NowNs() { return workload::ClockNs(CLOCK_MONOTONIC); }
bool TimeLeft() { return NowNs() < end_ns; }

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODE SECONDS; modes:", argv[0]);
    for (const NamedMode& mode : kModes) std::fprintf(stderr, " %s", mode.name);
    std::fprintf(stderr, "\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  end_ns = NowNs() + static_cast<uint64_t>(std::atof(argv[2]) * 1e9);
  for (const NamedMode& mode : kModes) {
    if (std::strcmp(mode.name, argv[1]) != 0) continue;
    if (!mode.run()) {
      std::fprintf(stderr, "%s: this build has no mode %s\n", argv[0], argv[1]);
      return 3;
    }
    workload::PrintOwnCpu();
    return 0;
  }
  std::fprintf(stderr, "%s: no mode %s\n", argv[0], argv[1]);
  return 2;
}
