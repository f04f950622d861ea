// SPDX-License-Identifier: Apache-2.0
#include "agent/core/cgroup.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

namespace firewatch::agent {
namespace {

const std::string kId(64, 'a');
const std::string kOuter(64, 'b');

struct Case {
  std::string path;
  ContainerRuntime runtime;
  std::string container_id;
  std::string pod_uid;
  std::string unit;
};

void Check(const Case& expected) {
  SCOPED_TRACE(expected.path);
  const CgroupFacts facts = ParseCgroupPath(expected.path);
  EXPECT_EQ(facts.runtime, expected.runtime);
  EXPECT_EQ(facts.container_id, expected.container_id);
  EXPECT_EQ(facts.pod_uid, expected.pod_uid);
  EXPECT_EQ(facts.unit, expected.unit);
}

TEST(CgroupPathTest, Docker) {
  Check({"/docker/" + kId, ContainerRuntime::kDocker, kId, "", ""});
  Check({"/system.slice/docker-" + kId + ".scope", ContainerRuntime::kDocker, kId, "", ""});
  Check({"/docker/" + kOuter + "/docker/" + kId, ContainerRuntime::kDocker, kId, "", ""});
  Check({"/docker/" + kId + "/system.slice/nginx.service", ContainerRuntime::kDocker, kId, "",
         "nginx"});
}

TEST(CgroupPathTest, KubernetesOnContainerd) {
  const std::string uid = "6b1c0f2e-93a7-4c5d-8e21-0f9a7b3c5d1e";
  Check(
      {"/kubepods.slice/kubepods-burstable.slice/"
       "kubepods-burstable-pod6b1c0f2e_93a7_4c5d_8e21_0f9a7b3c5d1e.slice/cri-containerd-" +
           kId + ".scope",
       ContainerRuntime::kContainerd, kId, uid, ""});
  Check({"/kubepods/besteffort/pod" + uid + "/" + kId, ContainerRuntime::kUnknown, kId, uid, ""});
  Check(
      {"/system.slice/containerd.service/"
       "kubepods-burstable-pod6b1c0f2e_93a7_4c5d_8e21_0f9a7b3c5d1e.slice:cri-containerd:" +
           kId,
       ContainerRuntime::kContainerd, kId, uid, "containerd"});
  Check({"/k8s.io/" + kId, ContainerRuntime::kContainerd, kId, "", ""});
}

TEST(CgroupPathTest, KubernetesStaticPodHasAHashForItsUid) {
  const std::string hash(32, 'c');
  Check({"/kubepods/burstable/pod" + hash + "/" + kId, ContainerRuntime::kUnknown, kId, hash, ""});
}

TEST(CgroupPathTest, KubernetesOnCrio) {
  Check({"/kubepods.slice/kubepods-pod6b1c0f2e_93a7_4c5d_8e21_0f9a7b3c5d1e.slice/crio-" + kId +
             ".scope",
         ContainerRuntime::kCrio, kId, "6b1c0f2e-93a7-4c5d-8e21-0f9a7b3c5d1e", ""});
}

TEST(CgroupPathTest, Podman) {
  Check({"/machine.slice/libpod-" + kId + ".scope/container", ContainerRuntime::kPodman, kId, "",
         ""});
  Check({"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + kId + ".scope",
         ContainerRuntime::kPodman, kId, "", ""});
  Check({"/libpod_parent/libpod-" + kId, ContainerRuntime::kPodman, kId, "", ""});
}

TEST(CgroupPathTest, MonitorBesideAContainerIsNotInIt) {
  Check({"/machine.slice/libpod-conmon-" + kId + ".scope", ContainerRuntime::kNone, "", "", ""});
  Check({"/system.slice/crio-conmon-" + kId + ".scope", ContainerRuntime::kNone, "", "", ""});
  Check({"/lxc.monitor.web", ContainerRuntime::kNone, "", "", ""});
}

TEST(CgroupPathTest, Buildkit) {
  Check({"/system.slice/docker.service/buildkit/i4p8pmgc0vyqo1l5bq8wqmu2e",
         ContainerRuntime::kBuildkit, "i4p8pmgc0vyqo1l5bq8wqmu2e", "", "docker"});
}

TEST(CgroupPathTest, LxcAndNspawnAreNamed) {
  Check({"/lxc/web", ContainerRuntime::kLxc, "web", "", ""});
  Check({"/lxc.payload.web/system.slice/ssh.service", ContainerRuntime::kLxc, "web", "", "ssh"});
  Check({"/lxc.payload/web/init.scope", ContainerRuntime::kLxc, "web", "", ""});
  Check({"/machine.slice/machine-web\\x2d1.scope/payload", ContainerRuntime::kMachine, "web-1", "",
         ""});
}

TEST(CgroupPathTest, SystemdUnits) {
  Check({"/system.slice/nginx.service", ContainerRuntime::kNone, "", "", "nginx"});
  Check({"/system.slice/system-getty.slice/getty@tty1.service", ContainerRuntime::kNone, "", "",
         "getty@tty1"});
  Check({"/system.slice/dbus\\x2dbroker.service", ContainerRuntime::kNone, "", "", "dbus-broker"});
  Check({"/system.slice/foo.service/worker", ContainerRuntime::kNone, "", "", "foo"});
}

TEST(CgroupPathTest, UserUnitIsTheUnitNotTheSessionManager) {
  Check({"/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service",
         ContainerRuntime::kNone, "", "", "syncthing"});
  Check({"/user.slice/user-1000.slice/user@1000.service/init.scope", ContainerRuntime::kNone, "",
         "", ""});
}

TEST(CgroupPathTest, SlicesAndScopesAreNoUnits) {
  Check({"/user.slice/user-1000.slice/session-3.scope", ContainerRuntime::kNone, "", "", ""});
  Check({"/init.scope", ContainerRuntime::kNone, "", "", ""});
  Check({"/", ContainerRuntime::kNone, "", "", ""});
  Check({"", ContainerRuntime::kNone, "", "", ""});
}

TEST(CgroupPathTest, TextThatOnlyLooksLikeAnIdIsNone) {
  Check({"/docker/" + std::string(63, 'a'), ContainerRuntime::kNone, "", "", ""});
  Check({"/docker/" + std::string(64, 'g'), ContainerRuntime::kNone, "", "", ""});
  Check({"/docker/x" + kId, ContainerRuntime::kNone, "", "", ""});
  Check({"/podium/tripod123", ContainerRuntime::kNone, "", "", ""});
}

TEST(CgroupChoiceTest, UnifiedHierarchyIsTaken) {
  const CgroupChoice choice = ChooseCgroupPath("0::/system.slice/ssh.service\n");
  EXPECT_EQ(choice.path, "/system.slice/ssh.service");
  EXPECT_TRUE(choice.unified_only);
}

TEST(CgroupChoiceTest, RootOfTheUnifiedOneFallsThroughToSystemdThenCpu) {
  EXPECT_EQ(ChooseCgroupPath("9:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/\n").path, "/s");
  EXPECT_EQ(ChooseCgroupPath("9:cpuacct,cpu:/c\n1:name=systemd:/\n0::/\n").path, "/c");
  EXPECT_FALSE(ChooseCgroupPath("9:cpu:/c\n0::/x\n").unified_only);
}

TEST(CgroupChoiceTest, PathThatNamesAContainerWins) {
  EXPECT_EQ(
      ChooseCgroupPath("1:name=systemd:/docker/" + kId + "\n0::/system.slice/containerd.service\n")
          .path,
      "/docker/" + kId);
}

TEST(CgroupChoiceTest, OtherControllersSayNothing) {
  EXPECT_EQ(ChooseCgroupPath("4:memory:/process_api/5ad\n3:cpuset:/x\n1:cpu:/\n0::/\n").path, "/");
  EXPECT_EQ(ChooseCgroupPath("").path, "/");
  EXPECT_EQ(ChooseCgroupPath("garbage\n1\n:\n").path, "/");
}

TEST(CgroupChoiceTest, PathMayHoldColonsAndBeDeleted) {
  EXPECT_EQ(ChooseCgroupPath("0::/a:b:c (deleted)\n").path, "/a:b:c");
}

class CgroupPathsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "/tmp/firewatch_cgroup_XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    root_ = directory;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void WriteCgroup(Pid pid, const std::string& text) {
    const std::string directory = root_ + "/" + std::to_string(static_cast<uint32_t>(pid));
    std::filesystem::create_directories(directory);
    std::ofstream(directory + "/cgroup") << text;
  }

