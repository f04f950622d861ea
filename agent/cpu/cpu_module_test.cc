// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/cpu_module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;

ConfigSection Parse(std::string_view yaml) {
  const auto root = ParseConfigText(yaml, "t.yaml");
  EXPECT_TRUE(root.ok()) << base::ToString(root.status());
  return root.ok() ? *root : ConfigSection();
}

TEST(CpuModuleTest, SectionIsRead) {
  const auto config = ParseCpuConfig(
      Parse("hz: 49\nsampler: perf\nwindow: 1m\npid: [7, 8]\ncgroup: /a\nrecord-events: /r\n"));
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->hz, 49u);
  EXPECT_TRUE(config->explicit_hz);
  EXPECT_EQ(config->sampler, "perf");
  EXPECT_EQ(config->window_ms, 60'000u);
  EXPECT_THAT(config->pids, ElementsAre(Pid{7}, Pid{8}));
  EXPECT_THAT(config->cgroups, ElementsAre("/a"));
  EXPECT_EQ(config->record_events_path, "/r");
  EXPECT_FALSE(ParseCpuConfig(ConfigSection())->explicit_hz);
}

TEST(CpuModuleTest, WrongSettingsAreRefusedWithTheirPlace) {
  const CpuModule module{CpuModuleOptions()};
  EXPECT_EQ(base::Message(module.CheckConfig(Parse("hz: 1000\n"))),
            "t.yaml:1: cpu.hz: 1000 is not in 1..999");
  EXPECT_EQ(base::Message(module.CheckConfig(Parse("pid: 0\n"))),
            "t.yaml:1: cpu.pid: 0 is not a process id");
  EXPECT_EQ(base::Message(module.CheckConfig(Parse("hz: 5\nwnidow: 1m\n"))),
            "t.yaml:2: unknown key \"wnidow\" in cpu; did you mean \"window\"?");
}

TEST(CpuModuleTest, EachLevelHalvesTheRate) {
  EXPECT_THAT(CpuModule::Rates(19), ElementsAre(19u, 9u, 4u, 2u));
  EXPECT_THAT(CpuModule::Rates(3), ElementsAre(3u, 1u));
  EXPECT_THAT(CpuModule::Rates(1), ElementsAre(1u));
}

TEST(CpuModuleTest, NeedsAreThoseOfDoctor) {
  const CpuModule module{CpuModuleOptions()};
  const ModuleNeeds needs = module.Needs();
  EXPECT_EQ(needs.bpf_object, "bpf/cpu.bpf.c");
  EXPECT_FALSE(needs.needs.empty());
}

}  // namespace
}  // namespace firewatch::agent
