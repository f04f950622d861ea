// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"

#include <time.h>

namespace firewatch::base {
namespace {

int64_t ReadNs(clockid_t id) {
  timespec value{};
  ::clock_gettime(id, &value);
  return static_cast<int64_t>(value.tv_sec) * 1'000'000'000 + value.tv_nsec;
}

}  // namespace

WallTime SystemClock::Now() const { return {.unix_ns = ReadNs(CLOCK_REALTIME)}; }

uint64_t SystemClock::MonotonicNs() const { return static_cast<uint64_t>(ReadNs(CLOCK_MONOTONIC)); }

}  // namespace firewatch::base
