// SPDX-License-Identifier: Apache-2.0
// Windows for tests: random ones over a small world of binaries and functions, and plain ones with
// a chosen total.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "profile/profile.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

inline constexpr int64_t kTestEpochMs = 1'700'000'000'000;  // 2023-11-14T22:13:20Z

// A stack is a list of function names, root first; each function lives at an offset of its own in
// one binary. `detail`: 0 bare, 1 name, 2 name, file and line, 3 with an inlined line too.
struct TestStack {
  std::vector<std::string> root_first;
  int64_t samples = 1;
  int detail = 2;
  std::string thread = {};  // a sample label; "" for none
};
// cpu = samples × period of 10 ms.
profile::Profile MakeTestProfile(const std::vector<TestStack>& stacks);

// One window of one service with one stack.
WindowBatch MakeTestWindow(uint64_t sequence, int64_t start_ms, std::string_view service,
                           int64_t samples);

// To 10.0.0.`peer`, a million bytes sent per connection.
ConnectionEdge MakeTestEdge(uint8_t peer, uint16_t port, uint64_t connections);

// A window of one service with connections alone.
WindowBatch MakeTestConnections(uint64_t sequence, int64_t start_ms, std::string_view service,
                                std::vector<ConnectionEdge> edges);

// Random windows of several services; the same seed gives the same ones.
class RandomWindows {
 public:
  explicit RandomWindows(uint64_t seed) : random_(seed), of_connections_(~seed) {}
  // Starts within `spread_ms` after kTestEpochMs.
  WindowBatch Next(int64_t spread_ms);

 private:
  std::vector<ConnectionEdge> NextEdges();
  int Below(int bound) { return static_cast<int>(random_() % static_cast<uint64_t>(bound)); }
  // The profiles of a seed are the same whatever is drawn for connections.
  int Draw(int bound) { return static_cast<int>(of_connections_() % static_cast<uint64_t>(bound)); }
  std::mt19937_64 random_, of_connections_;
  uint64_t sequence_ = 0;
};

// "root;caller;leaf {labels} samples cpu" per sample, sorted: equal for equal profiles whatever
// their ids. A bare frame is "binary+0xoffset"; inlined lines are joined by '<'.
std::vector<std::string> DescribeSamples(const profile::Profile& profile);

}  // namespace firewatch::server