  std::string root_;
};

TEST_F(CgroupPathsTest, UnifiedPathIsRememberedByIdAndServesTheDead) {
  WriteCgroup(Pid{5}, "0::/system.slice/a.service\n");
  const ProcReader reader(root_);
  CgroupPaths paths(&reader, root_);
  ASSERT_NE(paths.Find(Pid{5}, 77), nullptr);
  const auto again = paths.Find(std::nullopt, 77);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(*again, "/system.slice/a.service");
}

TEST_F(CgroupPathsTest, BesideVersionOneTheIdStandsForNothing) {
  WriteCgroup(Pid{5}, "1:name=systemd:/a\n0::/\n");
  WriteCgroup(Pid{6}, "1:name=systemd:/b\n0::/\n");
  const ProcReader reader(root_);
  CgroupPaths paths(&reader, root_);
  EXPECT_EQ(*paths.Find(Pid{5}, 1), "/a");
  EXPECT_EQ(*paths.Find(Pid{6}, 1), "/b");
  EXPECT_EQ(paths.Find(std::nullopt, 1), nullptr);
}

TEST_F(CgroupPathsTest, NothingKnownIsNull) {
  const ProcReader reader(root_);
  CgroupPaths paths(&reader, root_);
  EXPECT_EQ(paths.Find(Pid{9}, 0), nullptr);
  EXPECT_EQ(paths.Find(std::nullopt, 123456), nullptr);
}

