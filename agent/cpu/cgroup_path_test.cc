// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/cgroup_path.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/status.h"

namespace firewatch::agent {
namespace {

class CgroupPathTest : public ::testing::Test {
 protected:
  ~CgroupPathTest() override { ::unlink(path_.c_str()); }
  std::string Mountinfo(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  const std::string path_ = testing::TempDir() + "/mountinfo_" + std::to_string(::getpid());
};

TEST_F(CgroupPathTest, FindsTheUnifiedMountBesideV1) {
  const std::string file = Mountinfo(
      "30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n"
      "31 30 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n"
      "32 30 0:28 / /sys/fs/cgroup/unified rw shared:10 master:2 - cgroup2 cgroup2 rw\n");
  EXPECT_EQ(*CgroupMountPoint(file), "/sys/fs/cgroup/unified");
}

TEST_F(CgroupPathTest, NoUnifiedMountIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(CgroupMountPoint(Mountinfo("")).status()));
  EXPECT_TRUE(absl::IsNotFound(OpenCgroup("some.slice", path_).status()));
}

TEST_F(CgroupPathTest, OtherDirectoriesAreRefused) {
  EXPECT_EQ(base::Message(OpenCgroup("/proc").status()),
            "cgroup /proc: not a directory of the cgroup v2 hierarchy");
  EXPECT_TRUE(absl::IsNotFound(OpenCgroup("/nonexistent").status()));
}

TEST_F(CgroupPathTest, RelativePathsStartAtTheMount) {
  const auto mount = CgroupMountPoint();
  if (!mount.ok()) GTEST_SKIP() << base::ToString(mount.status());
  EXPECT_TRUE(OpenCgroup(*mount).ok());
  EXPECT_TRUE(OpenCgroup(".").ok());
}

}  // namespace
}  // namespace firewatch::agent
