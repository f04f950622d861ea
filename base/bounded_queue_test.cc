// SPDX-License-Identifier: Apache-2.0
#include "base/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <thread>
#include <vector>

namespace firewatch::base {
namespace {

TEST(BoundedQueueTest, RefusesWhenFullAndLeavesTheItem) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  ASSERT_TRUE(queue.TryPush(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  EXPECT_FALSE(queue.TryPush(std::move(second)));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(*second, 2);
}

TEST(BoundedQueueTest, DrainsAfterCloseThenEnds) {
  BoundedQueue<int> queue(4);
  ASSERT_TRUE(queue.TryPush(7));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(8));
  EXPECT_EQ(queue.Pop(), 7);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueueTest, PopForGivesUpAfterTheTimeout) {
  BoundedQueue<int> queue(4);
  EXPECT_EQ(queue.PopFor(std::chrono::milliseconds(1)), std::nullopt);
}

TEST(BoundedQueueTest, EveryItemOfEveryProducerArrivesOnce) {
  BoundedQueue<int> queue(10'000);
  std::vector<std::thread> producers;
  for (int p = 0; p < 4; ++p) {
    producers.emplace_back([&queue, p] {
      for (int i = 0; i < 1000; ++i) ASSERT_TRUE(queue.TryPush(p * 1000 + i));
    });
  }
  for (auto& producer : producers) producer.join();
  queue.Close();
  std::vector<int> seen(4000, 0);
  while (auto item = queue.Pop()) ++seen[static_cast<size_t>(*item)];
  EXPECT_EQ(seen, std::vector<int>(4000, 1));
}

}  // namespace
}  // namespace firewatch::base
