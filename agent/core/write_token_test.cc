// SPDX-License-Identifier: Apache-2.0
#include "agent/core/write_token.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/status.h"

namespace firewatch::agent {
namespace {

class WriteTokenTest : public testing::Test {
 protected:
  WriteTokenTest() {
    std::string folder = "/tmp/write_token_test-XXXXXX";
    folder_ = ::mkdtemp(folder.data());
  }
  ~WriteTokenTest() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(WriteTokenTest, IsNewEachTimeAndForItsOwnerAlone) {
  const std::string path = folder_ + "/run/agent-1.token";
  const auto first = CreateWriteToken(path);
  ASSERT_TRUE(first.ok()) << base::ToString(first.status());
  const auto second = CreateWriteToken(path);
  ASSERT_TRUE(second.ok());
  EXPECT_NE(*first, *second);
  EXPECT_EQ(*ReadWriteToken(path), *second);
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat((folder_ + "/run").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(WriteTokenTest, AnAgentThatEndsRemovesItsOwnAlone) {
  const std::string path = folder_ + "/agent-1.token";
  const auto first = CreateWriteToken(path);
  const auto second = CreateWriteToken(path);
  ASSERT_TRUE(second.ok());
  RemoveWriteToken(path, *first);
  EXPECT_EQ(*ReadWriteToken(path), *second);
  RemoveWriteToken(path, *second);
  EXPECT_FALSE(std::filesystem::exists(path));
  RemoveWriteToken(path, *second);  // gone already
}

TEST_F(WriteTokenTest, ALinkInItsPlaceIsReplacedNotFollowed) {
  const std::string victim = folder_ + "/victim";
  std::ofstream(victim) << "mine";
  const std::string path = folder_ + "/agent-1.token";
  std::filesystem::create_symlink(victim, path);
  ASSERT_TRUE(CreateWriteToken(path).ok());
  EXPECT_EQ(std::filesystem::file_size(victim), 4u);
  EXPECT_FALSE(std::filesystem::is_symlink(path));
}

TEST_F(WriteTokenTest, WhatIsNotThereOrNoTokenIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(ReadWriteToken(folder_ + "/none").status()));
  std::ofstream(folder_ + "/short") << "abc";
  EXPECT_TRUE(absl::IsDataLoss(ReadWriteToken(folder_ + "/short").status()));
  EXPECT_FALSE(CreateWriteToken("/proc/none/agent.token").ok());
}

TEST(BearsTokenTest, OnlyTheWholeToken) {
  EXPECT_TRUE(BearsToken("Bearer abc", "abc"));
  for (const char* wrong : {"", "abc", "Bearer", "Bearer ", "Bearer ab", "Bearer abd",
                            "Bearer abcd", "Basic abc", "bearer abc"}) {
    EXPECT_FALSE(BearsToken(wrong, "abc")) << wrong;
  }
  EXPECT_FALSE(BearsToken("Bearer ", "")) << "no token yet";
}

}  // namespace
}  // namespace firewatch::agent
