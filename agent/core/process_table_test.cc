// SPDX-License-Identifier: Apache-2.0
#include "agent/core/process_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/core/losses.h"
#include "agent/core/proc_reader.h"
#include "base/clock.h"
#include "base/status.h"
#include "symbolizer/testing/fake_symbolizer.h"

namespace firewatch::agent {

using symbolizer::FakeSymbolizer;
namespace {

using ::testing::UnorderedElementsAre;

constexpr uint64_t kSecond = 1'000'000'000;

// --- builders ------------------------------------------------------------------------------------

ProcessEvent Fork(uint32_t parent, uint32_t child, uint64_t time_ns) {
  return {.kind = ProcessEventKind::kFork,
          .time_ns = time_ns,
          .pid = Pid{child},
          .parent = Pid{parent},
          .tid = child};
}

ProcessEvent Exec(uint32_t pid, uint64_t time_ns, std::string comm) {
  return {.kind = ProcessEventKind::kExec,
          .time_ns = time_ns,
          .pid = Pid{pid},
          .tid = pid,
          .comm = std::move(comm)};
}

ProcessEvent Mmap(uint32_t pid, uint64_t time_ns, uint64_t start, uint64_t end, std::string path) {
  ProcessEvent event{.kind = ProcessEventKind::kMmap, .time_ns = time_ns, .pid = Pid{pid}};
  event.tid = pid;
  event.start = start;
  event.end = end;
  event.file.path = std::move(path);
  return event;
}

ProcessEvent Comm(uint32_t pid, uint32_t tid, uint64_t time_ns, std::string comm) {
  return {.kind = ProcessEventKind::kComm,
          .time_ns = time_ns,
          .pid = Pid{pid},
          .tid = tid,
          .comm = std::move(comm)};
}

ProcessEvent Exit(uint32_t pid, uint64_t time_ns) {
  return {.kind = ProcessEventKind::kExit, .time_ns = time_ns, .pid = Pid{pid}, .tid = pid};
}

ProcessEvent LostEvents(uint64_t time_ns) {
  return {.kind = ProcessEventKind::kLost, .time_ns = time_ns, .lost = 5};
}

// A /proc of files in a temporary directory.
class FakeProc {
 public:
  FakeProc() {
    char directory[] = "/tmp/firewatch_proc_XXXXXX";
    root_ = ::mkdtemp(directory);
  }
  ~FakeProc() { std::filesystem::remove_all(root_); }

  void Add(uint32_t pid, const std::string& comm, const std::string& exe, const std::string& maps,
           uint32_t parent = 1, uint64_t flags = 0) const {
    const std::string directory = root_ + "/" + std::to_string(pid);
    std::filesystem::remove_all(directory);
    std::filesystem::create_directory(directory);
    std::ofstream(directory + "/stat")
        << pid << " (" << comm << ") R " << parent << " 1 1 0 -1 " << flags << " 0\n";
    std::ofstream(directory + "/maps") << maps;
    std::ofstream(directory + "/cgroup") << "0::/system.slice/unit" << pid << ".service\n";
    if (!exe.empty()) std::filesystem::create_symlink(exe, directory + "/exe");
  }
  void Remove(uint32_t pid) const {
    std::filesystem::remove_all(root_ + "/" + std::to_string(pid));
  }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

class ProcessTableTest : public ::testing::Test {
 protected:
  ProcessTable Make(size_t max_processes = 32'768, size_t max_exited = 2'048) {
    return ProcessTable({.proc_root = proc_.root(),
                         .cgroup_root = "/nonexistent",
                         .node = "n1",
                         .max_processes = max_processes,
                         .max_exited = max_exited},
                        symbolizer_, metrics_);
  }

  const Process& Sample(ProcessTable& table, uint32_t pid, uint64_t time_ns,
                        std::string_view comm = "sampled") {
    return table.ForSample(Pid{pid}, time_ns, comm, /*cgroup_id=*/0, /*kernel_thread=*/false);
  }

  uint64_t Lost(fw_loss loss) { return LossCounter(metrics_, loss).value(); }

