// SPDX-License-Identifier: Apache-2.0
// What the embedded store costs. Workloads:
//   Append   one window of 10 services, 107 samples each, 4,000 distinct stacks of depth 40 in all;
//            synced to disk each time (wall time is the disk's; look at CPU)
//   Merge    1,000 stored windows (10,000 profiles, 1.07 M samples): one service, and all
//   Series   the time line of the same, 10 s steps
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <random>

#include "base/check.h"
#include "server/store/embedded/embedded_store.h"
#include "server/store/embedded/test_directory.h"
#include "server/store/test_windows.h"

namespace firewatch::server {
namespace {

constexpr int kServices = 10;
constexpr int kStacks = 4'000;
constexpr int kSamplesPerService = 107;
constexpr int kWindows = 1'000;

std::vector<std::string> StackOf(uint64_t number) {
  std::mt19937_64 random(number);
  std::vector<std::string> frames = {"main"};
  for (int depth = 0; depth < 39; ++depth) {
    frames.push_back(fmt::format("ns::Class{}::function", random() % 2'000));
  }
  return frames;
}

WindowBatch BenchWindow(uint64_t sequence) {
  std::mt19937_64 random(sequence);
  WindowBatch batch;
  batch.upload = {.agent_id = std::string(16, 'a'), .sequence = sequence};
  const int64_t start_ms = kTestEpochMs + static_cast<int64_t>(sequence) * 3'000;
  batch.window = {.from_ms = start_ms, .to_ms = start_ms + 10'000};
  batch.node = "node-1";
  for (int service = 0; service < kServices; ++service) {
    std::vector<TestStack> stacks;
    for (int i = 0; i < kSamplesPerService; ++i) {
      stacks.push_back({.root_first = StackOf(random() % kStacks),
                        .samples = 1 + static_cast<int64_t>(random() % 5)});
    }
    batch.series.push_back(
        {.labels = profile::LabelSet(
             {{"node", "node-1"}, {"service", fmt::format("service-{}", service)}}),
         .profile = MakeTestProfile(stacks)});
  }
  return batch;
}

// The windows, made once; and a store that holds them.
struct World {
  World() {
    for (uint64_t i = 0; i < kWindows; ++i) windows.push_back(BenchWindow(i));
    store = OpenEmbeddedStore({.directory = directory.path(),
                               .retention_hours = 0,
                               .retention_bytes = 0,
                               .min_free_bytes = 0},
                              clock, metrics)
                .value();
    for (const WindowBatch& window : windows) {
      bool duplicate = false;
      CHECK(store->Append(window, &duplicate).ok());
    }
  }
  TestDirectory directory;
  base::SystemClock clock;
  base::MetricsRegistry metrics;
  std::unique_ptr<ProfileStore> store;
  std::vector<WindowBatch> windows;
};

World& TheWorld() {
  static World world;
  return world;
}

Query QueryOf(std::string_view selector) {
  Query query;
  query.range = {.from_ms = 0, .to_ms = INT64_MAX};
  query.selector = profile::ParseSelector(selector).value();
  return query;
}

void Append(benchmark::State& state) {
  World& world = TheWorld();
  uint64_t sequence = kWindows;
  for (auto _ : state) {
    // Same content, new id and time: 3 s apart, so hours go by.
    WindowBatch& window = world.windows[sequence % kWindows];
    window.upload.sequence = ++sequence;
    window.upload.agent_id = std::string(16, 'b');
    window.window.from_ms = kTestEpochMs + static_cast<int64_t>(sequence) * 3'000;
    window.window.to_ms = window.window.from_ms + 10'000;
    bool duplicate = false;
    window.tenant.value = "bench";
    CHECK(world.store->Append(window, &duplicate).ok());
  }
  state.counters["profiles"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * kServices, benchmark::Counter::kIsRate);
}
BENCHMARK(Append)->Unit(benchmark::kMicrosecond)->MeasureProcessCPUTime();

void Merge(benchmark::State& state, std::string_view selector, int services) {
  World& world = TheWorld();
  const Query query = QueryOf(selector);
  size_t samples = 0;
  for (auto _ : state) samples = world.store->Merge(query).value().samples.size();
  state.counters["profiles"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * kWindows * services, benchmark::Counter::kIsRate);
  state.counters["stacks"] = static_cast<double>(samples);
}
BENCHMARK_CAPTURE(Merge, all, "", kServices)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Merge, one_service, "{service=\"service-3\"}", 1)->Unit(benchmark::kMillisecond);

void Series(benchmark::State& state) {
  World& world = TheWorld();
  const Query query = QueryOf("");
  for (auto _ : state) benchmark::DoNotOptimize(world.store->Series(query, 10'000).value());
}
BENCHMARK(Series)->Unit(benchmark::kMillisecond);

void DiskBytes(benchmark::State& state) {
  World& world = TheWorld();
  for (auto _ : state) benchmark::DoNotOptimize(world.store->Stats().value());
  state.counters["bytes_per_profile"] =
      static_cast<double>(world.store->Stats().value().disk_bytes) /
      static_cast<double>(world.metrics.AddCounter("firewatch_store_profiles_total", "").value());
}
BENCHMARK(DiskBytes)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace firewatch::server
