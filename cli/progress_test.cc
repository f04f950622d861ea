// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.h"

#include <gtest/gtest.h>

namespace firewatch::cli {
namespace {

TEST(ProgressTest, BarFillsWithTheShareOfTheTime) {
  EXPECT_EQ(ProgressLine(15, 30, 3421, 2),
            "[############............]  15.0/30 s  3421 samples  2 lost");
  EXPECT_EQ(ProgressLine(31, 30, 1, 0), "[########################]  31.0/30 s  1 samples  0 lost");
}

TEST(ProgressTest, WithoutAnEndThereIsNoBar) {
  EXPECT_EQ(ProgressLine(0.2, 0, 5, 0), "/ 0.2 s  5 samples  0 lost");
}

}  // namespace
}  // namespace firewatch::cli