  FakeProc proc_;
  FakeSymbolizer symbolizer_;
  base::MetricsRegistry metrics_;
};

constexpr char kShellMaps[] = "1000-2000 r-xp 00000000 fe:00 5 /bin/sh\n";

// --- lives ---------------------------------------------------------------------------------------

TEST_F(ProcessTableTest, ForkSharesTheMappingsOfItsParentWithoutACopy) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "sh"));
  table.Apply(Mmap(10, 101, 0x1000, 0x2000, "/bin/sh"));
  table.Apply(Fork(10, 11, 200));
  const Process& child = Sample(table, 11, 201);
  const Process& parent = Sample(table, 10, 201);
  EXPECT_EQ(child.mappings, parent.mappings);
  EXPECT_EQ(child.parent, Pid{10});
  EXPECT_EQ(child.comm, "sh");
  EXPECT_EQ(child.exe_path, "/bin/sh");
  EXPECT_NE(child.incarnation, parent.incarnation);
}

TEST_F(ProcessTableTest, TellsTheFilesOfAllLives) {
  ProcessTable table = Make();
  table.Apply(Exec(7, 10, "old"));
  table.Apply(Mmap(7, 11, 0x1000, 0x2000, "/bin/old"));
  table.Apply(Exec(7, 20, "new"));
  table.Apply(Mmap(7, 21, 0x1000, 0x2000, "/bin/new"));
  const symbolizer::FileId old = symbolizer_.Intern({.path = "/bin/old"});
  const symbolizer::FileId now = symbolizer_.Intern({.path = "/bin/new"});
  symbolizer::FileSet kept;
  table.AddFiles(&kept);
  EXPECT_TRUE(kept.contains(old)) << "samples of the life before exec may be on their way";
  EXPECT_TRUE(kept.contains(now));
  table.Expire(30);
  kept = {};
  table.AddFiles(&kept);
  EXPECT_FALSE(kept.contains(old));
  EXPECT_TRUE(kept.contains(now));
}

TEST_F(ProcessTableTest, MappingOfTheChildIsNotTheParents) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "sh"));
  table.Apply(Mmap(10, 101, 0x1000, 0x2000, "/bin/sh"));
  table.Apply(Fork(10, 11, 200));
  table.Apply(Mmap(11, 201, 0x3000, 0x4000, "/lib/x.so"));
  EXPECT_NE(Sample(table, 11, 300).mappings->Find(0x3000), nullptr);
  EXPECT_NE(Sample(table, 11, 300).mappings->Find(0x1000), nullptr);
  EXPECT_EQ(Sample(table, 10, 300).mappings->Find(0x3000), nullptr);
}

TEST_F(ProcessTableTest, MappingsHeldByAWindowDoNotChangeUnderIt) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "a"));
  table.Apply(Mmap(10, 101, 0x1000, 0x2000, "/bin/a"));
  const auto held = Sample(table, 10, 102).mappings;
  table.Apply(Mmap(10, 103, 0x3000, 0x4000, "/lib/x.so"));
  EXPECT_EQ(held->all().size(), 1u);
  EXPECT_EQ(Sample(table, 10, 104).mappings->all().size(), 2u);
}

TEST_F(ProcessTableTest, ExecClearsMappingsAndTakesTheFirstFileForTheExecutable) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "sh"));
  table.Apply(Mmap(10, 101, 0x1000, 0x2000, "/bin/sh"));
  const uint64_t before = Sample(table, 10, 102).incarnation;
  table.Apply(Exec(10, 200, "tool"));
  table.Apply(Mmap(10, 201, 0x5000, 0x6000, "//anon"));
  table.Apply(Mmap(10, 202, 0x7000, 0x8000, "/opt/tool (deleted)"));
  table.Apply(Mmap(10, 203, 0x9000, 0xa000, "/lib/ld.so"));
  const Process& process = Sample(table, 10, 300);
  EXPECT_EQ(process.exe_path, "/opt/tool");
  EXPECT_EQ(process.comm, "tool");
  EXPECT_EQ(process.mappings->Find(0x1000), nullptr);
  EXPECT_TRUE(process.mappings->Find(0x5000)->anonymous);
  EXPECT_NE(process.incarnation, before);
}

TEST_F(ProcessTableTest, SampleFromBeforeExecBelongsToTheEarlierLife) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "sh"));
  table.Apply(Mmap(10, 101, 0x1000, 0x2000, "/bin/sh"));
  table.Apply(Exec(10, 200, "tool"));
  table.Apply(Mmap(10, 201, 0x7000, 0x8000, "/opt/tool"));
  EXPECT_EQ(Sample(table, 10, 199).exe_path, "/bin/sh");
  EXPECT_TRUE(Sample(table, 10, 199).exited);
  EXPECT_EQ(Sample(table, 10, 200).exe_path, "/opt/tool");
}

