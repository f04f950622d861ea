// SPDX-License-Identifier: Apache-2.0
#include "agent/core/process_directory.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "agent/core/process_table.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;

class ProcessDirectoryTest : public ::testing::Test {
 protected:
  ProcessDirectoryTest() {
    root_ = ::testing::TempDir() + "directory_XXXXXX";
    EXPECT_NE(::mkdtemp(root_.data()), nullptr);
    std::filesystem::create_directories(root_ + "/cgroup");
  }
  ~ProcessDirectoryTest() override { std::filesystem::remove_all(root_); }

  ProcessDirectory& Make(ProcessDirectoryOptions options = {}) {
    options.proc_root = root_ + "/proc";
    options.cgroup_root = root_ + "/cgroup";
    options.labels.node = "n1";
    directory_ = std::make_unique<ProcessDirectory>(std::move(options), clock_, metrics_);
    return *directory_;
  }

  void WriteProc(uint32_t pid, const std::string& comm, const std::string& exe,
                 const std::string& cgroup) {
    const std::string folder = root_ + "/proc/" + std::to_string(pid);
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/stat") << pid << " (" << comm << ") S 1 1 1 0 -1 4194304 0 0 0 0\n";
    std::ofstream(folder + "/cgroup") << "0::" << cgroup << "\n";
    std::filesystem::remove(folder + "/exe");
    std::filesystem::create_symlink(exe, folder + "/exe");
  }

  std::string root_;
  base::MetricsRegistry metrics_;
  base::FakeClock clock_{{}, 100 * kSecondNs};
  std::unique_ptr<ProcessDirectory> directory_;
};

TEST_F(ProcessDirectoryTest, EndedProcessIsKnownForAMinute) {
  ProcessDirectory& directory = Make();
  directory.Began(Pid{7}, Pid{1}, 90 * kSecondNs);
  directory.Describe(Pid{7}, "curl", "/usr/bin/curl", 0, false);
  directory.Ended(Pid{7}, 91 * kSecondNs);
  const auto info = directory.Find(Pid{7}, {.time_ns = 90'500'000'000});
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->comm, "curl");
  EXPECT_EQ(info->exe_path, "/usr/bin/curl");
  EXPECT_EQ(info->end_ns, 91 * kSecondNs);
  EXPECT_EQ(info->labels->Get("service"), "curl");
  EXPECT_EQ(info->labels->Get("node"), "n1");

  directory.Began(Pid{8}, Pid{1}, 152 * kSecondNs);
  EXPECT_FALSE(directory.Find(Pid{7}).has_value());
}

TEST_F(ProcessDirectoryTest, TimeTellsTheLivesOfAnExecApart) {
  ProcessDirectory& directory = Make();
  directory.Began(Pid{7}, Pid{1}, 10 * kSecondNs);
  directory.Describe(Pid{7}, "sh", "/bin/sh", 0, false);
  directory.Ended(Pid{7}, 20 * kSecondNs);
  directory.Began(Pid{7}, Pid{1}, 20 * kSecondNs);
  directory.Describe(Pid{7}, "nginx", "/usr/sbin/nginx", 0, false);
  EXPECT_EQ(directory.Find(Pid{7}, {.time_ns = 15 * kSecondNs})->exe_path, "/bin/sh");
  EXPECT_EQ(directory.Find(Pid{7}, {.time_ns = 25 * kSecondNs})->exe_path, "/usr/sbin/nginx");
  EXPECT_EQ(directory.Find(Pid{7}, {.time_ns = 5 * kSecondNs})->exe_path, "/bin/sh");
  EXPECT_EQ(directory.Find(Pid{7})->exe_path, "/usr/sbin/nginx");
}

TEST_F(ProcessDirectoryTest, ForkedChildTakesAfterItsParent) {
  ProcessDirectory& directory = Make();
  directory.Began(Pid{7}, Pid{1}, 10 * kSecondNs);
  directory.Describe(Pid{7}, "redis", "/usr/bin/redis", 0, false);
  directory.Began(Pid{8}, Pid{7}, 11 * kSecondNs);
  const auto child = directory.Find(Pid{8});
  ASSERT_TRUE(child.has_value());
  EXPECT_EQ(child->comm, "redis");
  EXPECT_EQ(child->exe_path, "/usr/bin/redis");
  EXPECT_EQ(child->parent, Pid{7});
}

TEST_F(ProcessDirectoryTest, WithoutAFeederProcAnswers) {
  ProcessDirectory& directory = Make();
  WriteProc(9, "postgres", "/usr/bin/postgres", "/system.slice/postgresql.service");
  auto info = directory.Find(Pid{9});
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->exe_path, "/usr/bin/postgres");
  EXPECT_EQ(info->labels->Get("service"), "postgresql");

  // Another process has the pid: seen when what was read is five seconds old.
  WriteProc(9, "vim", "/usr/bin/vim", "/user.slice");
  clock_.AdvanceNs(6 * kSecondNs);
  info = directory.Find(Pid{9});
  EXPECT_EQ(info->exe_path, "/usr/bin/vim");
  EXPECT_EQ(directory.Find(Pid{9}, {.time_ns = 101 * kSecondNs})->exe_path, "/usr/bin/postgres");
}

TEST_F(ProcessDirectoryTest, UnknownPidHasNoAnswerButForHints) {
  ProcessDirectory& directory = Make();
  EXPECT_FALSE(directory.Find(Pid{77}).has_value());
  const auto info = directory.Find(Pid{77}, {.comm = "short"});
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->labels->Get("service"), "short");
  EXPECT_EQ(metrics_.AddCounter("firewatch_agent_directory_made_up_total", "").value(), 1u);
}

