// SPDX-License-Identifier: Apache-2.0
// The sampler on this kernel, looking only at children that the test starts.
#include "agent/cpu/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <system_error>
#include <thread>

#include "agent/cpu/cgroup_path.h"
#include "agent/cpu/perf_event.h"
#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::Each;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr uint32_t kRate = 199;

volatile uint64_t sink;

void SpinFor(double seconds) {
  const base::SystemClock clock;
  const uint64_t end = clock.MonotonicNs() + static_cast<uint64_t>(seconds * 1e9);
  while (clock.MonotonicNs() < end) {
    for (int i = 0; i < 100'000; ++i) sink = sink * 3 + 1;
  }
}

// Built with frame pointers like all of Firewatch; what follows the call forbids a tail call, and
// the volatile that the recursion is made a loop.
[[gnu::noinline]] void SpinBelow(int depth, double seconds) {
  volatile int here = depth;
  if (here > 0) {
    SpinBelow(here - 1, seconds);
  } else {
    SpinFor(seconds);
  }
  sink = sink + static_cast<uint64_t>(here);
}

double ChildrenCpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// A child that runs `body` and ends with us.
class Child {
 public:
  explicit Child(const std::function<void()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    ::_exit(0);
  }
  ~Child() { End(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  Pid pid() const { return Pid{static_cast<uint32_t>(pid_)}; }
  double CpuSeconds() const {
    clockid_t clock = 0;
    timespec time{};
    ::clock_getcpuclockid(pid_, &clock);
    ::clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
  }
  void Wait() {
    if (pid_ > 0) ::waitpid(std::exchange(pid_, -1), nullptr, 0);
  }
  void End() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    Wait();
  }

 private:
  pid_t pid_;
};

struct Seen {
  size_t samples = 0;
  size_t user_mode = 0;
  size_t kernel_stacks = 0;
  size_t both_stacks = 0;
  uint64_t last_cgroup_id = 0;
  size_t deepest = 0;
  std::map<fw_stack_end, size_t> ends;
  std::map<uint32_t, size_t> by_pid;
  std::map<std::string, size_t> by_comm;
  size_t bad_frames = 0;
  uint64_t first_ns = UINT64_MAX;
  uint64_t last_ns = 0;

  void Add(const SampleRecord& sample) {
    ++samples;
    user_mode += sample.in_kernel ? 0 : 1;
    kernel_stacks += sample.kernel_frames.empty() ? 0 : 1;
    both_stacks += sample.kernel_frames.empty() || sample.user_frames.empty() ? 0 : 1;
    last_cgroup_id = sample.cgroup_id;
    deepest = std::max(deepest, sample.user_frames.size());
    ++ends[sample.stack_end];
    ++by_pid[static_cast<uint32_t>(sample.pid)];
    ++by_comm[std::string(sample.comm)];
    for (const fw_u64 frame : sample.kernel_frames) {
      bad_frames += frame >> FW_FRAME_KIND_SHIFT == FW_FRAME_KERNEL ? 0 : 1;
    }
    for (const fw_u64 frame : sample.user_frames) {
      bad_frames += frame >> FW_FRAME_KIND_SHIFT == FW_FRAME_USER ? 0 : 1;
    }
    first_ns = std::min(first_ns, sample.time_ns);
    last_ns = std::max(last_ns, sample.time_ns);
  }
};

// Drains until there are so many samples, at most ten seconds: on a busy machine a child gets only
// a part of a CPU. Then stops the sampler.
Seen SampleUntil(Sampler& sampler, size_t wanted) {
  Seen seen;
  const auto add = [&](const SampleRecord& sample) { seen.Add(sample); };
  for (int i = 0; i < 200 && seen.samples < wanted; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    sampler.Drain(add);
  }
  sampler.Stop(add);
  return seen;
}

// As many samples as the CPU time explains. Emulated machines lose a fifth of their timer's ticks.
void ExpectTicks(size_t samples, double cpu_seconds) {
  const double expected = cpu_seconds * kRate;
  EXPECT_GE(static_cast<double>(samples), 0.6 * expected - 5);
  EXPECT_LE(static_cast<double>(samples), 1.3 * expected + 5);
}

class SamplerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Sampler> OpenOrSkip(const SamplerOptions& options) {
    auto sampler = Sampler::Open(options, metrics_);
    // A missing right or a kernel without types; anything else is a failure of ours.
    const bool no_types = ::access("/sys/kernel/btf/vmlinux", R_OK) != 0;
    if (absl::IsPermissionDenied(sampler.status()) ||
        (no_types && absl::IsFailedPrecondition(sampler.status()))) {
      skipped_ = base::ToString(sampler.status());
      return nullptr;
    }
    EXPECT_TRUE(sampler.ok()) << base::ToString(sampler.status());
    return sampler.ok() ? std::move(sampler).value() : nullptr;
  }

  SamplerOptions For(const Child& child) {
    SamplerOptions options;
    options.hz = kRate;
    options.pids = {child.pid()};
    return options;
  }

  base::MetricsRegistry metrics_;
  std::string skipped_;
};

#define OPEN_OR_SKIP(sampler, options)                         \
  const auto sampler = OpenOrSkip(options);                    \
  if (!sampler && !skipped_.empty()) GTEST_SKIP() << skipped_; \
  ASSERT_TRUE(sampler)

TEST_F(SamplerTest, SamplesAChildWithItsPidNameAndDepth) {
  Child child([] {
    ::prctl(PR_SET_NAME, "burner");
    SpinBelow(100, 30);
  });
  OPEN_OR_SKIP(sampler, For(child));
  Seen seen = SampleUntil(*sampler, 60);
  EXPECT_GE(seen.samples, 60u);
  const double seconds = static_cast<double>(seen.last_ns - seen.first_ns) / 1e9;
  EXPECT_LE(static_cast<double>(seen.samples), seconds * kRate * 1.1 + 2);
  EXPECT_EQ(seen.by_pid.size(), 1u);
  EXPECT_EQ(seen.by_pid.begin()->first, static_cast<uint32_t>(child.pid()));
  EXPECT_GE(seen.by_comm["burner"], seen.samples - 1);  // the first may come before the new name
  EXPECT_GT(seen.deepest, 100u);
  EXPECT_LT(seen.deepest, 160u);
  EXPECT_EQ(seen.bad_frames, 0u);
  EXPECT_EQ(seen.ends[FW_STACK_END_TRUNCATED], 0u);
}

TEST_F(SamplerTest, MarksStacksOverTheLimitAndCountsThem) {
  Child child([] { SpinBelow(3000, 30); });
  OPEN_OR_SKIP(sampler, For(child));
  Seen seen = SampleUntil(*sampler, 20);
  EXPECT_EQ(seen.deepest, size_t{FW_MAX_USER_FRAMES});
  EXPECT_GT(seen.ends[FW_STACK_END_TRUNCATED], 0u);
  EXPECT_EQ(sampler->Losses()[FW_LOSS_USER_TRUNCATED], seen.ends[FW_STACK_END_TRUNCATED]);
}

TEST_F(SamplerTest, FollowsChildrenAndGrandchildrenFromTheirStart) {
  // The pipe holds the root back until the sampler runs.
  int gate[2];
  ASSERT_EQ(::pipe(gate), 0);
  Child root([&] {
    char byte = 0;
    if (::read(gate[0], &byte, 1) != 1) return;
    for (int i = 0; i < 5; ++i) {
      Child child([] {
        Child grandchild([] { SpinFor(0.15); }), second([] { SpinFor(0.05); });
        grandchild.Wait();
        second.Wait();
      });
      child.Wait();
    }
  });
  OPEN_OR_SKIP(sampler, For(root));
  const double before = ChildrenCpuSeconds();
  ASSERT_EQ(::write(gate[1], "x", 1), 1);
  root.Wait();
  const double cpu_seconds = ChildrenCpuSeconds() - before;
  Seen seen;
  sampler->Stop([&](const SampleRecord& sample) { seen.Add(sample); });
  ::close(gate[0]);
  ::close(gate[1]);
  EXPECT_GE(seen.by_pid.size(), 10u);
  ExpectTicks(seen.samples, cpu_seconds);
}

TEST_F(SamplerTest, DoesNotSampleWhatIsNotInTheFilter) {
  Child wanted([] { ::pause(); });
  Child other([] { SpinFor(30); });
  OPEN_OR_SKIP(sampler, For(wanted));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  Seen seen;
  sampler->Stop([&](const SampleRecord& sample) { seen.Add(sample); });
  EXPECT_EQ(seen.by_pid.count(static_cast<uint32_t>(other.pid())), 0u);
}

TEST_F(SamplerTest, FindsDescendantsThatLiveAlready) {
  Child root([] {
    Child child([] { SpinFor(30); });
    child.Wait();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  OPEN_OR_SKIP(sampler, For(root));
  Seen seen = SampleUntil(*sampler, 11);
  EXPECT_GT(seen.samples, 10u);
}

TEST_F(SamplerTest, FollowAddsAProcessLater) {
  Child first([] { ::pause(); });
  Child second([] { SpinFor(30); });
  OPEN_OR_SKIP(sampler, For(first));
  ASSERT_TRUE(sampler->Follow(second.pid()).ok());
  Seen seen = SampleUntil(*sampler, 10);
  EXPECT_GT(seen.by_pid[static_cast<uint32_t>(second.pid())], 5u);
}

TEST_F(SamplerTest, SystemCallsHaveKernelAndUserFrames) {
  Child child([] {
    for (;;) {
      std::ifstream file("/proc/self/status");
      std::string text;
      while (std::getline(file, text)) sink = sink + text.size();
    }
  });
  OPEN_OR_SKIP(sampler, For(child));
  const Seen seen = SampleUntil(*sampler, 60);
  EXPECT_GT(seen.both_stacks, 10u);
  EXPECT_EQ(seen.kernel_stacks, seen.samples - seen.user_mode);
  EXPECT_EQ(seen.bad_frames, 0u);
  EXPECT_EQ(sampler->Losses()[FW_LOSS_NO_USER_REGISTERS], 0u);
}

TEST_F(SamplerTest, WaitFdWakesAboutOnceASecondNotPerSample) {
  Child child([] { SpinFor(30); });
  OPEN_OR_SKIP(sampler, For(child));
  size_t wakes = 0;
  size_t samples = 0;
  const base::SystemClock clock;
  const uint64_t end = clock.MonotonicNs() + 2'500'000'000;
  while (clock.MonotonicNs() < end) {
    pollfd entry{.fd = sampler->WaitFd(), .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, 200) <= 0) continue;
    ++wakes;
    samples += sampler->Drain([](const SampleRecord&) {});
  }
  EXPECT_GE(wakes, 1u);
  EXPECT_GT(samples, 10u);
  // Nobody answers the notes here, so each sample brings its stack: some twenty fill the part of
  // the ring that is worth a wake-up.
  EXPECT_LE(wakes, 4 + samples / 16);
}

TEST_F(SamplerTest, StopHandsOutWhatNobodyWasWokenFor) {
  Child child([] { SpinFor(30); });
  SamplerOptions options = For(child);
  options.wake_interval_ns = UINT64_MAX;  // no wake-up by time
  OPEN_OR_SKIP(sampler, options);
  const double before = child.CpuSeconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  Seen seen;
  sampler->Stop([&](const SampleRecord& sample) { seen.Add(sample); });
  ExpectTicks(seen.samples, child.CpuSeconds() - before);
  EXPECT_GT(seen.samples, 0u);
  // Nothing comes after a stop.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(sampler->Drain([](const SampleRecord&) {}), 0u);
}

TEST_F(SamplerTest, RateChangesWhileItRunsAndTheOldSamplesComeFirst) {
  Child child([] { SpinBelow(1, 30); });
  OPEN_OR_SKIP(sampler, For(child));
  const auto seconds_of = [&](double wall) {
    const double before = child.CpuSeconds();
    std::this_thread::sleep_for(std::chrono::duration<double>(wall));
    return child.CpuSeconds() - before;
  };
  const double fast_seconds = seconds_of(2);
  Seen fast;
  ASSERT_TRUE(sampler->SetHz(20, [&](const SampleRecord& sample) { fast.Add(sample); }).ok());
  EXPECT_EQ(sampler->hz(), 20u);
  ExpectTicks(fast.samples, fast_seconds);
  const double slow_seconds = seconds_of(2);
  Seen slow;
  sampler->Stop([&](const SampleRecord& sample) { slow.Add(sample); });
  EXPECT_GE(static_cast<double>(slow.samples), 0.6 * slow_seconds * 20 - 5);
  EXPECT_LE(static_cast<double>(slow.samples), 1.3 * slow_seconds * 20 + 5);
  EXPECT_FALSE(sampler->SetHz(0, [](const SampleRecord&) {}).ok());
  EXPECT_FALSE(sampler->ProgramFds().empty());
}

TEST_F(SamplerTest, FullRingDropsAndCounts) {
  Child child([] { SpinBelow(500, 30); });
  SamplerOptions options = For(child);
  options.hz = 999;
  options.ring_bytes = 8192;
  OPEN_OR_SKIP(sampler, options);
  for (int i = 0; i < 100 && sampler->Losses()[FW_LOSS_RING_FULL] == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  sampler->Stop([](const SampleRecord&) {});
  EXPECT_GT(sampler->Losses()[FW_LOSS_RING_FULL], 0u);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("firewatch_agent_lost_total{reason=\"ring_full\"}"));
}

TEST_F(SamplerTest, FollowsCpusThatComeAndGo) {
  Child child([] { ::pause(); });
  const auto list =
      std::filesystem::temp_directory_path() / ("online_cpus_" + std::to_string(::getpid()));
  std::ofstream(list) << "0\n";
  SamplerOptions options = For(child);
  options.online_cpus_path = list;
  {
    OPEN_OR_SKIP(sampler, options);
    EXPECT_EQ(sampler->cpu_count(), 1u);
    const bool two = std::thread::hardware_concurrency() > 1;
    std::ofstream(list) << (two ? "0-1\n" : "0\n");
    sampler->FollowCpus();
    EXPECT_EQ(sampler->cpu_count(), two ? 2u : 1u);
    std::ofstream(list) << "0\n";
    sampler->FollowCpus();
    EXPECT_EQ(sampler->cpu_count(), 1u);
  }
  std::filesystem::remove(list);
}

TEST_F(SamplerTest, FiltersByCgroup) {
  const auto mount = CgroupMountPoint();
  if (!mount.ok()) GTEST_SKIP() << base::ToString(mount.status());
  const std::filesystem::path group =
      std::filesystem::path(*mount) / ("firewatch_test_" + std::to_string(::getpid()));
  std::error_code error;
  const bool made = std::filesystem::create_directory(group, error);
  if (error == std::errc::permission_denied || error == std::errc::operation_not_permitted ||
      error == std::errc::read_only_file_system) {
    GTEST_SKIP() << "may not make a cgroup: " << error.message();
  }
  ASSERT_TRUE(made) << error.message();
  {
    Child inside([&] {
      std::filesystem::create_directory(group / "below");
      std::ofstream(group / "below" / "cgroup.procs") << ::getpid() << std::flush;
      SpinFor(30);
    });
    Child outside([] { SpinFor(30); });
    SamplerOptions options;
    options.hz = kRate;
    options.cgroups = {group};
    const auto sampler = OpenOrSkip(options);
    if (sampler) {
      Seen seen = SampleUntil(*sampler, 11);
      EXPECT_THAT(seen.by_pid, SizeIs(1));
      EXPECT_GT(seen.by_pid[static_cast<uint32_t>(inside.pid())], 10u);
      struct stat info{};
      ::stat((group / "below").c_str(), &info);
      EXPECT_EQ(seen.last_cgroup_id, info.st_ino);  // a cgroup's id is its inode number
    }
  }
  std::filesystem::remove(group / "below");
  std::filesystem::remove(group);
  if (!skipped_.empty()) GTEST_SKIP() << skipped_;
}

TEST_F(SamplerTest, CountsItsOwnCostAndMemory) {
  const auto stats = EnableBpfStats();
  if (absl::IsPermissionDenied(stats.status())) GTEST_SKIP() << base::ToString(stats.status());
  ASSERT_TRUE(stats.ok()) << base::ToString(stats.status());
  Child child([] { SpinFor(30); });
  SamplerOptions options = For(child);
  options.hz = 19;
  OPEN_OR_SKIP(sampler, options);
  SampleUntil(*sampler, 1);
  uint64_t runs = 0;
  for (const BpfProgramStats& program : sampler->ProgramStats()) {
    std::printf("%-16s %7u verified instructions, %lu runs, %lu ns\n", program.name.c_str(),
                program.verified_instructions, program.run_count, program.run_time_ns);
    if (program.name == "tick") runs += program.run_count;
  }
  EXPECT_GT(runs, 0u);
  std::printf("maps: %lu bytes\n", sampler->map_bytes());
  EXPECT_GT(sampler->map_bytes(), 256u * 1024);
  EXPECT_LT(sampler->map_bytes(), 4u * 1024 * 1024);
}

TEST_F(SamplerTest, RefusesOptionsThatCannotWork) {
  SamplerOptions options;
  options.hz = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(Sampler::Open(options, metrics_).status()));
  options.hz = 1000;
  EXPECT_TRUE(absl::IsInvalidArgument(Sampler::Open(options, metrics_).status()));
  options.hz = 19;
  options.ring_bytes = 5000;
  EXPECT_TRUE(absl::IsInvalidArgument(Sampler::Open(options, metrics_).status()));
  options.ring_bytes = 0;
  options.cgroups = {"/nonexistent"};
  EXPECT_FALSE(Sampler::Open(options, metrics_).ok());
  options.cgroups = {"/tmp"};
  EXPECT_FALSE(Sampler::Open(options, metrics_).ok());
}

}  // namespace
}  // namespace firewatch::agent