TEST_F(ProcessTableTest, LateSampleFindsTheProcessThatHasExited) {
  ProcessTable table = Make();
  table.Apply(Fork(1, 10, 100));
  table.Apply(Exec(10, 101, "short"));
  table.Apply(Mmap(10, 102, 0x1000, 0x2000, "/bin/short"));
  table.Apply(Exit(10, 50'000'000));
  const Process& process = Sample(table, 10, 49'000'000);
  EXPECT_TRUE(process.exited);
  EXPECT_EQ(process.exe_path, "/bin/short");
  EXPECT_EQ(process.labels->Get("service"), "short");
  EXPECT_EQ(Lost(FW_LOSS_PROCESS_UNKNOWN), 0u);
}

TEST_F(ProcessTableTest, ReusedPidIsAnotherProcess) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "one"));
  table.Apply(Mmap(10, 101, 0x1000, 0x2000, "/bin/one"));
  table.Apply(Exit(10, 200));
  table.Apply(Fork(1, 10, 300));
  table.Apply(Exec(10, 301, "two"));
  table.Apply(Mmap(10, 302, 0x1000, 0x2000, "/bin/two"));
  EXPECT_EQ(Sample(table, 10, 150).exe_path, "/bin/one");
  EXPECT_EQ(Sample(table, 10, 350).exe_path, "/bin/two");
}

TEST_F(ProcessTableTest, ExitThatComesAfterThePidWasReusedIsIgnored) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 300, "two"));
  table.Apply(Exit(10, 200));
  EXPECT_FALSE(Sample(table, 10, 350).exited);
}

TEST_F(ProcessTableTest, ThreadsNeverMakeProcesses) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "server"));
  ProcessEvent thread = Fork(10, 10, 200);
  thread.tid = 11;
  table.Apply(thread);
  table.Apply(Comm(10, 11, 201, "worker"));
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(Sample(table, 10, 202).comm, "server");
  table.Apply(Comm(10, 10, 203, "renamed"));
  EXPECT_EQ(Sample(table, 10, 204).comm, "renamed");
}

TEST_F(ProcessTableTest, LabelsAreMadeOncePerLife) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "a"));
  table.Apply(Mmap(10, 101, 0x1000, 0x2000, "/bin/a"));
  const auto labels = Sample(table, 10, 102).labels;
  table.Apply(Comm(10, 10, 103, "b"));
  EXPECT_EQ(Sample(table, 10, 104).labels, labels);
  EXPECT_EQ(labels->Get("exe"), "/bin/a");
  EXPECT_EQ(labels->Get("node"), "n1");
}

TEST_F(ProcessTableTest, ChildThatIsGoneHasTheCgroupOfItsParent) {
  proc_.Add(10, "a", "/bin/a", kShellMaps);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  Sample(table, 10, 100);
  table.Apply(Fork(10, 11, base::SystemClock().MonotonicNs()));
  const uint64_t later = base::SystemClock().MonotonicNs();
  table.Apply(Exit(11, later));
  EXPECT_EQ(Sample(table, 11, later).labels->Get("service"), "unit10");
}

TEST_F(ProcessTableTest, ChildOfAParentThatWasNeverSampledHasItsCgroupToo) {
  proc_.Add(10, "a", "/bin/a", kShellMaps);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  const uint64_t now = base::SystemClock().MonotonicNs();
  table.Apply(Fork(10, 11, now));
  table.Apply(Exit(11, now + 1));
  EXPECT_EQ(Sample(table, 11, now).labels->Get("cgroup"), "/system.slice/unit10.service");
}

// --- /proc ---------------------------------------------------------------------------------------

TEST_F(ProcessTableTest, PrimedProcessIsKnown) {
  proc_.Add(10, "my (sh)", "/bin/sh (deleted)", kShellMaps, 7);
  proc_.Add(2, "kthreadd", "", "", 0, 0x00200000);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  EXPECT_EQ(table.size(), 2u);
  const Process& process = Sample(table, 10, 1);
  EXPECT_EQ(process.comm, "my (sh)");
  EXPECT_EQ(process.exe_path, "/bin/sh");
  EXPECT_EQ(process.parent, Pid{7});
  EXPECT_NE(process.mappings->Find(0x1800), nullptr);
  EXPECT_EQ(process.labels->Get("service"), "unit10");
  const Process& thread = Sample(table, 2, 1);
  EXPECT_TRUE(thread.kernel_thread);
  EXPECT_EQ(thread.labels->Get("service"), "kernel");
}

