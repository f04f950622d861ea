// SPDX-License-Identifier: Apache-2.0
// Time comes in through a constructor, so tests and replays choose it.
#pragma once

#include <compare>
#include <cstdint>

namespace firewatch::base {

// Nanoseconds since the Unix epoch.
struct WallTime {
  int64_t unix_ns = 0;
  int64_t unix_ms() const { return unix_ns / 1'000'000; }
  friend auto operator<=>(const WallTime&, const WallTime&) = default;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime Now() const = 0;
  // CLOCK_MONOTONIC, the clock of BPF's ktime and of our perf events. Nanoseconds since boot.
  virtual uint64_t MonotonicNs() const = 0;
};

// The machine's clocks.
class SystemClock final : public Clock {
 public:
  WallTime Now() const override;
  uint64_t MonotonicNs() const override;
};

// Stands still until told otherwise.
class FakeClock final : public Clock {
 public:
  FakeClock(WallTime now, uint64_t monotonic_ns) : now_(now), monotonic_ns_(monotonic_ns) {}
  WallTime Now() const override { return now_; }
  uint64_t MonotonicNs() const override { return monotonic_ns_; }
  void AdvanceNs(uint64_t ns) {
    now_.unix_ns += static_cast<int64_t>(ns);
    monotonic_ns_ += ns;
  }

 private:
  WallTime now_;
  uint64_t monotonic_ns_;
};

}  // namespace firewatch::base