// A cgroup of our own, made and removed here: its id leads to its path without any process in it.
TEST(CgroupIdTest, IdFindsThePathByAFileHandle) {
  std::string mount;
  for (const char* candidate : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    struct statfs info{};
    constexpr auto kCgroup2Magic = 0x63677270;
    if (::statfs(candidate, &info) == 0 && info.f_type == kCgroup2Magic) mount = candidate;
  }
  if (mount.empty()) GTEST_SKIP() << "no cgroup version 2 is mounted";
  const std::string name = "/firewatch_test_" + std::to_string(::getpid());
  const int made = ::mkdir((mount + name).c_str(), 0755);
  if (made != 0 && (errno == EACCES || errno == EPERM || errno == EROFS)) {
    GTEST_SKIP() << "may not make a cgroup: " << std::strerror(errno);
  }
  ASSERT_EQ(made, 0) << std::strerror(errno);
  struct stat info{};
  const int result = ::stat((mount + name).c_str(), &info);
  const ProcReader reader("/nonexistent");
  CgroupPaths paths(&reader, "/sys/fs/cgroup");
  // The inode number of a cgroup directory is its id (64 bit machines).
  const auto path = paths.Find(std::nullopt, info.st_ino);
  ::rmdir((mount + name).c_str());
  ASSERT_EQ(result, 0);
  if (path == nullptr && ::geteuid() != 0) GTEST_SKIP() << "needs CAP_DAC_READ_SEARCH";
  ASSERT_NE(path, nullptr);
  EXPECT_EQ(*path, name);
}

}  // namespace
}  // namespace firewatch::agent
