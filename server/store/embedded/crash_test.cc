// SPDX-License-Identifier: Apache-2.0
// kill -9 at any moment: what was acknowledged is there afterwards, once, and exact.
//
// The binary starts itself as a child that appends windows with unique totals and writes the number
// of each to a pipe once it is acknowledged. The child is killed at a random moment, a hundred
// times on one store. Each new child first sends again what the last one was at, and some older
// windows, as an agent does that missed the answer.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "server/store/embedded/embedded_store.h"
#include "server/store/embedded/test_directory.h"
#include "server/store/test_windows.h"

namespace firewatch::server {
namespace {

constexpr int kKills = 100;

// Unique per window, so that one that is lost or counted twice shows in the sums; small enough that
// the sum of 40,000 windows in nanoseconds fits into an int64.
int64_t TotalOf(uint64_t number) { return static_cast<int64_t>(1'009 * (number + 1)); }
int64_t StartOf(uint64_t number) { return kTestEpochMs + static_cast<int64_t>(number) * 1000; }

WindowBatch NumberedWindow(uint64_t number) {
  WindowBatch window = MakeTestWindow(number, StartOf(number), "crash", TotalOf(number));
  // Some stacks are new with every window, some are shared.
  window.series[0].profile = MakeTestProfile(
      {{.root_first = {"main", "shared"}, .samples = TotalOf(number) - 1},
       {.root_first = {"main", fmt::format("only_{}", number % 50)}, .samples = 1}});
  // As many connections as samples: one is never there without the other.
  window.connections.push_back(
      {.labels = window.series[0].labels,
       .edges = {MakeTestEdge(1, 80, static_cast<uint64_t>(TotalOf(number)))}});
  return window;
}

absl::StatusOr<std::unique_ptr<ProfileStore>> Open(const std::string& directory,
                                                   const base::Clock& clock,
                                                   base::MetricsRegistry& metrics) {
  return OpenEmbeddedStore({.directory = directory,
                            .retention_hours = 0,
                            .retention_bytes = 0,
                            .cache_bytes = uint64_t{8} << 20,
                            .min_free_bytes = 0},
                           clock, metrics);
}

// Appends from `first` on until it is killed. Exits with 3 when the store misbehaves.
int AppendUntilKilled(const std::string& directory, uint64_t first) {
  const base::SystemClock clock;
  base::MetricsRegistry metrics;
  auto store = Open(directory, clock, metrics);
  if (!store.ok()) {
    fmt::print(stderr, "child: {}\n", base::ToString(store.status()));
    return 3;
  }
  for (uint64_t number = first < 3 ? 0 : first - 3;; ++number) {
    bool duplicate = false;
    const absl::Status status = (*store)->Append(NumberedWindow(number), &duplicate);
    // Those before `first` were acknowledged to the child before.
    if (!status.ok() || (number < first && !duplicate) || (number > first && duplicate)) {
      fmt::print(stderr, "child: window {}: {}, duplicate {}\n", number, base::ToString(status),
                 duplicate);
      return 3;
    }
    if (write(STDOUT_FILENO, &number, sizeof number) != sizeof number) return 4;
  }
}

struct Child {
  pid_t pid = -1;
  base::UniqueFd acknowledgements;
};

Child StartChild(const std::string& directory, uint64_t first) {
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  const base::UniqueFd write_end(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDOUT_FILENO);
  const std::string number = std::to_string(first);
  const char* arguments[] = {"store_crash_test", "--append-until-killed", directory.c_str(),
                             number.c_str(), nullptr};
  Child child;
  CHECK(posix_spawn(&child.pid, "/proc/self/exe", &actions, nullptr,
                    const_cast<char* const*>(arguments), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  child.acknowledgements.Reset(ends[0]);
  return child;
}

// Kills while the store is being opened, or a random while after the first new acknowledgement, and
// returns the numbers that were acknowledged by then.
std::set<uint64_t> KillSoon(Child child, uint64_t first, std::mt19937& random) {
  std::set<uint64_t> acknowledged;
  uint64_t number = 0;
  if (random() % 4 != 0) {
    while (read(child.acknowledgements.get(), &number, sizeof number) == sizeof number) {
      acknowledged.insert(number);
      if (number >= first) break;
    }
  }
  std::this_thread::sleep_for(std::chrono::microseconds(random() % 30'000));
  kill(child.pid, SIGKILL);
  while (read(child.acknowledgements.get(), &number, sizeof number) == sizeof number) {
    acknowledged.insert(number);
  }
  int status = 0;
  waitpid(child.pid, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
  return acknowledged;
}

TEST(CrashTest, NothingAcknowledgedIsLostOrDoubledInAHundredKills) {
  const TestDirectory directory;
  std::mt19937 random(20'231'114);
  std::set<uint64_t> acknowledged;
  for (int i = 0; i < kKills && !HasFailure(); ++i) {
    const uint64_t first = acknowledged.empty() ? 0 : *acknowledged.rbegin() + 1;
    acknowledged.merge(KillSoon(StartChild(directory.path(), first), first, random));
  }
  ASSERT_FALSE(HasFailure());
  ASSERT_GE(acknowledged.size(), size_t{kKills} / 2);

  const base::SystemClock clock;
  base::MetricsRegistry metrics;
  auto store = Open(directory.path(), clock, metrics);
  ASSERT_TRUE(store.ok()) << base::ToString(store.status());
  Query query;
  query.range = {.from_ms = 0, .to_ms = INT64_MAX};
  query.sample_type = "samples";
  const auto series = (*store)->Series(query, 1000);
  ASSERT_TRUE(series.ok()) << base::ToString(series.status());
  ASSERT_EQ(series->size(), 1U);
  std::map<int64_t, int64_t> points(series->at(0).points.begin(), series->at(0).points.end());
  for (const uint64_t number : acknowledged) {
    EXPECT_EQ(points[StartOf(number)], TotalOf(number)) << "window " << number;
  }
  // Beside them there is at most the one that the last child had not been told about.
  EXPECT_LE(points.size(), acknowledged.size() + 1);

  const auto merged = (*store)->Merge(query);
  ASSERT_TRUE(merged.ok()) << base::ToString(merged.status());
  int64_t total = 0;
  for (const auto& sample : merged->samples) total += sample.values[0];
  EXPECT_EQ(total, series->at(0).total);
  const auto connections = (*store)->Connections(query);
  ASSERT_TRUE(connections.ok()) << base::ToString(connections.status());
  EXPECT_EQ(connections->windows, points.size());
  ASSERT_EQ(connections->rows.size(), 1U);
  EXPECT_EQ(connections->rows[0].edge.counts.opened, static_cast<uint64_t>(total));
  fmt::print("{} windows acknowledged, {} stored, total {}\n", acknowledged.size(), points.size(),
             total);
}

}  // namespace
}  // namespace firewatch::server

int main(int argc, char** argv) {
  if (argc == 4 && std::string_view(argv[1]) == "--append-until-killed") {
    return firewatch::server::AppendUntilKilled(argv[2], std::strtoull(argv[3], nullptr, 10));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