TEST_F(ProcessDirectoryTest, LabelsAreMadeOfWhatLittleIsKnown) {
  ProcessDirectory& directory = Make();
  const auto labels = directory.LabelsOf("dialer", "main", 0);
  EXPECT_EQ(labels->Get("exe"), "dialer");
  EXPECT_EQ(labels->Get("service"), "dialer");
  EXPECT_EQ(labels->Get("comm"), "main");
  const auto nobody = directory.LabelsOf("", "", 0);
  EXPECT_EQ(nobody->Get("service"), "");
  EXPECT_EQ(nobody->Get("node"), labels->Get("node"));
  EXPECT_EQ(metrics_.AddCounter("firewatch_agent_directory_made_up_total", "").value(), 0u);
}

TEST_F(ProcessDirectoryTest, ReadsOfProcAreBoundedPerSecond) {
  ProcessDirectory& directory = Make();
  for (uint32_t pid = 1000; pid < 2000; ++pid) directory.Find(Pid{pid});
  EXPECT_EQ(metrics_.AddCounter("firewatch_agent_directory_proc_reads_total", "").value(), 200u);
}

TEST_F(ProcessDirectoryTest, LivingAndEndedAreBounded) {
  ProcessDirectory& directory = Make({.max_living = 100, .max_ended = 50});
  for (uint32_t pid = 1; pid <= 1000; ++pid) {
    directory.Began(Pid{pid}, Pid{0}, pid);
    if (pid > 100) directory.Ended(Pid{pid - 100}, pid);
  }
  EXPECT_LE(directory.living(), 100u);
  EXPECT_LE(directory.ended(), 50u);
  for (uint32_t pid = 1; pid <= 1000; ++pid) directory.Ended(Pid{pid}, 2000);
  EXPECT_EQ(directory.living(), 0u);
  EXPECT_EQ(directory.ended(), 50u);
}

TEST_F(ProcessDirectoryTest, TableFeedsItWithEveryLife) {
  ProcessDirectory& directory = Make();
  auto symbolizer = symbolizer::Symbolizer::Create({.cache_directory = root_ + "/cache"}, metrics_);
  ASSERT_TRUE(symbolizer.ok()) << base::ToString(symbolizer.status());
  {
    ProcessTable table({.proc_root = root_ + "/proc",
                        .cgroup_root = root_ + "/cgroup",
                        .node = "n1",
                        .directory = &directory},
                       **symbolizer, metrics_);
    table.Apply({.kind = ProcessEventKind::kFork,
                 .time_ns = 10 * kSecondNs,
                 .pid = Pid{50},
                 .parent = Pid{2},
                 .tid = 50});
    table.Apply({.kind = ProcessEventKind::kExec,
                 .time_ns = 11 * kSecondNs,
                 .pid = Pid{50},
                 .tid = 50,
                 .comm = "worker"});
    table.Apply({.kind = ProcessEventKind::kMmap,
                 .time_ns = 11 * kSecondNs + 1,
                 .pid = Pid{50},
                 .tid = 50,
                 .start = 0x1000,
                 .end = 0x2000,
                 .file = {.path = "/opt/worker"}});
    auto info = directory.Find(Pid{50});
    ASSERT_TRUE(info.has_value());
    EXPECT_EQ(info->comm, "worker");
    EXPECT_EQ(info->exe_path, "/opt/worker");
    EXPECT_EQ(info->parent, Pid{2});
    EXPECT_EQ(info->start_ns, 11 * kSecondNs);
    table.Apply(
        {.kind = ProcessEventKind::kExit, .time_ns = 12 * kSecondNs, .pid = Pid{50}, .tid = 50});
    EXPECT_EQ(directory.Find(Pid{50})->end_ns, 12 * kSecondNs);
    // The labels of profiles and those of anybody else are the same.
    table.Apply({.kind = ProcessEventKind::kFork,
                 .time_ns = 13 * kSecondNs,
                 .pid = Pid{51},
                 .parent = Pid{2},
                 .tid = 51});
    const Process& sampled = table.ForSample(Pid{51}, 14 * kSecondNs, "w", 0, false);
    EXPECT_EQ(directory.Find(Pid{51})->labels, sampled.labels);
  }
  EXPECT_TRUE(directory.Find(Pid{50}).has_value());  // it outlives the table
}

TEST_F(ProcessDirectoryTest, FeederAndAskersMayRunAtOnce) {
  ProcessDirectory& directory = Make();
  std::thread feeder([&directory] {
    for (uint32_t i = 1; i <= 20'000; ++i) {
      directory.Began(Pid{i % 500 + 1}, Pid{1}, i * 1000);
      directory.Describe(Pid{i % 500 + 1}, "a", "/a", 0, false);
      if (i % 2 == 0) directory.Ended(Pid{i % 500 + 1}, i * 1000 + 1);
    }
  });
  for (uint32_t i = 0; i < 20'000; ++i) {
    const auto info = directory.Find(Pid{i % 500 + 1});
    if (info) ASSERT_NE(info->labels, nullptr);
  }
  feeder.join();
  for (uint32_t pid = 1; pid <= 500; ++pid) EXPECT_TRUE(directory.Find(Pid{pid}).has_value());
}

}  // namespace
}  // namespace firewatch::agent
