// SPDX-License-Identifier: Apache-2.0
// Side-band events of children that the test starts; everybody else's are skipped unread.
#include "agent/cpu/sideband.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <thread>

#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;

class SideBandTest : public ::testing::Test {
 protected:
  bool OpenOrSkip(const SideBandOptions& options = {}) {
    auto opened = SideBand::Open(options, metrics_);
    // Only a missing right is a reason to skip; anything else is a failure of ours.
    if (absl::IsPermissionDenied(opened.status())) reason_ = base::ToString(opened.status());
    EXPECT_TRUE(opened.ok() || !reason_.empty()) << base::ToString(opened.status());
    if (opened.ok()) sideband_ = std::move(opened).value();
    return sideband_ != nullptr;
  }

  // The events of one process until now.
  std::vector<ProcessEvent> EventsOf(pid_t pid) {
    std::vector<ProcessEvent> events;
    uint64_t last_ns = 0;
    sideband_->Drain(base::SystemClock().MonotonicNs(), [&](const ProcessEvent& event) {
      EXPECT_GE(event.time_ns + 1'000'000, last_ns);  // a record may wait a little to be written
      last_ns = event.time_ns;
      if (event.pid == Pid{static_cast<uint32_t>(pid)}) events.push_back(event);
    });
    return events;
  }

  base::MetricsRegistry metrics_;
  std::unique_ptr<SideBand> sideband_;
  std::string reason_;
};

#define OPEN_OR_SKIP() \
  if (!OpenOrSkip()) GTEST_SKIP() << reason_

pid_t RunAndWait(const std::function<void()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    body();
    ::_exit(0);
  }
  ::waitpid(pid, nullptr, 0);
  return pid;
}

TEST_F(SideBandTest, AProcessIsForkedExecutesMapsAndExits) {
  OPEN_OR_SKIP();
  const pid_t pid = RunAndWait([] { ::execl("/bin/true", "true", nullptr); });
  const std::vector<ProcessEvent> events = EventsOf(pid);
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events.front().kind, ProcessEventKind::kFork);
  EXPECT_EQ(events.front().parent, Pid{static_cast<uint32_t>(::getpid())});
  EXPECT_EQ(events.back().kind, ProcessEventKind::kExit);
  size_t at = 1;
  while (at < events.size() && events[at].kind != ProcessEventKind::kExec) ++at;
  ASSERT_LT(at + 1, events.size());
  EXPECT_EQ(events[at].comm, "true");
  bool mapped = false;
  for (const ProcessEvent& event : std::span(events).subspan(at)) {
    if (event.kind != ProcessEventKind::kMmap) continue;
    mapped = mapped || event.file.path.ends_with("/true");
    EXPECT_LT(event.start, event.end);
    if (sideband_->has_build_ids() && event.file.path.starts_with("/usr/")) {
      EXPECT_EQ(event.file.build_id.size, 20) << event.file.path;
    }
  }
  EXPECT_TRUE(mapped);
}

TEST_F(SideBandTest, LaterEventsStayForTheNextDrain) {
  OPEN_OR_SKIP();
  const uint64_t before_ns = base::SystemClock().MonotonicNs();
  const pid_t pid = RunAndWait([] {});
  const Pid wanted{static_cast<uint32_t>(pid)};
  size_t early = 0;
  sideband_->Drain(before_ns, [&](const ProcessEvent& event) { early += event.pid == wanted; });
  EXPECT_EQ(early, 0u);
  EXPECT_EQ(EventsOf(pid).size(), 2u);  // fork and exit
  EXPECT_EQ(EventsOf(pid).size(), 0u);
}

TEST_F(SideBandTest, EventsOfTwoCpusAreInOrder) {
  OPEN_OR_SKIP();
  // Parent and child are placed on different CPUs, so fork and exit come from two rings.
  const pid_t pid = RunAndWait([] {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(1, &cpus);
    ::sched_setaffinity(0, sizeof(cpus), &cpus);
    ::prctl(PR_SET_NAME, "moved");
  });
  const std::vector<ProcessEvent> events = EventsOf(pid);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].kind, ProcessEventKind::kFork);
  EXPECT_EQ(events[1].comm, "moved");
  EXPECT_EQ(events[2].kind, ProcessEventKind::kExit);
}

TEST_F(SideBandTest, ExitIsThatOfTheLastThread) {
  OPEN_OR_SKIP();
  const pid_t pid = RunAndWait([] {
    std::thread([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(60));
      ::prctl(PR_SET_NAME, "survivor");
      ::_exit(0);
    }).detach();
    ::syscall(SYS_exit, 0);  // this thread only, without unwinding
  });
  const std::vector<ProcessEvent> events = EventsOf(pid);
  std::vector<ProcessEventKind> kinds;
  for (const ProcessEvent& event : events) kinds.push_back(event.kind);
  EXPECT_THAT(kinds, ElementsAre(ProcessEventKind::kFork, ProcessEventKind::kComm,
                                 ProcessEventKind::kExit));
}

TEST_F(SideBandTest, FullRingReportsWhatWasLost) {
  SideBandOptions options;
  options.ring_bytes = 4096;
  if (!OpenOrSkip(options)) GTEST_SKIP() << reason_;
  // Each CPU has a ring of its own: all of it happens on one.
  const auto name_itself_on_cpu_0 = [](int times, const char* name) {
    RunAndWait([&] {
      cpu_set_t cpus;
      CPU_ZERO(&cpus);
      CPU_SET(0, &cpus);
      ::sched_setaffinity(0, sizeof(cpus), &cpus);
      for (int i = 0; i < times; ++i) ::prctl(PR_SET_NAME, name);
    });
  };
  name_itself_on_cpu_0(200, "a name that fills the ring");
  size_t lost_events = 0;
  // The loss is written with the next record that fits.
  sideband_->Drain(base::SystemClock().MonotonicNs(), [](const ProcessEvent&) {});
  name_itself_on_cpu_0(1, "after");
  sideband_->Drain(base::SystemClock().MonotonicNs(), [&](const ProcessEvent& event) {
    if (event.kind == ProcessEventKind::kLost) ++lost_events;
  });
  EXPECT_GE(lost_events, 1u);
  EXPECT_GE(sideband_->lost(), 50u);
}

TEST_F(SideBandTest, FollowsCpusThatComeAndGo) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "needs two CPUs";
  const auto list =
      std::filesystem::temp_directory_path() / ("sideband_cpus_" + std::to_string(::getpid()));
  std::ofstream(list) << "0\n";
  SideBandOptions options;
  options.online_cpus_path = list;
  const bool open = OpenOrSkip(options);
  if (open) {
    EXPECT_EQ(sideband_->cpu_count(), 1u);
    std::ofstream(list) << "0-1\n";
    sideband_->FollowCpus();
    EXPECT_EQ(sideband_->cpu_count(), 2u);
    std::ofstream(list) << "1\n";
    sideband_->FollowCpus();
    EXPECT_EQ(sideband_->cpu_count(), 1u);
    EventsOf(0);  // drains and closes the ring that is left
  }
  std::filesystem::remove(list);
  if (!open) GTEST_SKIP() << reason_;
}

}  // namespace
}  // namespace firewatch::agent
