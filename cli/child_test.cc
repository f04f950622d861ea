// SPDX-License-Identifier: Apache-2.0
#include "cli/child.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/status.h"

namespace firewatch::cli {
namespace {

int WaitForEnd(Child& child) {
  for (int i = 0; i < 1000; ++i) {
    if (const auto code = child.Ended()) return *code;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return -1;
}

TEST(ChildTest, DoesNothingBeforeRelease) {
  const std::string mark = testing::TempDir() + "/child_test_mark";
  ::unlink(mark.c_str());
  auto child = Child::Start({"touch", mark});
  ASSERT_TRUE(child.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_NE(::access(mark.c_str(), F_OK), 0);
  ASSERT_TRUE(child->Release().ok());
  EXPECT_EQ(WaitForEnd(*child), 0);
  EXPECT_EQ(::access(mark.c_str(), F_OK), 0);
  ::unlink(mark.c_str());
}

TEST(ChildTest, ReportsTheExitCodeAndTheSignal) {
  auto exits = Child::Start({"sh", "-c", "exit 7"});
  ASSERT_TRUE(exits.ok() && exits->Release().ok());
  EXPECT_EQ(WaitForEnd(*exits), 7);
  auto killed = Child::Start({"sh", "-c", "kill -9 $$"});
  ASSERT_TRUE(killed.ok() && killed->Release().ok());
  EXPECT_EQ(WaitForEnd(*killed), 128 + 9);
}

TEST(ChildTest, AMissingCommandIsAnErrorOfRelease) {
  auto child = Child::Start({"/no/such/command"});
  ASSERT_TRUE(child.ok());
  const absl::Status status = child->Release();
  EXPECT_EQ(base::Message(status), "/no/such/command: No such file or directory");
}

TEST(ChildTest, OneThatIsNeverReleasedEndsWithItsOwner) {
  pid_t pid = 0;
  {
    auto child = Child::Start({"sleep", "100"});
    ASSERT_TRUE(child.ok());
    pid = child->pid();
  }
  EXPECT_NE(::kill(pid, 0), 0);
}

}  // namespace
}  // namespace firewatch::cli
