// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/load_allowance.h"

#include <gtest/gtest.h>

namespace firewatch::agent {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

int TakeAll(LoadAllowance& allowance, uint64_t now_ns) {
  int taken = 0;
  while (taken < 1'000 && allowance.Take(now_ns) == 0) ++taken;
  return taken;
}

TEST(LoadAllowanceTest, ABurstThenTheRate) {
  LoadAllowance allowance;
  allowance.SetRate(5);
  EXPECT_EQ(TakeAll(allowance, 100 * kSecond), 15);
  EXPECT_EQ(allowance.Take(100 * kSecond), kSecond / 5);
  EXPECT_EQ(allowance.Take(100 * kSecond + kSecond / 10), kSecond / 10);
  EXPECT_EQ(TakeAll(allowance, 101 * kSecond), 5);
  // Who waits longer than the burst has no more than it.
  EXPECT_EQ(TakeAll(allowance, 1'000 * kSecond), 15);
  // A clock that stands or goes back gives nothing.
  EXPECT_EQ(TakeAll(allowance, 900 * kSecond), 0);
}

TEST(LoadAllowanceTest, ZeroIsNoLimitAndTheSameRateNoNewBurst) {
  LoadAllowance allowance;
  allowance.SetRate(0);
  EXPECT_EQ(TakeAll(allowance, kSecond), 1'000);
  allowance.SetRate(2);
  EXPECT_EQ(TakeAll(allowance, kSecond), 6);
  allowance.SetRate(2);
  EXPECT_EQ(TakeAll(allowance, kSecond), 0);
  allowance.SetRate(3);
  EXPECT_EQ(TakeAll(allowance, kSecond), 9);
}

}  // namespace
}  // namespace firewatch::agent
