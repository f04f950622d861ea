// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/process_threads.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <thread>

#include "agent/stacks/test_child.h"

namespace firewatch::agent {
namespace {

bool Lists(const std::vector<ThreadId>& threads, pid_t pid) {
  return std::any_of(threads.begin(), threads.end(),
                     [&](const ThreadId& thread) { return thread.pid == pid; });
}

TEST(ProcessThreadsTest, ListsAllThreadsAndSaysWhichRun) {
  std::atomic<bool> end = false;
  std::thread other([&] {
    while (!end) ::usleep(1000);
  });
  const std::vector<ThreadId> threads = ListThreads(::getpid(), false);
  end = true;
  other.join();
  EXPECT_GE(threads.size(), 2u);
  const auto self = std::find_if(threads.begin(), threads.end(),
                                 [](const ThreadId& thread) { return thread.tid == ::getpid(); });
  ASSERT_NE(self, threads.end());
  EXPECT_TRUE(self->running);
}

TEST(ProcessThreadsTest, ListsDescendantsOnlyWhenAsked) {
  TestChild child([] { ::pause(); });
  EXPECT_TRUE(Lists(ListThreads(::getpid(), true), child.pid()));
  EXPECT_FALSE(Lists(ListThreads(::getpid(), false), child.pid()));
}

TEST(ProcessThreadsTest, SaysWhatJobControlHasStopped) {
  TestChild child([] { ::pause(); });
  ASSERT_EQ(ListThreads(child.pid(), false).size(), 1u);
  EXPECT_FALSE(ListThreads(child.pid(), false)[0].job_stopped);
  ::kill(child.pid(), SIGSTOP);
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid(), &status, WUNTRACED), child.pid());
  ASSERT_EQ(ListThreads(child.pid(), false).size(), 1u);
  EXPECT_TRUE(ListThreads(child.pid(), false)[0].job_stopped);
}

TEST(ProcessThreadsTest, AProcessThatIsGoneHasNone) {
  EXPECT_TRUE(ListThreads(1 << 22, true).empty());
}

TEST(ProcessThreadsTest, PrefersThreadsThatRun) {
  std::mt19937_64 random(1);
  const std::vector<ThreadId> threads = {{1, 1}, {1, 2, true}, {1, 3}};
  int running = 0;
  int waiting = 0;
  for (int i = 0; i < 1000; ++i) ++(PickThread(threads, random).running ? running : waiting);
  EXPECT_GT(running, 800);
  EXPECT_GT(waiting, 0) << "those that wait are looked at, too";
  EXPECT_EQ(PickThread({{1, 7}}, random).tid, 7);
}

}  // namespace
}  // namespace firewatch::agent
