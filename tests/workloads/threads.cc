// SPDX-License-Identifier: Apache-2.0
// Threads with names ("worker-1", "worker-2", …) that all burn: samples carry the thread's name.
#include <pthread.h>

#include "tests/workloads/common.h"

namespace {

double seconds = 10;

void* ThreadMain(void* argument) {
  const uint64_t number = reinterpret_cast<uint64_t>(argument);
  char name[16];
  std::snprintf(name, sizeof(name), "worker-%u", static_cast<unsigned>(number));
  pthread_setname_np(pthread_self(), name);
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  uint64_t x = number;
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) x = workload::BurnMs(1, x);
  return reinterpret_cast<void*>(x);
}

}  // namespace

int main(int argc, char** argv) {
  seconds = workload::Number(argc, argv, "--seconds", seconds);
  const int count = static_cast<int>(workload::Number(argc, argv, "--threads", 3));
  pthread_t threads[64];
  const int started = count > 64 ? 64 : count;
  for (int i = 0; i < started; ++i) {
    pthread_create(&threads[i], nullptr, ThreadMain, reinterpret_cast<void*>(uint64_t(i) + 1));
  }
  for (int i = 0; i < started; ++i) pthread_join(threads[i], nullptr);
  workload::PrintOwnCpu();
  return 0;
}
