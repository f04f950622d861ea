// SPDX-License-Identifier: Apache-2.0
// A made-up /proc: two processes, parent and child.
#include "agent/cpu/traced_threads.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/cpu/thread_names.h"

namespace firewatch::agent {
namespace {

namespace fs = std::filesystem;

class TracedThreadsTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "/traced_threads_proc";
    fs::remove_all(root_);
    SetThread(10, 10, 'R', 5'000'000);
  }
  void TearDown() override { fs::remove_all(root_); }

  void SetThread(int pid, int tid, char state, uint64_t ran_ns, const std::string& children = "") {
    const std::string folder = root_ + "/" + std::to_string(pid) + "/task/" + std::to_string(tid);
    fs::create_directories(folder);
    std::ofstream(folder + "/stat")
        << tid << " (a) b) " << state << " 1 1 1 0 -1 4194560 1 2 3 4 50 25 0 0 20 0 1 0\n";
    if (ran_ns != 0) std::ofstream(folder + "/schedstat") << ran_ns << " 77 3\n";
    std::ofstream(folder + "/children") << children;
    std::ofstream(folder + "/comm") << "worker\n";
  }

  std::string root_;
};

TEST_F(TracedThreadsTest, TimeIsThatOfSchedstatElseTheTicksOfStat) {
  ThreadTime time;
  ASSERT_TRUE(ReadThreadTime(root_, Pid{10}, 10, &time));
  EXPECT_TRUE(time.running);
  EXPECT_EQ(time.cpu_ns, 5'000'000u);
  SetThread(11, 11, 'S', 0);
  ASSERT_TRUE(ReadThreadTime(root_, Pid{11}, 11, &time));
  EXPECT_FALSE(time.running);
  EXPECT_EQ(time.cpu_ns, 75 * (1'000'000'000 / static_cast<uint64_t>(::sysconf(_SC_CLK_TCK))));
  SetThread(12, 12, 'Z', 1);
  EXPECT_FALSE(ReadThreadTime(root_, Pid{12}, 12, &time)) << "a zombie runs no more";
}

TEST_F(TracedThreadsTest, CreditIsTimeUsedSinceTheFirstScan) {
  TracedThreads threads({Pid{10}}, root_);
  threads.Scan();
  ASSERT_EQ(threads.processes().size(), 1u);
  EXPECT_EQ(threads.processes()[0].threads[0].credit_ns, 0u) << "what was before does not count";
  SetThread(10, 10, 'R', 8'000'000);
  SetThread(10, 12, 'R', 2'000'000);
  threads.Scan();
  EXPECT_EQ(threads.processes()[0].threads[0].credit_ns, 3'000'000u);
  EXPECT_EQ(threads.processes()[0].threads[1].credit_ns, 2'000'000u) << "born since: all of it";
  EXPECT_EQ(threads.cpu_ns(), 5'000'000u);
}

TEST_F(TracedThreadsTest, ChildrenAreFoundAndTheDeadAreToldOnce) {
  TracedThreads threads({Pid{10}}, root_);
  threads.Scan();
  SetThread(10, 10, 'S', 5'000'000, "20 ");
  SetThread(20, 20, 'R', 1'000'000);
  threads.Scan();
  ASSERT_EQ(threads.processes().size(), 2u);
  EXPECT_EQ(threads.processes()[1].pid, Pid{20});
  EXPECT_EQ(threads.processes()[1].parent, Pid{10});
  SetThread(10, 10, 'S', 5'000'000, "");
  fs::remove_all(root_ + "/20");
  threads.Scan();
  ASSERT_EQ(threads.processes().size(), 2u);
  EXPECT_FALSE(threads.processes()[1].alive);
  threads.Scan();
  EXPECT_EQ(threads.processes().size(), 1u);
}

TEST_F(TracedThreadsTest, ThreadNamesComeFromEventsElseFromProc) {
  ThreadNames names(root_);
  EXPECT_EQ(names.Of(Pid{10}, 10), "worker");
  names.Apply({.kind = ProcessEventKind::kComm, .pid = Pid{10}, .tid = 10, .comm = "renamed"});
  EXPECT_EQ(names.Of(Pid{10}, 10), "renamed");
  names.Apply({.kind = ProcessEventKind::kExit, .pid = Pid{10}, .tid = 10});
  EXPECT_EQ(names.Of(Pid{10}, 10), "worker");
  EXPECT_EQ(names.Of(Pid{99}, 99), "");
}

}  // namespace
}  // namespace firewatch::agent
