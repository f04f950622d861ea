// SPDX-License-Identifier: Apache-2.0
// Unwind tables in real maps, and the whole way from a child without frame pointers to stacks that
// end at their root.
#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "agent/cpu/bpf_table_memory.h"
#include "agent/cpu/fake_table_memory.h"
#include "agent/cpu/profiler.h"
#include "agent/cpu/table_store.h"
#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

// The maps of bpf/unwind_maps.h, smaller.
class TableMapsTest : public testing::Test {
 protected:
  void SetUp() override {
    bpf_map_create_opts mapped{};
    mapped.sz = sizeof(mapped);
    mapped.map_flags = BPF_F_MMAPABLE;
    tables_.Reset(
        bpf_map_create(BPF_MAP_TYPE_ARRAY, "t_tables", 4, sizeof(fw_table), 1024, &mapped));
    // Only a missing right is a reason to skip.
    if (!tables_.valid() && errno == EPERM) GTEST_SKIP() << "bpf_map_create: may not make BPF maps";
    ASSERT_TRUE(tables_.valid()) << std::strerror(errno);
    known_.Reset(bpf_map_create(BPF_MAP_TYPE_HASH, "t_known", sizeof(fw_file_key),
                                sizeof(fw_known_file), 2, nullptr));
    const base::UniqueFd slab(
        bpf_map_create(BPF_MAP_TYPE_ARRAY, "t_slab", 4, FW_SLAB_BYTES, 1, &mapped));
    bpf_map_create_opts outer{};
    outer.sz = sizeof(outer);
    outer.inner_map_fd = static_cast<uint32_t>(slab.get());
    slabs_.Reset(bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "t_slabs", 4, 4, FW_SLABS_MAX, &outer));
    ASSERT_TRUE(known_.valid() && slabs_.valid());
    auto memory = BpfTableMemory::Open(
        {.tables = tables_.get(), .slabs = slabs_.get(), .known_files = known_.get()});
    ASSERT_TRUE(memory.ok()) << base::Message(memory.status());
    memory_ = *std::move(memory);
  }

  // What a program would read; empty when there is no such slab.
  std::vector<std::byte> ReadSlab(uint32_t slab) {
    uint32_t id = 0;
    if (bpf_map_lookup_elem(slabs_.get(), &slab, &id) != 0) return {};
    const base::UniqueFd fd(bpf_map_get_fd_by_id(id));
    std::vector<std::byte> bytes(FW_SLAB_BYTES);
    const uint32_t zero = 0;
    if (bpf_map_lookup_elem(fd.get(), &zero, bytes.data()) != 0) return {};
    return bytes;
  }

  base::UniqueFd tables_, known_, slabs_;
  std::unique_ptr<BpfTableMemory> memory_;
};

TEST_F(TableMapsTest, WhatIsWrittenIsWhatProgramsRead) {
  ASSERT_TRUE(memory_->AddSlab(3).ok());
  std::memset(memory_->Slab(3), 0x5a, FW_SLAB_BYTES);
  EXPECT_THAT(ReadSlab(3), testing::Each(std::byte{0x5a}));
  memory_->tables()[7].first_page = 99;
  fw_table table{};
  const uint32_t index = 7;
  ASSERT_EQ(bpf_map_lookup_elem(tables_.get(), &index, &table), 0);
  EXPECT_EQ(table.first_page, 99u);
  memory_->RemoveSlab(3);
  EXPECT_TRUE(ReadSlab(3).empty());
}

TEST_F(TableMapsTest, TheKernelChargesASlabAndLittleMore) {
  ASSERT_TRUE(memory_->AddSlab(0).ok());
  EXPECT_GE(memory_->SlabBytes(), FW_SLAB_BYTES);
  EXPECT_LE(memory_->SlabBytes(), FW_SLAB_BYTES + 16 * 1024);
}

TEST_F(TableMapsTest, WaitingForProgramsLeavesTheSlabsAsTheyAre) {
  ASSERT_TRUE(memory_->AddSlab(1).ok());
  std::memset(memory_->Slab(1), 0x11, FW_SLAB_BYTES);
  memory_->WaitForPrograms();
  EXPECT_THAT(ReadSlab(1), testing::Each(std::byte{0x11}));
}

TEST_F(TableMapsTest, SaysWhenTheMapOfKnownFilesIsFull) {
  for (uint64_t inode = 1; inode <= 2; ++inode) {
    EXPECT_TRUE(memory_->SetKnownFile({.inode = inode}, {.file_id = 1, .table = 2}).ok());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(memory_->SetKnownFile({.inode = 3}, {})));
  memory_->ForgetFile({.inode = 1});
  EXPECT_TRUE(memory_->SetKnownFile({.inode = 3}, {}).ok());
}

