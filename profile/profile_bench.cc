// SPDX-License-Identifier: Apache-2.0
// What a profile costs. The synthetic profile: 2,748 samples of depth 20 to 60 over 5,000
// functions and 14,905 locations, drawn from 5,996 distinct stacks (the mean of the thousand files
// that `go tool pprof` was measured with); about a megabyte raw. "Window" is what an agent makes
// every 10 s: 1,000 stacks of 60 frames, added once by the builder.
//   profile_bench --benchmark_filter=Read
//   FIREWATCH_BENCH_FOLDER=DIR profile_bench --benchmark_filter=WriteFiles   100 files for go's
//   tool
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <random>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "profile/builder.h"
#include "profile/flame_codec.h"
#include "profile/flame_tree.h"
#include "profile/merge.h"
#include "profile/pprof_codec.h"

namespace firewatch::profile {
namespace {

constexpr uint32_t kFunctions = 5000;
constexpr uint32_t kLocations = 14'905;
constexpr uint32_t kStacks = 5996;

// The fleet that all profiles are drawn from: the same for every file.
struct World {
  World() {
    std::mt19937 random(42);
    for (uint32_t i = 0; i < kFunctions; ++i) {
      names.push_back(fmt::format("ns{}::Class{:x}::Method{:x}(std::string const&, int)", i % 40,
                                  random(), random()));
    }
    for (uint32_t i = 0; i < kLocations; ++i) function_of.push_back(random() % kFunctions);
    for (uint32_t i = 0; i < kStacks; ++i) {
      std::vector<uint32_t>& stack = stacks.emplace_back(20 + random() % 41);
      for (uint32_t& location : stack) location = static_cast<uint32_t>(random() % kLocations);
      // Outer frames are shared, as in life.
      for (size_t j = 0; j < 10; ++j) stack[stack.size() - 1 - j] = (i % 7) * 10 + uint32_t(j);
    }
  }
  std::vector<std::string> names;
  std::vector<uint64_t> function_of;
  std::vector<std::vector<uint32_t>> stacks;
};

const World& TheWorld() {
  static const World world;
  return world;
}

Profile MakeProfile(uint32_t seed, uint32_t samples = 2748) {
  const World& world = TheWorld();
  std::mt19937 random(seed);
  ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  const MappingId mapping = builder.AddMapping({.file = builder.AddString("/usr/bin/app"),
                                                .build_id = builder.AddString("deadbeef00112233"),
                                                .memory_limit = 0x1000000});
  std::vector<FunctionId> functions;
  for (uint32_t i = 0; i < kFunctions; ++i) {
    functions.push_back(
        builder.AddFunction(world.names[i], world.names[i], fmt::format("src/{}.cc", i % 900), 10));
  }
  std::vector<LocationId> locations;
  for (uint32_t i = 0; i < kLocations; ++i) {
    Location location{
        .mapping = mapping, .address = 0x1000 + 16 * i, .kind = LocationKind::kNative};
    location.lines = {{.function = functions[world.function_of[i]], .line = i % 500}};
    locations.push_back(builder.AddLocation(location));
  }
  std::vector<LocationId> stack;
  for (uint32_t i = 0; i < samples; ++i) {
    stack.clear();
    const auto which = static_cast<uint32_t>(random() % kStacks);
    for (const uint32_t location : world.stacks[which]) {
      stack.push_back(locations[location]);
    }
    const int64_t values[] = {1, 10'101'010};
    const LabelSetId thread =
        builder.AddLabelSet(LabelSet({{"thread", fmt::format("worker-{}", which % 50)}}));
    builder.AddSample(builder.AddStack(stack), thread, values);
  }
  builder.profile().period_type = {"cpu", "nanoseconds"};
  builder.profile().period = 10'101'010;
  builder.profile().duration_ns = 10'000'000'000;
  return builder.Finish();
}

std::string Bytes(const Profile& profile, Compression compression, int level = 0) {
  return WritePprof(profile, compression, level).value();
}

void ReadBench(benchmark::State& state, Compression compression) {
  const Profile profile = MakeProfile(1);
  const std::string bytes = Bytes(profile, compression);
  const size_t raw = Bytes(profile, Compression::kNone).size();
  for (auto _ : state) benchmark::DoNotOptimize(ReadPprof(bytes).value());
  // The rate is of raw bytes, whatever the container.
  state.SetBytesProcessed(static_cast<int64_t>(raw) * state.iterations());
  state.counters["bytes"] = static_cast<double>(bytes.size());
}
BENCHMARK_CAPTURE(ReadBench, raw, Compression::kNone)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ReadBench, gzip, Compression::kGzip)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ReadBench, zstd, Compression::kZstd)->Unit(benchmark::kMillisecond);

