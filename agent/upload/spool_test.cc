// SPDX-License-Identifier: Apache-2.0
#include "agent/upload/spool.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "agent/core/losses.h"
#include "agent/upload/spool_file.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::HasSubstr;

class SpoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "/tmp/firewatch_spool_XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    root_ = directory;
    directory_ = root_ + "/a/spool";
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::unique_ptr<Spool> Open(uint64_t max_bytes = 1 << 20) {
    auto spool = Spool::Open(directory_, max_bytes, metrics_);
    EXPECT_TRUE(spool.ok()) << base::ToString(spool.status());
    return spool.ok() ? *std::move(spool) : nullptr;
  }

  static uint64_t PutNext(Spool& spool, std::string_view payload) {
    const auto sequence = spool.TakeSequence();
    EXPECT_TRUE(sequence.ok());
    const absl::Status status = spool.Put(*sequence, payload);
    EXPECT_TRUE(status.ok()) << base::ToString(status);
    return *sequence;
  }

  std::string WindowPath(uint64_t sequence) const {
    return fmt::format("{}/{:020}.window", directory_, sequence);
  }
  void Overwrite(const std::string& path, const std::string& bytes) const {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  std::string Bytes(const std::string& path) const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& item : std::filesystem::directory_iterator(directory_)) {
      names.push_back(item.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  uint64_t Lost(fw_loss loss) { return LossCounter(metrics_, loss).value(); }

  std::string root_;
  std::string directory_;
  base::MetricsRegistry metrics_;
};

TEST_F(SpoolTest, WindowComesBackAsItWas) {
  const auto spool = Open();
  const std::string payload("a\0b", 3);
  const uint64_t sequence = PutNext(*spool, payload);
  EXPECT_EQ(sequence, 1u);
  EXPECT_EQ(spool->Oldest(), 1u);
  EXPECT_EQ(*spool->Read(1), payload);
  EXPECT_EQ(spool->windows(), 1u);
  EXPECT_EQ(spool->bytes(), 3 + kSpoolHeaderBytes);
  spool->Remove(1);
  EXPECT_EQ(spool->Oldest(), std::nullopt);
  EXPECT_EQ(spool->bytes(), 0u);
}

TEST_F(SpoolTest, DirectoryIsClosedToOthers) {
  Open();
  struct stat info{};
  ASSERT_EQ(::stat(directory_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(SpoolTest, OldestComesFirst) {
  const auto spool = Open();
  for (int i = 0; i < 12; ++i) PutNext(*spool, "x");
  for (uint64_t expected = 1; expected <= 12; ++expected) {
    ASSERT_EQ(spool->Oldest(), expected);
    spool->Remove(expected);
  }
}

TEST_F(SpoolTest, RestartKeepsIdWindowsAndCounting) {
  std::string id;
  {
    const auto spool = Open();
    id = spool->agent_id();
    EXPECT_EQ(id.size(), 16u);
    PutNext(*spool, "one");
    PutNext(*spool, "two");
    spool->Remove(2);
  }
  const auto spool = Open();
  EXPECT_EQ(spool->agent_id(), id);
  EXPECT_EQ(*spool->Read(1), "one");
  EXPECT_EQ(*spool->TakeSequence(), 3u);
}

TEST_F(SpoolTest, IdsOfTwoAgentsDiffer) {
  const auto one = Open();
  const std::string id = one->agent_id();
  directory_ = root_ + "/b";
  EXPECT_NE(Open()->agent_id(), id);
}

TEST_F(SpoolTest, SecondAgentOnTheDirectoryIsRefused) {
  const auto spool = Open();
  const auto second = Spool::Open(directory_, 1 << 20, metrics_);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  EXPECT_THAT(base::ToString(second.status()), HasSubstr("in use by another agent"));
}

TEST_F(SpoolTest, DirectoryThatCannotBeMadeIsAnError) {
  directory_ = "/proc/firewatch/spool";
  EXPECT_FALSE(Spool::Open(directory_, 1 << 20, metrics_).ok());
  EXPECT_FALSE(Spool::Open("", 1 << 20, metrics_).ok());
}

TEST_F(SpoolTest, BoundDropsTheOldest) {
  const uint64_t size = 1000 + kSpoolHeaderBytes;
  const auto spool = Open(3 * size);
  for (int i = 0; i < 5; ++i) PutNext(*spool, std::string(1000, 'x'));
  EXPECT_EQ(spool->Oldest(), 3u);
  EXPECT_EQ(spool->windows(), 3u);
  EXPECT_EQ(spool->bytes(), 3 * size);
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DROPPED), 2u);
  EXPECT_FALSE(std::filesystem::exists(WindowPath(1)));
  EXPECT_TRUE(absl::IsNotFound(spool->Read(1).status()));
}

TEST_F(SpoolTest, SmallerBoundAfterARestartDropsTheOldest) {
  {
    const auto spool = Open();
    for (int i = 0; i < 5; ++i) PutNext(*spool, std::string(1000, 'x'));
  }
  const auto spool = Open(2 * (1000 + kSpoolHeaderBytes));
  EXPECT_EQ(spool->Oldest(), 4u);
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DROPPED), 3u);
}