TEST_F(TableMapsTest, ManyTablesStayBelowTheCap) {
  base::MetricsRegistry metrics;
  uint64_t budget = uint64_t{3} << 20;
  TableStore store(*memory_, [&budget] { return RoomFor(budget); }, metrics);
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    const TableForTest source(1 + seed % 40, seed);
    const uint32_t index = store.Attach(store.Reserve().value(), source.Map());
    memory_->tables()[index].uses += 1 + seed % 7;
    if (seed % 100 == 0) store.LoadWaiting(seed);
    ASSERT_LE(store.slab_bytes(), budget);
  }
  EXPECT_GT(store.loaded_count(), 20u);
  budget = uint64_t{1} << 20;
  store.EndWindow(1000);
  EXPECT_LE(store.slab_bytes(), budget);
  EXPECT_GT(store.loaded_count(), 10u);
  EXPECT_GT(store.evictions(), 0u);
}

// --- the whole way -------------------------------------------------------------------------------

constexpr uint64_t kWantedSamples = 200;
constexpr int kMaxTicks = 360;  // three minutes, on a machine that has much else to do

constexpr const char* kWorkload = FIREWATCH_WORKLOAD " --depth 40 --seconds ";

pid_t StartShell(const std::string& script) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::execl("/bin/sh", "sh", "-c", script.c_str(), nullptr);
  ::_exit(127);
}

// Samples a shell from the first sample on, with an empty cache, as the agent does it.
class WholeStacksBpfTest : public testing::Test {
 protected:
  void Sample(const std::string& script, uint32_t hz) {
    auto symbolizer = symbolizer::Symbolizer::Create({}, metrics_);
    ASSERT_TRUE(symbolizer.ok());
    ProcessTable table({}, **symbolizer, metrics_);
    const pid_t child = StartShell(script);
    ASSERT_GT(child, 0);
    ProfilerOptions options;
    options.source = SourceChoice::kEbpf;
    options.sampler.hz = hz;
    options.sampler.pids = {Pid{static_cast<uint32_t>(child)}};
    // What is kept for tables lasts for 8.5 s at 47 Hz, and a window waits for its tables: also
    // where a sanitized helper gets a tenth of a busy core.
    options.window_ms = 8'000;
    options.names_deadline_ms = 60'000;
    options.tick_ms = 500;
    // Sanitizers make the heap larger than the limit.
    options.rss_anon_bytes = [] { return uint64_t{8} << 20; };
    int ticks = 0;
    options.on_tick = [&] { return all_ < kWantedSamples && ++ticks < kMaxTicks; };
    options.on_tables = [this](TableReport now) { report_ = std::move(now); };
    auto profiler = Profiler::Open(std::move(options), table, **symbolizer, clock_, metrics_,
                                   [this](const ClosedWindow& window) { Count(window); });
    if (profiler.ok()) {
      EXPECT_TRUE((*profiler)->Run().ok());
    }
    ::kill(-child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    if (absl::IsPermissionDenied(profiler.status())) {
      GTEST_SKIP() << base::Message(profiler.status());
    }
    ASSERT_TRUE(profiler.ok()) << base::Message(profiler.status());
    EXPECT_GE(all_, kWantedSamples);
  }

  void Count(const ClosedWindow& window) {
    for (const ProgramStackEnds& program : window.program_ends) {
      for (size_t i = 0; i < ends_.size(); ++i) {
        ends_[i] += program.counts[i];
        all_ += program.counts[i];
      }
    }
  }

  base::MetricsRegistry metrics_;
  const base::SystemClock clock_;
  std::array<uint64_t, FW_STACK_END_COUNT> ends_{};
  uint64_t all_ = 0;
  TableReport report_;
};

TEST_F(WholeStacksBpfTest, StacksOfCodeWithoutFramePointersEndAtTheirRoot) {
  Sample(std::string("exec ") + kWorkload + "600", 47);
  if (IsSkipped()) return;
  EXPECT_GE(CompleteShare(ends_), 0.999) << testing::PrintToString(ends_);
  EXPECT_GT(report_.listing.rows_loaded, 1000u);
  EXPECT_LE(report_.listing.slab_bytes, report_.memory_limit_bytes);
}

TEST_F(WholeStacksBpfTest, FreshBinariesAreWholeFromTheirFirstSampleOn) {
  std::string folder = testing::TempDir() + "first_samples_XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  Sample("cd " + folder +
             "; i=0; while :; do i=$((i+1)); cp " FIREWATCH_WORKLOAD
             " w$i; ./w$i --depth 40 --seconds 1; rm w$i; done",
         47);
  std::filesystem::remove_all(folder);
  if (IsSkipped()) return;
  EXPECT_GE(CompleteShare(ends_), 0.999) << testing::PrintToString(ends_);
}

TEST_F(WholeStacksBpfTest, ExecAndExitHaveNoUserStack) {
  Sample("while :; do /bin/true; done", 47);
  if (IsSkipped()) return;
  EXPECT_GT(ends_[FW_STACK_END_NO_MEMORY], 0u);
  EXPECT_GE(CompleteShare(ends_), 0.97) << testing::PrintToString(ends_);
}

}  // namespace
}  // namespace firewatch::agent
