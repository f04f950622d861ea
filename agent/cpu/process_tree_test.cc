// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/process_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace firewatch::agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

class ProcessTreeTest : public ::testing::Test {
 protected:
  ProcessTreeTest() {
    std::string name = (std::filesystem::temp_directory_path() / "process_tree_XXXXXX").string();
    root_ = ::mkdtemp(name.data());
  }
  ~ProcessTreeTest() override { std::filesystem::remove_all(root_); }

  void AddProcess(int pid, const std::string& name, int parent) {
    const auto directory = root_ / std::to_string(pid);
    std::filesystem::create_directory(directory);
    std::ofstream(directory / "stat") << pid << " (" << name << ") S " << parent << " 0 0\n";
  }

  std::filesystem::path root_;
};

TEST_F(ProcessTreeTest, FindsGrandchildrenAndLeavesOthers) {
  AddProcess(1, "init", 0);
  AddProcess(10, "wanted", 1);
  AddProcess(11, "child", 10);
  AddProcess(12, "grandchild", 11);
  AddProcess(20, "other", 1);
  EXPECT_THAT(LivingDescendants({Pid{10}}, root_), UnorderedElementsAre(Pid{10}, Pid{11}, Pid{12}));
}

TEST_F(ProcessTreeTest, NamesMayHoldParenthesesAndSpaces) {
  AddProcess(10, "wanted", 1);
  AddProcess(11, ") S 99 (", 10);
  EXPECT_THAT(LivingDescendants({Pid{10}}, root_), UnorderedElementsAre(Pid{10}, Pid{11}));
}

TEST_F(ProcessTreeTest, RootsAreListedOnceAlsoWhenRelated) {
  AddProcess(10, "wanted", 1);
  AddProcess(11, "child", 10);
  EXPECT_THAT(LivingDescendants({Pid{10}, Pid{11}, Pid{10}}, root_), ElementsAre(Pid{10}, Pid{11}));
}

TEST_F(ProcessTreeTest, UnreadableProcIsJustTheRoots) {
  EXPECT_THAT(LivingDescendants({Pid{5}}, "/nonexistent"), ElementsAre(Pid{5}));
}

TEST_F(ProcessTreeTest, FindsThisProcessBelowItsParent) {
  EXPECT_THAT(LivingDescendants({Pid{static_cast<uint32_t>(::getppid())}}),
              Contains(Pid{static_cast<uint32_t>(::getpid())}));
}

}  // namespace
}  // namespace firewatch::agent
