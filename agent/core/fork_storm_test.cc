// SPDX-License-Identifier: Apache-2.0
// A minute of 5,000 forks a second, replayed: the table must not grow by more than 8 MiB. Memory is
// counted by this binary's operator new, so the answer is the same under every allocator and
// sanitizer: bytes asked for and not given back.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "agent/core/process_table.h"
#include "symbolizer/testing/fake_symbolizer.h"

namespace {

std::atomic<int64_t> g_live_bytes{0};

void* Allocate(size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  g_live_bytes.fetch_add(static_cast<int64_t>(::malloc_usable_size(memory)),
                         std::memory_order_relaxed);
  return memory;
}

void Release(void* memory) {
  g_live_bytes.fetch_sub(static_cast<int64_t>(::malloc_usable_size(memory)),
                         std::memory_order_relaxed);
  std::free(memory);
}

}  // namespace

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void operator delete(void* memory) noexcept { Release(memory); }
void operator delete[](void* memory) noexcept { Release(memory); }
void operator delete(void* memory, size_t) noexcept { Release(memory); }
void operator delete[](void* memory, size_t) noexcept { Release(memory); }

namespace firewatch::agent {

using symbolizer::FakeSymbolizer;
namespace {

constexpr uint64_t kForks = 300'000;
constexpr uint64_t kNsPerFork = 200'000;
constexpr uint32_t kShell = 10;

ProcessEvent Event(ProcessEventKind kind, uint32_t pid, uint64_t time_ns) {
  ProcessEvent event{.kind = kind, .time_ns = time_ns, .pid = Pid{pid}, .parent = Pid{kShell}};
  event.tid = pid;
  return event;
}

// A shell with 200 mappings: copying them per fork would show.
void StartShell(ProcessTable& table) {
  ProcessEvent exec = Event(ProcessEventKind::kExec, kShell, 1);
  exec.comm = "a-shell-of-some-size";
  table.Apply(exec);
  for (uint64_t i = 0; i < 200; ++i) {
    ProcessEvent mmap = Event(ProcessEventKind::kMmap, kShell, 2 + i);
    mmap.start = 0x7f0000000000 + i * 0x10000;
    mmap.end = mmap.start + 0x8000;
    mmap.file.path = "/usr/lib/x86_64-linux-gnu/library-" + std::to_string(i) + ".so";
    table.Apply(mmap);
  }
}

struct Storm {
  int64_t growth_bytes = 0;
  size_t largest_size = 0;
};

// Every fork lives for 32 others. Pids come round as
// the kernel's do.
Storm Replay(ProcessTable& table, bool sampled) {
  StartShell(table);
  const int64_t before = g_live_bytes.load();
  Storm storm;
  for (uint64_t i = 0; i < kForks; ++i) {
    const uint64_t now = 1'000'000 + i * kNsPerFork;
    const auto pid_of = [](uint64_t n) { return static_cast<uint32_t>(100 + n % 32'000); };
    table.Apply(Event(ProcessEventKind::kFork, pid_of(i), now));
    ProcessEvent comm = Event(ProcessEventKind::kComm, pid_of(i), now + 1);
    comm.comm = "child";
    table.Apply(comm);
    if (sampled && i % 100 == 0) table.ForSample(Pid{pid_of(i)}, now + 2, "child", 0, false);
    if (i >= 32) table.Apply(Event(ProcessEventKind::kExit, pid_of(i - 32), now + 3));
    if (i % 1000 == 0) {
      storm.growth_bytes = std::max(storm.growth_bytes, g_live_bytes.load() - before);
      storm.largest_size = std::max(storm.largest_size, table.size());
    }
  }
  return storm;
}

class ForkStormTest : public ::testing::Test {
 protected:
  ProcessTable Make() {
    return ProcessTable({.proc_root = "/nonexistent", .cgroup_root = "/nonexistent", .node = "n"},
                        symbolizer_, metrics_);
  }
  FakeSymbolizer symbolizer_;
  base::MetricsRegistry metrics_;
};

TEST_F(ForkStormTest, GrowsTheTableByLessThanEightMebibytes) {
  ProcessTable table = Make();
  const Storm storm = Replay(table, /*sampled=*/false);
  RecordProperty("growth_kib", static_cast<int>(storm.growth_bytes / 1024));
  EXPECT_LE(storm.growth_bytes, int64_t{8} << 20);
  EXPECT_GT(storm.growth_bytes, 100'000);  // the counter counts
  EXPECT_LE(storm.largest_size, 2'048u + 40);
}

TEST_F(ForkStormTest, GrowsNoMoreWhenEveryHundredthChildIsSampled) {
  ProcessTable table = Make();
  const Storm storm = Replay(table, /*sampled=*/true);
  RecordProperty("growth_kib", static_cast<int>(storm.growth_bytes / 1024));
  EXPECT_LE(storm.growth_bytes, int64_t{8} << 20);
}

TEST_F(ForkStormTest, EverythingIsGivenBackAfterTheLastWindow) {
  ProcessTable table = Make();
  Replay(table, /*sampled=*/true);
  table.Expire(UINT64_MAX);
  EXPECT_LE(table.size(), 1u + 32);
}

}  // namespace
}  // namespace firewatch::agent
