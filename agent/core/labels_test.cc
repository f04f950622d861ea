// SPDX-License-Identifier: Apache-2.0
#include "agent/core/labels.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace firewatch::agent {
namespace {

const std::string kId(64, 'a');

class LabelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "/tmp/firewatch_labels_XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    root_ = directory;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  LabelMaker Maker(std::string service = "", profile::LabelSet extra = {}) {
    return LabelMaker({.node = "n1",
                       .service = std::move(service),
                       .extra = std::move(extra),
                       .state_root = root_});
  }

  std::string ServiceOf(const LabelFacts& facts) {
    return std::string(Maker().Make(facts)->Get("service"));
  }

  std::string root_;
};

TEST_F(LabelsTest, ContainerHasAllLabels) {
  const std::string cgroup = "/docker/" + kId;
  const auto labels =
      Maker().Make({.cgroup_path = cgroup, .exe_path = "/usr/bin/nginx", .comm = "nginx"});
  EXPECT_EQ(labels->ToString(), R"({cgroup="/docker/)" + kId + R"(",comm="nginx",container_id=")" +
                                    kId + R"(",exe="/usr/bin/nginx",node="n1",service="nginx"})");
}

TEST_F(LabelsTest, ServiceGivenWinsOverEverything) {
  const auto labels =
      Maker("mine").Make({.cgroup_path = "/system.slice/a.service", .exe_path = "/b", .comm = "c"});
  EXPECT_EQ(labels->Get("service"), "mine");
}

TEST_F(LabelsTest, ExtraLabelsAreAddedAndWin) {
  const auto labels = Maker("", profile::LabelSet({{"env", "prod"}, {"node", "other"}}))
                          .Make({.cgroup_path = "/", .exe_path = "/b", .comm = "c"});
  EXPECT_EQ(labels->Get("env"), "prod");
  EXPECT_EQ(labels->Get("node"), "other");
}

TEST_F(LabelsTest, UnitComesBeforeExecutable) {
  EXPECT_EQ(ServiceOf({.cgroup_path = "/system.slice/web.service", .exe_path = "/bin/x"}), "web");
  EXPECT_EQ(ServiceOf({.cgroup_path = "/user.slice/user-0.slice/session-3.scope",
                       .exe_path = "/usr/bin/python3.11"}),
            "python3.11");
}

TEST_F(LabelsTest, WithoutExecutableTheNameIsTheService) {
  EXPECT_EQ(ServiceOf({.comm = "worker"}), "worker");
}

TEST_F(LabelsTest, KernelThreadsAreOneService) {
  const auto labels = Maker().Make({.comm = "kworker/0:1", .kernel_thread = true});
  EXPECT_EQ(labels->Get("service"), "kernel");
  EXPECT_EQ(labels->Get("comm"), "kworker/0:1");
  EXPECT_EQ(labels->Get("exe"), "");
}

TEST_F(LabelsTest, UnitAroundAContainerIsNotItsService) {
  EXPECT_EQ(ServiceOf({.cgroup_path = "/system.slice/docker.service/buildkit/i4p8pmgc0vyq",
                       .exe_path = "/usr/bin/gcc"}),
            "gcc");
}

TEST_F(LabelsTest, DockerNameComesFromItsStateFile) {
  Write("/var/lib/docker/containers/" + kId + "/config.v2.json",
        R"({"Config":{"Env":["SECRET=x"],"Name":"no"},"Name":"/shop-1","Path":"/x"})");
  EXPECT_EQ(ServiceOf({.cgroup_path = "/docker/" + kId, .exe_path = "/bin/x"}), "shop-1");
}

TEST_F(LabelsTest, PodOwnerComesFromTheBundleOfContainerd) {
  Write("/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + kId + "/config.json",
        R"({"process":{"env":["SECRET=x"]},"annotations":{
            "io.kubernetes.cri.container-name":"app",
            "io.kubernetes.cri.sandbox-name":"web-7d9fd8c8b5-x2x4z",
            "io.kubernetes.cri.sandbox-namespace":"prod"}})");
  EXPECT_EQ(ServiceOf({.cgroup_path = "/kubepods.slice/cri-containerd-" + kId + ".scope",
                       .exe_path = "/bin/x"}),
            "web");
}