TEST_F(ProcessTableTest, PrimingWithoutProcIsAnError) {
  ProcessTable table({.proc_root = "/nonexistent"}, symbolizer_, metrics_);
  EXPECT_FALSE(table.PrimeFromProc().ok());
}

TEST_F(ProcessTableTest, ForkThatProcAlreadyShowedKeepsWhatProcSaid) {
  proc_.Add(10, "parent", "/bin/parent", "5000-6000 r-xp 0 fe:00 6 /bin/parent\n");
  proc_.Add(11, "child", "/bin/child", kShellMaps);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  table.Apply(Fork(10, 11, 1000));  // recorded before /proc was read
  const Process& child = Sample(table, 11, 2000);
  EXPECT_EQ(child.exe_path, "/bin/child");
  EXPECT_EQ(child.parent, Pid{10});
  EXPECT_NE(child.mappings->Find(0x1000), nullptr);
}

TEST_F(ProcessTableTest, UnknownPidIsReadFromProcOnce) {
  proc_.Add(10, "a", "/bin/a", kShellMaps);
  ProcessTable table = Make();
  EXPECT_EQ(Sample(table, 10, 100).exe_path, "/bin/a");
  proc_.Remove(10);
  EXPECT_EQ(Sample(table, 10, 200).exe_path, "/bin/a");
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(Lost(FW_LOSS_PROCESS_UNKNOWN), 0u);
}

TEST_F(ProcessTableTest, UnknownPidThatIsGoneIsMadeUpFromItsName) {
  ProcessTable table = Make();
  const Process& process = Sample(table, 10, 100, "ghost");
  EXPECT_EQ(process.comm, "ghost");
  EXPECT_EQ(process.labels->Get("service"), "ghost");
  ASSERT_NE(process.mappings, nullptr);
  EXPECT_TRUE(process.mappings->all().empty());
  Sample(table, 10, 101, "ghost");
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(Lost(FW_LOSS_PROCESS_UNKNOWN), 2u);
}

TEST_F(ProcessTableTest, ReadsOfUnknownPidsAreBoundedPerSecond) {
  for (uint32_t pid = 1000; pid < 1250; ++pid) proc_.Add(pid, "a", "/bin/a", kShellMaps);
  ProcessTable table = Make();
  size_t known = 0;
  for (uint32_t pid = 1000; pid < 1250; ++pid) {
    if (!Sample(table, pid, kSecond).mappings->all().empty()) ++known;
  }
  EXPECT_EQ(known, 200u);
  // The next second makes up for it.
  EXPECT_FALSE(Sample(table, 1249, 2 * kSecond).mappings->all().empty());
}

TEST_F(ProcessTableTest, MadeUpProcessesAreForgottenWhenTheyAreNotInProc) {
  ProcessTable table = Make();
  for (uint32_t pid = 1000; pid < 1250; ++pid) Sample(table, pid, kSecond);
  EXPECT_EQ(table.size(), 250u);
  table.Expire(0);
  table.Expire(2 * kSecond);
  EXPECT_EQ(table.size(), 0u);
}

TEST_F(ProcessTableTest, MappingOfAPidNeverSeenIsCompletedAtTheFirstSample) {
  proc_.Add(10, "a", "/bin/a", "1000-2000 r-xp 0 fe:00 5 /bin/a\n7000-8000 r-xp 0 fe:00 6 /l.so\n");
  ProcessTable table = Make();
  table.Apply(Mmap(10, 100, 0x7000, 0x8000, "/l.so"));
  const Process& process = Sample(table, 10, 200);
  EXPECT_NE(process.mappings->Find(0x1000), nullptr);
  EXPECT_NE(process.mappings->Find(0x7000), nullptr);
  EXPECT_EQ(process.exe_path, "/bin/a");
}