TEST_F(SpoolTest, WindowLargerThanTheBoundIsRefusedAndDropsNothingElse) {
  const auto spool = Open(5000);
  PutNext(*spool, "small");
  const absl::Status status = spool->Put(*spool->TakeSequence(), std::string(6000, 'x'));
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(spool->windows(), 1u);
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DROPPED), 1u);
}

TEST_F(SpoolTest, HalfWrittenWindowOfACrashIsNoWindow) {
  {
    PutNext(*Open(), "whole");
  }
  Overwrite(WindowPath(2) + ".tmp", "FWSPOOL\nhalf");
  const auto spool = Open();
  EXPECT_EQ(spool->windows(), 1u);
  EXPECT_FALSE(std::filesystem::exists(WindowPath(2) + ".tmp"));
}

TEST_F(SpoolTest, DamagedWindowIsCountedAndRemoved) {
  const auto spool = Open();
  for (int i = 0; i < 4; ++i) PutNext(*spool, "payload");
  std::string altered = Bytes(WindowPath(1));
  altered.back() ^= 1;
  Overwrite(WindowPath(1), altered);
  Overwrite(WindowPath(2), Bytes(WindowPath(2)).substr(0, 20));
  Overwrite(WindowPath(3), Bytes(WindowPath(3)) + "x");
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
    EXPECT_TRUE(absl::IsDataLoss(spool->Read(sequence).status()));
    EXPECT_FALSE(std::filesystem::exists(WindowPath(sequence)));
  }
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DAMAGED), 3u);
  EXPECT_EQ(spool->Oldest(), 4u);
  EXPECT_TRUE(spool->Read(4).ok());
}

TEST_F(SpoolTest, WindowThatSomebodyDeletedIsForgottenAndCounted) {
  const auto spool = Open();
  PutNext(*spool, "x");
  std::filesystem::remove(WindowPath(1));
  EXPECT_TRUE(absl::IsNotFound(spool->Read(1).status()));
  EXPECT_EQ(spool->Oldest(), std::nullopt);
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DAMAGED), 1u);
}

TEST_F(SpoolTest, LostOrDamagedSequenceMakesANewAgent) {
  for (const char* content : {"", "nonsense\n"}) {
    std::string id;
    {
      const auto spool = Open();
      id = spool->agent_id();
      PutNext(*spool, "x");
    }
    if (*content == '\0') {
      std::filesystem::remove(directory_ + "/sequence");
    } else {
      Overwrite(directory_ + "/sequence", content);
    }
    const auto spool = Open();
    EXPECT_NE(spool->agent_id(), id);
    EXPECT_GE(spool->windows(), 1u);
  }
}

TEST_F(SpoolTest, NumbersLastForAWhileOnADiskThatFails) {
  const auto spool = Open();
  std::filesystem::rename(directory_, directory_ + ".away");
  uint64_t taken = 0;
  while (spool->TakeSequence().ok()) ++taken;
  EXPECT_GE(taken, 32u);
  EXPECT_LE(taken, 64u);
  std::filesystem::rename(directory_ + ".away", directory_);
  EXPECT_EQ(*spool->TakeSequence(), taken + 1);
}

TEST_F(SpoolTest, DamagedIdMakesANewAgent) {
  {
    PutNext(*Open(), "x");
  }
  Overwrite(directory_ + "/agent_id", "zz\n");
  const auto spool = Open();
  EXPECT_EQ(spool->agent_id().size(), 16u);
  EXPECT_EQ(*spool->TakeSequence(), 2u);
}