void WriteBench(benchmark::State& state, Compression compression, int level) {
  const Profile profile = MakeProfile(1);
  const size_t raw = Bytes(profile, Compression::kNone).size();
  for (auto _ : state) benchmark::DoNotOptimize(Bytes(profile, compression, level));
  state.SetBytesProcessed(static_cast<int64_t>(raw) * state.iterations());
}
BENCHMARK_CAPTURE(WriteBench, raw, Compression::kNone, 0)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(WriteBench, gzip1, Compression::kGzip, 1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(WriteBench, zstd3, Compression::kZstd, 3)->Unit(benchmark::kMillisecond);

// The agent's hot path at its worst: every frame of every stack by name. WindowOfLocationsBench
// keeps the location of an address, as the agent does.
void WindowBench(benchmark::State& state) {
  const World& world = TheWorld();
  const auto stacks = static_cast<uint32_t>(state.range(0));
  for (auto _ : state) {
    ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
    const MappingId mapping = builder.AddMapping({.file = builder.AddString("/usr/bin/app"),
                                                  .build_id = builder.AddString("deadbeef"),
                                                  .memory_limit = 0x1000000});
    std::vector<LocationId> stack;
    Location location{.mapping = mapping, .kind = LocationKind::kNative};
    for (uint32_t i = 0; i < stacks; ++i) {
      stack.clear();
      for (uint32_t j = 0; j < 60; ++j) {
        const uint32_t which = j < 50 ? world.stacks[i % 50][j % 20] : (i * 31 + j) % kLocations;
        const std::string& name = world.names[world.function_of[which]];
        location.address = 0x1000 + 16 * which;
        location.lines.assign(1, {.function = builder.AddFunction(name, name, "src/a.cc")});
        stack.push_back(builder.AddLocation(location));
      }
      const int64_t values[] = {1, 10'101'010};
      builder.AddSample(builder.AddStack(stack), LabelSetId(), values);
    }
    benchmark::DoNotOptimize(Bytes(builder.Finish(), Compression::kNone));
  }
  state.SetItemsProcessed(stacks * state.iterations());
}
void WindowOfLocationsBench(benchmark::State& state) {
  const World& world = TheWorld();
  const auto stacks = static_cast<uint32_t>(state.range(0));
  for (auto _ : state) {
    ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
    const MappingId mapping = builder.AddMapping({.file = builder.AddString("/usr/bin/app"),
                                                  .build_id = builder.AddString("deadbeef"),
                                                  .memory_limit = 0x1000000});
    absl::flat_hash_map<uint64_t, LocationId> location_of;
    std::vector<LocationId> stack;
    for (uint32_t i = 0; i < stacks; ++i) {
      stack.clear();
      for (uint32_t j = 0; j < 60; ++j) {
        const uint32_t which = j < 50 ? world.stacks[i % 50][j % 20] : (i * 31 + j) % kLocations;
        const auto [it, added] = location_of.try_emplace(0x1000 + 16 * which);
        if (added) {
          const std::string& name = world.names[world.function_of[which]];
          Location location{
              .mapping = mapping, .address = it->first, .kind = LocationKind::kNative};
          location.lines.assign(1, {.function = builder.AddFunction(name, name, "src/a.cc")});
          it->second = builder.AddLocation(location);
        }
        stack.push_back(it->second);
      }
      const int64_t values[] = {1, 10'101'010};
      builder.AddSample(builder.AddStack(stack), LabelSetId(), values);
    }
    benchmark::DoNotOptimize(Bytes(builder.Finish(), Compression::kNone));
  }
  state.SetItemsProcessed(stacks * state.iterations());
}
BENCHMARK(WindowOfLocationsBench)->Arg(200)->Arg(2000)->Unit(benchmark::kMicrosecond);
BENCHMARK(WindowBench)->Arg(200)->Arg(2000)->Unit(benchmark::kMicrosecond);

void MergeFilesBench(benchmark::State& state) {
  std::vector<std::string> files;
  size_t raw = 0;
  for (uint32_t i = 0; i < 100; ++i) {
    const Profile profile = MakeProfile(i);
    files.push_back(Bytes(profile, Compression::kGzip, 1));
    raw += Bytes(profile, Compression::kNone).size();
  }
  size_t merged_bytes = 0;
  for (auto _ : state) {
    ProfileMerger merger;
    for (const std::string& file : files) CHECK(merger.Add(ReadPprof(file).value()).ok());
    merged_bytes = Bytes(merger.Finish(), Compression::kGzip).size();
  }
  state.SetBytesProcessed(static_cast<int64_t>(raw) * state.iterations());
  state.counters["merged"] = static_cast<double>(merged_bytes);
}
BENCHMARK(MergeFilesBench)->Unit(benchmark::kMillisecond);

void MergeBench(benchmark::State& state) {
  std::vector<Profile> profiles;
  for (uint32_t i = 0; i < 20; ++i) profiles.push_back(MakeProfile(i));
  for (auto _ : state) {
    ProfileMerger merger;
    for (const Profile& profile : profiles) CHECK(merger.Add(profile).ok());
    benchmark::DoNotOptimize(merger.Finish());
  }
  state.SetItemsProcessed(20 * 2748 * state.iterations());
}
BENCHMARK(MergeBench)->Unit(benchmark::kMillisecond);

Profile MergedProfile() {
  ProfileMerger merger;
  for (uint32_t i = 0; i < 20; ++i) CHECK(merger.Add(MakeProfile(i)).ok());
  return merger.Finish();
}

void FlameTreeBench(benchmark::State& state) {
  const Profile profile = MergedProfile();
  size_t nodes = 0;
  for (auto _ : state) {
    const FlameTree tree =
        BuildFlameTree(profile, {.max_nodes = static_cast<uint32_t>(state.range(0))});
    nodes = tree.size();
    benchmark::DoNotOptimize(EncodeFlameTree(tree));
  }
  state.counters["nodes"] = static_cast<double>(nodes);
}
BENCHMARK(FlameTreeBench)->Arg(0)->Arg(20'000)->Unit(benchmark::kMillisecond);

void TopFunctionsBench(benchmark::State& state) {
  const Profile profile = MergedProfile();
  for (auto _ : state) benchmark::DoNotOptimize(TopFunctions(profile, 1, 100));
}
BENCHMARK(TopFunctionsBench)->Unit(benchmark::kMillisecond);

void WriteFiles(benchmark::State& state) {
  const char* folder = std::getenv("FIREWATCH_BENCH_FOLDER");
  if (folder == nullptr) {
    state.SkipWithError("FIREWATCH_BENCH_FOLDER is not set");
    return;
  }
  for (auto _ : state) {
    for (uint32_t i = 0; i < 100; ++i) {
      std::ofstream(fmt::format("{}/{}.pb.gz", folder, i), std::ios::binary)
          << Bytes(MakeProfile(i), Compression::kGzip, 1);
    }
  }
}
BENCHMARK(WriteFiles)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace firewatch::profile