TEST_F(ProcessTableTest, AfterLostEventsAKnownProcessIsLookedAtAgain) {
  proc_.Add(10, "old", "/bin/old", kShellMaps);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  const uint64_t before = Sample(table, 10, 100).incarnation;
  proc_.Add(10, "new", "/bin/new", "9000-a000 r-xp 0 fe:00 9 /bin/new\n");
  EXPECT_EQ(Sample(table, 10, 200).exe_path, "/bin/old");
  table.Apply(LostEvents(300));
  const Process& process = Sample(table, 10, 400);
  EXPECT_EQ(process.exe_path, "/bin/new");
  EXPECT_NE(process.incarnation, before);
  EXPECT_NE(process.mappings->Find(0x9000), nullptr);
}

TEST_F(ProcessTableTest, LostEventsSendProcessesBackToProcAtMostEveryTenSeconds) {
  proc_.Add(10, "a", "/bin/a", kShellMaps);
  ProcessTable table = Make();
  base::Counter& reads =
      metrics_.AddCounter("firewatch_agent_proc_reads_total", "Processes read from /proc.");
  for (uint64_t second = 100; second < 130; ++second) {
    table.Apply(LostEvents(second * kSecond));
    for (int i = 0; i < 50; ++i) Sample(table, 10, second * kSecond + 1);
  }
  EXPECT_GE(reads.value(), 3u);
  EXPECT_LE(reads.value(), 4u);
}

TEST_F(ProcessTableTest, AfterLostEventsProcessesThatAreGoneAreFound) {
  proc_.Add(10, "a", "/bin/a", kShellMaps);
  proc_.Add(11, "b", "/bin/b", kShellMaps);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  proc_.Remove(10);
  table.Apply(LostEvents(100));
  table.Expire(0);
  EXPECT_TRUE(Sample(table, 10, 100).exited);
  EXPECT_FALSE(Sample(table, 11, 100).exited);
}

TEST_F(ProcessTableTest, ProcessWhoseMainThreadEndedLivesOn) {
  proc_.Add(10, "a", "/bin/a", kShellMaps);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  const uint64_t incarnation = Sample(table, 10, 1).incarnation;
  table.Apply(Exit(10, kSecond));
  EXPECT_TRUE(Sample(table, 10, kSecond).exited);
  const Process& process = Sample(table, 10, 2 * kSecond);
  EXPECT_FALSE(process.exited);
  EXPECT_EQ(process.incarnation, incarnation);
  table.Expire(3 * kSecond);
  EXPECT_EQ(table.size(), 1u);
}

TEST_F(ProcessTableTest, ExecOfAThreadThatOutlivedItsMainThreadKeepsTheParent) {
  ProcessTable table = Make();
  table.Apply(Fork(5, 10, 100));
  table.Apply(Exit(10, 200));  // the main thread, killed by the exec of another one
  table.Apply(Exec(10, 201, "next"));
  const Process& process = Sample(table, 10, 300);
  EXPECT_EQ(process.parent, Pid{5});
  EXPECT_FALSE(process.exited);
}

TEST_F(ProcessTableTest, KernelThreadIsKnownByItsSampleWhenEventsDoNotSay) {
  ProcessTable table = Make();
  table.Apply(Fork(2, 30, 100));
  const Process& process = table.ForSample(Pid{30}, 200, "kworker/0:1", 0, /*kernel_thread=*/true);
  EXPECT_TRUE(process.kernel_thread);
  EXPECT_EQ(process.labels->Get("service"), "kernel");
}

TEST_F(ProcessTableTest, TableGivenOutAsEventsMakesTheSameTable) {
  proc_.Add(10, "a", "/bin/a", "1000-2000 r-xp 5000 fe:00 5 /bin/a\n7000-8000 rwxp 0 00:00 0 \n",
            7);
  ProcessTable table = Make();
  ASSERT_TRUE(table.PrimeFromProc().ok());
  ProcessTable copy({.proc_root = "/nonexistent", .node = "n1"}, symbolizer_, metrics_);
  table.ForEachAsEvents([&copy](const ProcessEvent& event) { copy.Apply(event); });
  const Process& process = Sample(copy, 10, 100);
  EXPECT_EQ(process.comm, "a");
  EXPECT_EQ(process.parent, Pid{7});
  EXPECT_EQ(process.exe_path, "/bin/a");
  ASSERT_NE(process.mappings->Find(0x1000), nullptr);
  EXPECT_EQ(process.mappings->Find(0x1000)->file_offset, 0x5000u);
  ASSERT_NE(process.mappings->Find(0x7000), nullptr);
  EXPECT_TRUE(process.mappings->Find(0x7000)->anonymous);
}

