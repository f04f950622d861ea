// SPDX-License-Identifier: Apache-2.0
#include "server/api/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "base/status.h"

namespace firewatch::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(HealthMonitorTest, AsksAgainOnlyWhenTheResultIsOld) {
  std::atomic<int> asked{0};
  HealthMonitor monitor(
      [&] {
        ++asked;
        return absl::OkStatus();
      },
      {.cache = milliseconds(100'000), .deadline = milliseconds(10'000)});
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(monitor.Check().ok());
  EXPECT_EQ(asked, 1);
}

TEST(HealthMonitorTest, ASlowStoreFailsManyCallersInOneDeadline) {
  std::promise<void> gate;
  std::atomic<int> asked{0};
  HealthMonitor monitor(
      [&, open = gate.get_future().share()] {
        ++asked;
        open.wait();
        return absl::OkStatus();
      },
      {.cache = milliseconds(0), .deadline = milliseconds(100)});
  const auto start = steady_clock::now();
  std::vector<std::thread> callers;
  std::atomic<int> failed{0};
  for (int i = 0; i < 20; ++i) {
    callers.emplace_back([&] {
      if (monitor.Check().code() == absl::StatusCode::kUnavailable) ++failed;
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failed, 20);
  EXPECT_EQ(asked, 1);
  // The deadline has passed: whoever comes now does not wait at all.
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(monitor.Check().ok());
  EXPECT_LT(steady_clock::now() - start, milliseconds(5'000));
  gate.set_value();
  const auto deadline = steady_clock::now() + milliseconds(10'000);
  while (!monitor.Check().ok() && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_TRUE(monitor.Check().ok());
}

TEST(HealthMonitorTest, PassesTheReasonOn) {
  HealthMonitor monitor([] { return base::ResourceExhausted("no space"); }, {});
  EXPECT_EQ(base::ToString(monitor.Check()), "RESOURCE_EXHAUSTED: no space");
}

}  // namespace
}  // namespace firewatch::server
