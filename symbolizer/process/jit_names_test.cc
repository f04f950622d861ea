// SPDX-License-Identifier: Apache-2.0
// A made-up /proc, as in mapped_object_test.cc: PROC/42/root is a directory.
#include "symbolizer/process/jit_names.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "symbolizer/process/jitdump_builder_for_test.h"

namespace firewatch::symbolizer {
namespace {

namespace fs = std::filesystem;

class JitNamesTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(proc_ + "/42/root/tmp");
    WriteStatus(::geteuid());
  }
  void TearDown() override { fs::remove_all(directory_); }

  static std::string MakeDirectory() {
    std::string path = "/tmp/jit_names_test-XXXXXX";
    return ::mkdtemp(path.data()) == nullptr ? "" : path;
  }
  void WriteStatus(uint32_t uid) {
    std::ofstream(proc_ + "/42/status")
        << "Name:\tjava\nUmask:\t0022\nTgid:\t42\nUid:\t" << uid << "\t" << uid << "\t" << uid
        << "\t" << uid << "\nNSpid:\t42\t1007\t7\n";
  }
  void Append(const std::string& text) {
    std::ofstream(map_path_, std::ios::app | std::ios::binary) << text;
  }
  std::string NameAt(uint64_t address) {
    JitSymbol symbol;
    return names_.Lookup(kIncarnation, address, &symbol) ? symbol.name : "-";
  }

  static constexpr uint64_t kIncarnation = 5;
  const std::string directory_ = MakeDirectory();
  const std::string proc_ = directory_ + "/proc";
  const std::string map_path_ = proc_ + "/42/root/tmp/perf-7.map";
  base::FakeClock clock_{{}, 1'000'000'000};
  base::MetricsRegistry metrics_;
  JitNames names_{proc_, clock_, metrics_};
};

TEST(JitOwnerTest, PidIsTheInnermostOne) {
  const auto owner = ParseJitOwner("Name:\tx\nUid:\t1\t2\t3\t4\nNSpid:\t900\t12\t1\n", 900);
  ASSERT_TRUE(owner.ok());
  EXPECT_EQ(owner->inner_pid, 1u);
  EXPECT_EQ(owner->uid, 2u);
  EXPECT_EQ(ParseJitOwner("Uid:\t1\t2\t3\t4\n", 900)->inner_pid, 900u);
  EXPECT_FALSE(ParseJitOwner("Uid:\t1\n", 900).ok());
  EXPECT_FALSE(ParseJitOwner("", 900).ok());
}

TEST_F(JitNamesTest, MapOfTheProcesssOwnNamespacesIsRead) {
  Append("1000 10 in_container\n");
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1008), "in_container");
  EXPECT_EQ(NameAt(0x1010), "-");
}

TEST_F(JitNamesTest, LinesAppendedWhileItRunsAreFound) {
  Append("1000 10 first\n2000 10 half");
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1000), "first");
  EXPECT_EQ(NameAt(0x2000), "-");
  Append("_done\n1000 10 replaced\n");
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1000), "replaced");
  EXPECT_EQ(NameAt(0x2000), "half_done");
}

TEST_F(JitNamesTest, MapThatAppearsLaterIsFoundAfterAWhile) {
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1000), "-");
  Append("1000 10 late\n");
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1000), "-");
  clock_.AdvanceNs(JitNames::kRetryNs);
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1000), "late");
}

TEST_F(JitNamesTest, ProcessThatHasEndedKeepsItsNames) {
  Append("1000 10 short_lived\n");
  names_.Request(42, kIncarnation);
  fs::remove_all(proc_ + "/42");
  EXPECT_EQ(NameAt(0x1000), "short_lived");
}

TEST_F(JitNamesTest, FileOfAnotherUserIsNotBelieved) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to give a file away";
  Append("1000 10 forged\n");
  ASSERT_EQ(::chown(map_path_.c_str(), 4711, 4711), 0);
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1000), "-");
  EXPECT_EQ(OpenPerfMap(proc_, 42, {.inner_pid = 7, .uid = 0}).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(OpenPerfMap(proc_, 42, {.inner_pid = 7, .uid = 4711}).ok());
}