// --- bounds --------------------------------------------------------------------------------------

TEST_F(ProcessTableTest, ExpireForgetsOnlyWhatExitedBefore) {
  ProcessTable table = Make();
  for (uint32_t pid = 10; pid < 13; ++pid) table.Apply(Exec(pid, 100, "a"));
  table.Apply(Exit(10, 200));
  table.Apply(Exit(11, 300));
  table.Expire(300);
  EXPECT_EQ(table.size(), 2u);
  table.Expire(301);
  EXPECT_EQ(table.size(), 1u);
}

TEST_F(ProcessTableTest, TombstonesAreBoundedOldestFirst) {
  ProcessTable table = Make(100, /*max_exited=*/3);
  for (uint32_t pid = 10; pid < 20; ++pid) {
    table.Apply(Exec(pid, pid * 10, "a"));
    table.Apply(Mmap(pid, pid * 10 + 1, 0x1000, 0x2000, "/bin/a"));
    table.Apply(Exit(pid, pid * 10 + 5));
  }
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(Sample(table, 19, 191).exe_path, "/bin/a");
  EXPECT_EQ(Sample(table, 16, 161).exe_path, "");
}

TEST_F(ProcessTableTest, FullTableCountsAndStillAttributesSamples) {
  ProcessTable table = Make(/*max_processes=*/5, /*max_exited=*/3);
  for (uint32_t pid = 10; pid < 30; ++pid) {
    table.Apply(Exec(pid, 100, "p" + std::to_string(pid)));
  }
  EXPECT_EQ(Lost(FW_LOSS_PROCESS_TABLE_FULL), 15u);
  EXPECT_EQ(table.size(), 8u);
  EXPECT_EQ(Sample(table, 10, 200).comm, "p10");
  EXPECT_EQ(Sample(table, 29, 200).comm, "p29");
  EXPECT_EQ(Sample(table, 999, 200, "stranger").comm, "stranger");
}

TEST_F(ProcessTableTest, FullTableRecoversWhenProcessesEnd) {
  ProcessTable table = Make(/*max_processes=*/2, /*max_exited=*/2);
  table.Apply(Exec(10, 100, "a"));
  table.Apply(Exec(11, 100, "b"));
  table.Apply(Exit(10, 200));
  table.Apply(Exec(12, 300, "c"));
  EXPECT_EQ(Lost(FW_LOSS_PROCESS_TABLE_FULL), 0u);
}

TEST_F(ProcessTableTest, DescendantsAreLivingAndReachedThroughTheDead) {
  ProcessTable table = Make();
  table.Apply(Exec(10, 100, "a"));
  table.Apply(Fork(10, 11, 101));
  table.Apply(Fork(11, 12, 102));
  table.Apply(Fork(12, 13, 103));
  table.Apply(Fork(1, 20, 104));
  table.Apply(Exit(11, 200));
  EXPECT_THAT(table.Descendants(Pid{10}), UnorderedElementsAre(Pid{10}, Pid{12}, Pid{13}));
  EXPECT_THAT(table.Descendants(Pid{12}), UnorderedElementsAre(Pid{12}, Pid{13}));
  EXPECT_TRUE(table.Descendants(Pid{999}).empty());
}

// --- the real machine ----------------------------------------------------------------------------

TEST(ProcessTableProcTest, ThisProcessIsPrimedWithItsMappings) {
  FakeSymbolizer symbolizer;
  base::MetricsRegistry metrics;
  ProcessTable table({}, symbolizer, metrics);
  ASSERT_TRUE(table.PrimeFromProc().ok());
  const Process& self = table.ForSample(Pid{static_cast<uint32_t>(::getpid())}, 1, "x", 0, false);
  EXPECT_EQ(self.exe_path, std::filesystem::read_symlink("/proc/self/exe").string());
  const auto* mapping = self.mappings->Find(reinterpret_cast<uint64_t>(&ParseProcMaps));
  ASSERT_NE(mapping, nullptr);
  EXPECT_EQ(symbolizer.Info(mapping->file).path, self.exe_path);
  EXPECT_EQ(self.parent, Pid{static_cast<uint32_t>(::getppid())});
  EXPECT_FALSE(self.labels->Get("node").empty());
}

}  // namespace
}  // namespace firewatch::agent
