// SPDX-License-Identifier: Apache-2.0
#include "agent/core/thread_meter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>

namespace firewatch::agent {
namespace {

constexpr uint64_t kMsNs = 1'000'000;

uint64_t ThreadNs() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

void Burn(uint64_t ns) {
  for (const uint64_t end = ThreadNs() + ns; ThreadNs() < end;) {
  }
}

TEST(ThreadMeterTest, CountsOnlyWhatIsInsideItsScopes) {
  ThreadMeter meter;
  Burn(20 * kMsNs);
  {
    const ThreadMeter::Scope scope(meter);
    Burn(30 * kMsNs);
  }
  Burn(20 * kMsNs);
  EXPECT_GE(meter.CpuNs(), 30 * kMsNs);
  EXPECT_LT(meter.CpuNs(), 36 * kMsNs);
}

TEST(ThreadMeterTest, ThreadThatRunsIsCountedAndStaysCountedAfterItsEnd) {
  ThreadMeter meter;
  std::atomic<bool> burnt{false}, stop{false};
  std::thread thread([&] {
    const ThreadMeter::Scope scope(meter);
    Burn(20 * kMsNs);
    burnt = true;
    burnt.notify_all();
    stop.wait(false);
  });
  burnt.wait(false);
  const uint64_t living = meter.CpuNs();
  EXPECT_GE(living, 20 * kMsNs);
  stop = true;
  stop.notify_all();
  thread.join();
  EXPECT_GE(meter.CpuNs(), living);
  EXPECT_LT(meter.CpuNs(), living + 10 * kMsNs);
}

}  // namespace
}  // namespace firewatch::agent