TEST_F(SpoolTest, WriteThatFailsHalfWayLeavesNothing) {
  const auto spool = Open();
  const uint64_t sequence = *spool->TakeSequence();
  // A file of more than 4 KiB fails as on a full disk: some bytes are written, then an error.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit tight{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const absl::Status status = spool->Put(sequence, std::string(10'000, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_DFL);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(spool->windows(), 0u);
  EXPECT_EQ(Names(), (std::vector<std::string>{"agent_id", "lock", "sequence"}));
  EXPECT_TRUE(spool->Put(sequence, std::string(10'000, 'x')).ok());
}

// What a killed agent was told to be safe is there afterwards, whole, and no number comes twice.
TEST_F(SpoolTest, KilledAgentLosesNothingThatWasPut) {
  uint64_t highest = 0;
  std::string id;
  for (int round = 0; round < 8; ++round) {
    int channel[2];
    ASSERT_EQ(::pipe2(channel, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto spool = Spool::Open(directory_, 64 << 20, metrics_);
      for (;;) {
        const auto sequence = spool.ok() ? (*spool)->TakeSequence() : spool.status();
        if (!sequence.ok()) ::_exit(1);
        const std::string payload(20'000, static_cast<char>('a' + *sequence % 26));
        if (!(*spool)->Put(*sequence, payload).ok()) ::_exit(1);
        if (::write(channel[1], &*sequence, sizeof(uint64_t)) != sizeof(uint64_t)) ::_exit(1);
      }
    }
    ::close(channel[1]);
    std::vector<uint64_t> safe;
    uint64_t sequence = 0;
    while (::read(channel[0], &sequence, sizeof(sequence)) == sizeof(sequence)) {
      safe.push_back(sequence);
      if (safe.size() == 5u + static_cast<size_t>(round)) ::kill(child, SIGKILL);
    }
    ::close(channel[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));

    const auto spool = Open(64 << 20);
    ASSERT_NE(spool, nullptr);
    if (id.empty()) id = spool->agent_id();
    EXPECT_EQ(spool->agent_id(), id);
    EXPECT_GT(safe.front(), highest);
    highest = safe.back();
    for (const uint64_t put : safe) {
      const auto payload = spool->Read(put);
      ASSERT_TRUE(payload.ok()) << base::ToString(payload.status());
      EXPECT_EQ(*payload, std::string(20'000, static_cast<char>('a' + put % 26)));
    }
    const uint64_t next = *spool->TakeSequence();
    EXPECT_GT(next, highest);
    highest = next;
  }
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DAMAGED), 0u);
}

TEST(SpoolFileTest, HeaderIsThatOfTheFormatDocument) {
  const std::string header = EncodeSpoolHeader("abc");
  ASSERT_EQ(header.size(), 32u);
  EXPECT_EQ(header.substr(0, 8), "FWSPOOL\n");
  EXPECT_EQ(header.substr(8, 8), std::string("\1\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(header.substr(16, 8), std::string("\3\0\0\0\0\0\0\0", 8));
  // XXH3 64 bit of "abc", seed 0: 0x78af5f94892f3950.
  EXPECT_EQ(header.substr(24, 8), std::string("\x50\x39\x2f\x89\x94\x5f\xaf\x78", 8));
}

TEST(SpoolFileTest, PayloadIsFoundAgain) {
  EXPECT_EQ(*DecodeSpoolFile(EncodeSpoolHeader("abc") + "abc"), "abc");
  EXPECT_EQ(*DecodeSpoolFile(EncodeSpoolHeader("")), "");
}

TEST(SpoolFileTest, EveryAlteredByteIsNoticed) {
  const std::string file = EncodeSpoolHeader("abc") + "abc";
  for (size_t i = 0; i < file.size(); ++i) {
    std::string altered = file;
    altered[i] ^= 0x10;
    EXPECT_TRUE(absl::IsDataLoss(DecodeSpoolFile(altered).status())) << i;
  }
}

TEST(SpoolFileTest, EveryCutIsNoticed) {
  const std::string file = EncodeSpoolHeader("abc") + "abc";
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeSpoolFile(file.substr(0, size)).status())) << size;
  }
}

}  // namespace
}  // namespace firewatch::agent