TEST_F(LabelsTest, PodmanNameComesFromItsList) {
  Write("/var/lib/containers/storage/overlay-containers/containers.json",
        R"([{"id":"0","names":["no"]},{"id":")" + kId + R"(","names":["db"]}])");
  EXPECT_EQ(
      ServiceOf({.cgroup_path = "/machine.slice/libpod-" + kId + ".scope", .exe_path = "/bin/x"}),
      "db");
}

TEST_F(LabelsTest, LxcContainerIsItsOwnName) {
  EXPECT_EQ(ServiceOf({.cgroup_path = "/lxc/web", .exe_path = "/bin/x"}), "web");
}

TEST_F(LabelsTest, InvalidBytesAreReplacedAndLengthIsBounded) {
  EXPECT_EQ(CleanLabelValue("a\xff"
                            "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(CleanLabelValue("\xC3\xA9"), "\xC3\xA9");
  EXPECT_EQ(CleanLabelValue("\xC0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD");       // overlong
  EXPECT_EQ(CleanLabelValue("\xED\xA0\x80").substr(0, 3), "\xEF\xBF\xBD");  // surrogate
  EXPECT_EQ(CleanLabelValue("\xE2\x82"), "\xEF\xBF\xBD\xEF\xBF\xBD");       // cut short
  EXPECT_EQ(CleanLabelValue(std::string(5000, 'x')).size(), profile::kMaxLabelValueBytes);
  std::string accents;
  for (int i = 0; i < 2000; ++i) accents += "\xC3\xA9";
  accents.insert(0, "x");
  EXPECT_EQ(CleanLabelValue(accents).size(), profile::kMaxLabelValueBytes - 1);
}

TEST(PodOwnerTest, GeneratedSuffixesAreTakenOff) {
  EXPECT_EQ(OwnerOfPod("web-7d9fd8c8b5-x2x4z"), "web");
  EXPECT_EQ(OwnerOfPod("my-web-7d9fd8c8b5-x2x4z"), "my-web");
  EXPECT_EQ(OwnerOfPod("node-exporter-4k7zq"), "node-exporter");
  EXPECT_EQ(OwnerOfPod("db-0"), "db");
}

TEST(PodOwnerTest, OtherNamesAreKept) {
  for (const char* name : {"web", "web-proxy", "kube-apiserver-node1", "-abc", "a-", "web-aeiou"}) {
    EXPECT_EQ(OwnerOfPod(name), name);
  }
}

TEST(ContainerStateTest, OtherTextGivesNoName) {
  for (const char* text :
       {"", "{", "[]", "null", "{\"Name\":5}", "{\"annotations\":[]}",
        "{\"annotations\":{\"nerdctl/name\":{}}}", "[{\"id\":\"x\"}]",
        "[{\"id\":\"x\",\"names\":[]}]", "[{\"id\":\"x\",\"names\":[7]}]", "\xff"}) {
    SCOPED_TRACE(text);
    EXPECT_EQ(ParseDockerConfig(text).name, "");
    EXPECT_EQ(ParseOciBundle(text).name, "");
    EXPECT_EQ(ParsePodmanList(text, "x").name, "");
  }
}

TEST(ContainerStateTest, NerdctlAndCrioAnnotationsAreRead) {
  EXPECT_EQ(ParseOciBundle(R"({"annotations":{"nerdctl/name":"a"}})").name, "a");
  const ContainerName crio = ParseOciBundle(
      R"({"annotations":{"io.kubernetes.container.name":"c","io.kubernetes.pod.name":"p",
          "io.kubernetes.pod.namespace":"s"}})");
  EXPECT_EQ(crio.name, "c");
  EXPECT_EQ(crio.pod, "p");
  EXPECT_EQ(crio.pod_space, "s");
}

}  // namespace
}  // namespace firewatch::agent