TEST_F(JitNamesTest, FifosLinksAndDirectoriesAreNotOpened) {
  const JitOwner owner = {.inner_pid = 7, .uid = ::geteuid()};
  ASSERT_EQ(::mkfifo(map_path_.c_str(), 0600), 0);
  EXPECT_EQ(OpenPerfMap(proc_, 42, owner).status().code(), absl::StatusCode::kInvalidArgument);
  fs::remove(map_path_);
  fs::create_symlink("/etc/passwd", map_path_);
  EXPECT_EQ(OpenPerfMap(proc_, 42, owner).status().code(), absl::StatusCode::kInvalidArgument);
  fs::remove(map_path_);
  fs::create_directory(map_path_);
  EXPECT_EQ(OpenPerfMap(proc_, 42, owner).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(JitNamesTest, LinkOfTheContainersTmpStaysInside) {
  fs::remove_all(proc_ + "/42/root/tmp");
  fs::create_directories(proc_ + "/42/root/var/scratch");
  fs::create_symlink("/var/scratch", proc_ + "/42/root/tmp");
  std::ofstream(proc_ + "/42/root/var/scratch/perf-7.map") << "1000 10 inside\n";
  names_.Request(42, kIncarnation);
  EXPECT_EQ(NameAt(0x1000), "inside");
}

TEST_F(JitNamesTest, JitDumpComesBeforeThePerfMap) {
  Append("1000 10 map\n2000 10 map_only\n");
  JitDumpBuilder builder;
  builder.DebugInfo(0x1000, {{0x1000, 12, "app.js"}});
  builder.Load(0x1000, 0x10, "dump", 0x10);
  const std::string path = directory_ + "/jit-7.dump";
  std::ofstream(path, std::ios::binary) << builder.bytes();
  names_.Request(42, kIncarnation);
  ASSERT_TRUE(names_.WantsDump(kIncarnation));
  names_.SetDump(kIncarnation, base::UniqueFd(::open(path.c_str(), O_RDONLY)));
  EXPECT_FALSE(names_.WantsDump(kIncarnation));
  JitSymbol symbol;
  ASSERT_TRUE(names_.Lookup(kIncarnation, 0x1001, &symbol));
  EXPECT_EQ(symbol.name, "dump");
  EXPECT_EQ(symbol.file, "app.js");
  EXPECT_EQ(symbol.line, 12u);
  EXPECT_EQ(NameAt(0x2000), "map_only");
}

TEST_F(JitNamesTest, ManyProcessesStayWithinTheBound) {
  Append("1000 10 shared\n");
  for (uint64_t life = 1; life <= 3 * JitNames::kMaxProcesses; ++life) names_.Request(42, life);
  JitSymbol symbol;
  EXPECT_FALSE(names_.Lookup(1, 0x1000, &symbol));
  EXPECT_TRUE(names_.Lookup(3 * JitNames::kMaxProcesses, 0x1000, &symbol));
}

TEST_F(JitNamesTest, OldNamesMakeRoomForNewOnes) {
  std::string text;
  for (size_t i = 0; i < JitNames::kMaxRangesPerFile - 8; ++i) {
    text += fmt::format("{:x} 8 f{}\n", 0x1000 + 16 * i, i);
  }
  Append(text);
  JitSymbol symbol;
  for (uint64_t life = 1; life <= 3; ++life) {
    names_.Request(42, life);
    ASSERT_TRUE(names_.Lookup(life, 0x1000, &symbol)) << life;
  }
  EXPECT_TRUE(names_.Lookup(2, 0x1000, &symbol));
  EXPECT_FALSE(names_.Lookup(1, 0x1000, &symbol));
}

}  // namespace
}  // namespace firewatch::symbolizer
