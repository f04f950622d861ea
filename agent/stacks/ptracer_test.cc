// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/ptracer.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <new>
#include <string>
#include <thread>

#include "agent/stacks/test_child.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{5000};

// Memory that a child shares with the test.
template <typename T>
T& Shared() {
  void* memory =
      ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return *new (memory) T();
}

void SpinForever() {
  for (;;) asm volatile("");
}

// 'R', 'S', 'T' …; and the pid of the tracer.
char StateOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const size_t end = text.rfind(") ");
  return end == std::string::npos ? '?' : text[end + 2];
}
int TracerOf(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    int tracer = 0;
    if (std::sscanf(line.c_str(), "TracerPid: %d", &tracer) == 1) return tracer;
  }
  return -1;
}

bool BecomesState(pid_t pid, char state) {
  for (int i = 0; i < 500; ++i) {
    if (StateOf(pid) == state) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

TEST(PtracerTest, ShowsRegistersOfAStoppedThreadAndLetsItGoOn) {
  auto& counter = Shared<std::atomic<uint64_t>>();
  TestChild child([&] {
    for (;;) counter.fetch_add(1);
  });
  Ptracer ptracer;
  uint64_t first = 0;
  uint64_t second = 0;
  uint64_t sp = 0;
  const auto stop =
      ptracer.WhileStopped(child.pid(), kPatience, [&](const user_regs_struct& registers) {
        sp = registers.rsp;
        first = counter.load();
        std::this_thread::sleep_for(milliseconds(20));
        second = counter.load();
      });
  ASSERT_TRUE(stop.ok()) << base::ToString(stop.status());
  EXPECT_NE(sp, 0u);
  EXPECT_EQ(first, second) << "it ran while it was looked at";
  EXPECT_GE(stop->stopped_ns, 20'000'000u);
  EXPECT_EQ(TracerOf(child.pid()), 0);
  for (int i = 0; i < 500 && counter.load() == second; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_GT(counter.load(), second) << "it stayed stopped";
}

TEST(PtracerTest, WhatHasEndedButIsNotWaitedForIsGoneNotForbidden) {
  TestChild child([] { ::_exit(0); });
  ASSERT_TRUE(BecomesState(child.pid(), 'Z'));
  Ptracer ptracer;
  const auto stop = ptracer.WhileStopped(child.pid(), kPatience, [](const user_regs_struct&) {});
  EXPECT_EQ(stop.status().code(), absl::StatusCode::kNotFound) << base::ToString(stop.status());
}

TEST(PtracerTest, CanStopTheSameThreadManyTimes) {
  TestChild child(SpinForever);
  Ptracer ptracer;
  for (int i = 0; i < 200; ++i) {
    const auto stop = ptracer.WhileStopped(child.pid(), kPatience, [](const user_regs_struct&) {});
    ASSERT_TRUE(stop.ok()) << i << ": " << base::ToString(stop.status());
  }
}

TEST(PtracerTest, AThreadThatDoesNotStopIsLeftUntraced) {
  // The parent of a vfork waits in the kernel until its child is gone, deaf to ptrace.
  auto& release = Shared<std::atomic<bool>>();
  TestChild child([&] {
    if (const pid_t grandchild = ::vfork(); grandchild == 0) {
      while (!release.load()) ::usleep(1000);
      ::_exit(0);
    }
    for (;;) ::usleep(1000);
  });
  ASSERT_TRUE(BecomesState(child.pid(), 'D'));
  Ptracer ptracer;
  bool looked = false;
  const auto stop = ptracer.WhileStopped(child.pid(), milliseconds(30),
                                         [&](const user_regs_struct&) { looked = true; });
  EXPECT_EQ(stop.status().code(), absl::StatusCode::kUnavailable) << base::ToString(stop.status());
  EXPECT_FALSE(looked);
  EXPECT_EQ(TracerOf(child.pid()), 0);
  release.store(true);
  EXPECT_TRUE(BecomesState(child.pid(), 'S')) << "it stopped when nobody waited for it";
  const auto later =
      ptracer.WhileStopped(child.pid(), kPatience, [&](const user_regs_struct&) { looked = true; });
  EXPECT_TRUE(later.ok()) << "a tracer that gave up is replaced: "
                          << base::ToString(later.status());
  EXPECT_TRUE(looked);
}

TEST(PtracerTest, AThreadThatJobControlStoppedStaysStopped) {
  TestChild child(SpinForever);
  ::kill(child.pid(), SIGSTOP);
  ASSERT_TRUE(BecomesState(child.pid(), 'T'));
  Ptracer ptracer;
  const auto stop = ptracer.WhileStopped(child.pid(), kPatience, [](const user_regs_struct&) {});
  ASSERT_TRUE(stop.ok()) << base::ToString(stop.status());
  EXPECT_TRUE(BecomesState(child.pid(), 'T'));
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(StateOf(child.pid()), 'T');
  ::kill(child.pid(), SIGCONT);
  EXPECT_TRUE(BecomesState(child.pid(), 'R'));
}

std::atomic<uint64_t>* signals_seen = nullptr;

TEST(PtracerTest, NoSignalIsLostAtAStop) {
  auto& seen = Shared<std::atomic<uint64_t>>();
  auto& ready = Shared<std::atomic<bool>>();
  signals_seen = &seen;
  TestChild child([&] {
    ::signal(SIGUSR1, [](int) { signals_seen->fetch_add(1); });
    ready.store(true);
    SpinForever();
  });
  while (!ready.load()) std::this_thread::yield();
  Ptracer ptracer;
  constexpr uint64_t kSignals = 300;
  for (uint64_t i = 1; i <= kSignals; ++i) {
    ::kill(child.pid(), SIGUSR1);
    const auto stop = ptracer.WhileStopped(child.pid(), kPatience, [](const user_regs_struct&) {});
    ASSERT_TRUE(stop.ok()) << base::ToString(stop.status());
    for (int wait = 0; wait < 5000 && seen.load() < i; ++wait) ::usleep(1000);
    ASSERT_EQ(seen.load(), i);
  }
}

TEST(PtracerTest, AThreadThatIsKilledWhileLookedAtIsAnErrorAtMost) {
  TestChild child(SpinForever);
  Ptracer ptracer;
  const auto stop = ptracer.WhileStopped(child.pid(), kPatience, [&](const user_regs_struct&) {
    ::kill(child.pid(), SIGKILL);
    BecomesState(child.pid(), 'Z');
  });
  child.End();
  const auto gone = ptracer.WhileStopped(1 << 22, kPatience, [](const user_regs_struct&) {});
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kNotFound) << base::ToString(gone.status());
}

TEST(PtracerTest, WhatMayNotBeTracedIsSaidSo) {
  Ptracer ptracer;
  const auto stop = ptracer.WhileStopped(::getpid(), kPatience, [](const user_regs_struct&) {});
  EXPECT_EQ(stop.status().code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace firewatch::agent
