// SPDX-License-Identifier: Apache-2.0
#include "agent/core/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const KnownModule kModules[] = {{"cpu"}, {"network"}, {"enforce", false}};

absl::StatusOr<AgentConfig> Parse(std::vector<const char*> flags) {
  flags.insert(flags.begin(), "firewatch-agent");
  return ParseAgentConfig(static_cast<int>(flags.size()), flags.data(), kModules);
}

std::string ErrorOf(const std::vector<const char*>& flags) {
  const auto config = Parse(flags);
  EXPECT_FALSE(config.ok());
  return std::string(base::Message(config.status()));
}

class ConfigFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path =
        ::testing::TempDir() + "agent_config_" + std::to_string(::getpid()) + ".yaml";
    std::ofstream(path) << text;
    paths_.push_back(path);
    return path;
  }
  void TearDown() override {
    for (const std::string& path : paths_) ::unlink(path.c_str());
  }
  std::vector<std::string> paths_;
};

TEST(ConfigTest, DefaultsAreThoseOfThePlan) {
  const auto config = Parse({});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->server, "127.0.0.1:7070");
  EXPECT_EQ(config->http, "127.0.0.1:7172");
  EXPECT_EQ(config->hz, 19u);
  EXPECT_EQ(config->window_ms, 10'000u);
  EXPECT_EQ(config->spool_max_bytes, 268'435'456u);
  EXPECT_THAT(config->modules, ElementsAre("cpu", "network"));
  EXPECT_EQ(config->budget_percent, 1);
  EXPECT_FALSE(config->explicit_budget);
  EXPECT_FALSE(config->insecure);
  EXPECT_EQ(config->debuginfo_server, "");
  EXPECT_FALSE(config->node.empty());
  EXPECT_FALSE(config->spool_directory.empty());
  EXPECT_FALSE(config->cache_directory.empty());
  EXPECT_EQ(config->message, "");
}

TEST(ConfigTest, EveryFlagReachesItsField) {
  const auto config = Parse({"--server",
                             "collector:7070",
                             "--http",
                             "127.0.0.1:1",
                             "--hz",
                             "99",
                             "--window=500ms",
                             "--spool",
                             "/s",
                             "--spool-max-bytes",
                             "1MiB",
                             "--cache",
                             "/c",
                             "--debuginfo-server",
                             "collector:7171",
                             "--label",
                             "env=prod",
                             "--label",
                             "zone=b=c",
                             "--service",
                             "web",
                             "--node",
                             "n1",
                             "--cgroup",
                             "/a",
                             "--cgroup",
                             "/b",
                             "--pid",
                             "4",
                             "--pid",
                             "5",
                             "--modules",
                             "cpu",
                             "--replay",
                             "r",
                             "--record-events",
                             "e",
                             "--insecure",
                             "--log-level",
                             "debug"});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->server, "collector:7070");
  EXPECT_EQ(config->http, "127.0.0.1:1");
  EXPECT_EQ(config->hz, 99u);
  EXPECT_EQ(config->window_ms, 500u);
  EXPECT_EQ(config->spool_directory, "/s");
  EXPECT_EQ(config->spool_max_bytes, 1'048'576u);
  EXPECT_EQ(config->cache_directory, "/c");
  EXPECT_EQ(config->debuginfo_server, "collector:7171");
  EXPECT_EQ(config->labels.ToString(), R"({env="prod",zone="b=c"})");
  EXPECT_EQ(config->service, "web");
  EXPECT_EQ(config->node, "n1");
  EXPECT_THAT(config->cgroups, ElementsAre("/a", "/b"));
  EXPECT_THAT(config->pids, ElementsAre(Pid{4}, Pid{5}));
  EXPECT_EQ(config->replay_path, "r");
  EXPECT_EQ(config->record_events_path, "e");
  EXPECT_TRUE(config->insecure);
  EXPECT_EQ(config->log_level, "debug");
}

TEST(ConfigTest, RateOutsideItsRangeIsRefused) {
  EXPECT_EQ(ErrorOf({"--hz", "0"}), "--hz: 0 is not in 1..999");
  EXPECT_EQ(ErrorOf({"--hz", "1000"}), "--hz: 1000 is not in 1..999");
  EXPECT_EQ(ErrorOf({"--hz", "ten"}), "--hz: ten is not in 1..999");
  EXPECT_TRUE(Parse({"--hz", "999"}).ok());
}

TEST(ConfigTest, WindowOutsideItsRangeIsRefused) {
  EXPECT_EQ(ErrorOf({"--window", "99ms"}), "--window: 99ms is not in 100ms..1h");
  EXPECT_EQ(ErrorOf({"--window", "2h"}), "--window: 2h is not in 100ms..1h");
}

TEST(ConfigTest, LabelWithoutValueIsRefused) {
  EXPECT_EQ(ErrorOf({"--label", "env"}), "--label: \"env\" is not NAME=VALUE");
  EXPECT_EQ(ErrorOf({"--label", "9=x"}), "--label: \"9=x\" is not NAME=VALUE");
}

TEST(ConfigTest, ModuleThatDoesNotExistIsRefused) {
  EXPECT_EQ(ErrorOf({"--modules", "cpu,gpu"}),
            "--modules: there is no module \"gpu\"; known: cpu, network, enforce");
}

TEST(ConfigTest, ProcessIdZeroIsRefused) {
  EXPECT_EQ(ErrorOf({"--pid", "0"}), "--pid: 0 is not a process id");
}

TEST(ConfigTest, UnknownFlagIsRefused) { EXPECT_THAT(ErrorOf({"--nope"}), HasSubstr("--nope")); }

TEST(ConfigTest, HelpIsAMessageThatNamesEveryFlag) {
  const auto config = Parse({"--help"});
  ASSERT_TRUE(config.ok());
  for (const char* flag : {"--server", "--hz", "--window", "--label", "--config", "--insecure"}) {
    EXPECT_THAT(config->message, HasSubstr(flag));
  }
}

TEST(ConfigTest, VersionIsAMessage) {
  const auto config = Parse({"--version"});
  ASSERT_TRUE(config.ok());
  EXPECT_THAT(config->message, HasSubstr("firewatch-agent "));
}

TEST_F(ConfigFileTest, KeysAreFlagsWithoutDashes) {
  const std::string path = Write(
      "# comment\n"
      "server: collector:7070\n"
      "hz: 49\n"
      "window: 1m\n"
      "label:\n  env: prod\n  zone: b\n"
      "pid: [7, 8]\n"
      "cgroup: /a\n"
      "modules: [cpu]\n"
      "insecure: true\n");
  const auto config = Parse({"--config", path.c_str()});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->server, "collector:7070");
  EXPECT_EQ(config->hz, 49u);
  EXPECT_EQ(config->window_ms, 60'000u);
  EXPECT_EQ(config->labels.ToString(), R"({env="prod",zone="b"})");
  EXPECT_THAT(config->pids, ElementsAre(Pid{7}, Pid{8}));
  EXPECT_THAT(config->cgroups, ElementsAre("/a"));
  EXPECT_TRUE(config->insecure);
}

TEST_F(ConfigFileTest, FlagsWinOverTheFile) {
  const std::string path = Write("hz: 49\npid: [7]\nlabel: {env: prod, zone: b}\n");
  const auto config =
      Parse({"--config", path.c_str(), "--hz", "5", "--pid", "9", "--label", "env=test"});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->hz, 5u);
  EXPECT_THAT(config->pids, ElementsAre(Pid{9}));
  EXPECT_EQ(config->labels.ToString(), R"({env="test",zone="b"})");
}

TEST_F(ConfigFileTest, UnknownKeyIsNamedWithFileLineAndNearestKey) {
  const std::string path = Write("hz: 49\n\nsevrer: x\n");
  EXPECT_EQ(ErrorOf({"--config", path.c_str()}),
            path + ":3: unknown key \"sevrer\"; did you mean \"server\"?");
}

TEST_F(ConfigFileTest, WrongValueIsNamedWithFileAndLine) {
  const std::string path = Write("server: x\nhz: 2000\n");
  EXPECT_EQ(ErrorOf({"--config", path.c_str()}), path + ":2: hz: 2000 is not in 1..999");
}

TEST_F(ConfigFileTest, SyntaxErrorIsNamedWithFileAndLine) {
  const std::string path = Write("server: x\nhz: [1\n");
  EXPECT_THAT(ErrorOf({"--config", path.c_str()}), HasSubstr(path + ":"));
}

TEST_F(ConfigFileTest, NestedValueWhereAPlainOneBelongsIsRefused) {
  const std::string path = Write("server:\n  host: x\n");
  EXPECT_EQ(ErrorOf({"--config", path.c_str()}), path + ":1: a plain value is expected");
}

TEST_F(ConfigFileTest, FileOfCommentsChangesNothing) {
  const std::string path = Write("# hz: 5\n");
  const auto config = Parse({"--config", path.c_str()});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->hz, 19u);
}

TEST_F(ConfigFileTest, FileThatIsMissingIsNamed) {
  EXPECT_EQ(ErrorOf({"--config", "/nonexistent/a.yaml"}), "/nonexistent/a.yaml: cannot be read");
}

TEST_F(ConfigFileTest, SectionOfCpuIsTheSameAsItsFlatKeys) {
  const std::string path =
      Write("cpu:\n  hz: 49\n  window: 1m\n  pid: [7]\nnetwork:\n  top: 5\nbudget: 2%\n");
  const auto config = Parse({"--config", path.c_str(), "--window", "5s"});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->hz, 49u);
  EXPECT_EQ(config->window_ms, 5000u);
  EXPECT_EQ(config->budget_percent, 2);
  EXPECT_TRUE(config->explicit_budget);
  const ConfigSection& cpu = config->sections.at("cpu");
  EXPECT_EQ(cpu.Find("hz")->text(), "49");
  EXPECT_EQ(cpu.Find("hz")->Place(), path + ":2");
  EXPECT_EQ(cpu.Find("window")->Place(), "--window");
  EXPECT_EQ(config->sections.at("network").Find("top")->Place(), path + ":6");
}

TEST_F(ConfigFileTest, UnknownKeyOfASectionIsNamedWithTheNearest) {
  const std::string path = Write("cpu:\n  widnow: 1m\n");
  EXPECT_EQ(ErrorOf({"--config", path.c_str()}),
            path + ":2: unknown key \"widnow\" in cpu; did you mean \"window\"?");
}

TEST_F(ConfigFileTest, SectionNamesCountAsNearestKeys) {
  const std::string path = Write("netwrok:\n  top: 1\n");
  EXPECT_EQ(ErrorOf({"--config", path.c_str()}),
            path + ":1: unknown key \"netwrok\"; did you mean \"network\"?");
}

TEST_F(ConfigFileTest, SettingInsideAndOutsideOfItsSectionIsRefused) {
  const std::string path = Write("hz: 5\ncpu:\n  hz: 6\n");
  EXPECT_EQ(ErrorOf({"--config", path.c_str()}),
            path + ":3: \"hz\" is given twice, first at " + path + ":1");
}

TEST_F(ConfigFileTest, SectionThatIsAPlainValueIsRefused) {
  const std::string path = Write("network: on\n");
  EXPECT_EQ(ErrorOf({"--config", path.c_str()}),
            path + ":1: network: KEY: VALUE lines are expected");
}

TEST(ConfigTest, BudgetIsAPercentage) {
  EXPECT_EQ(Parse({"--budget", "0.5"})->budget_percent, 0.5);
  EXPECT_EQ(ErrorOf({"--budget", "0"}), "--budget: 0 is not in 0.01..100 percent");
  EXPECT_EQ(ErrorOf({"--budget", "2%%"}), "--budget: 2%% is not in 0.01..100 percent");
  EXPECT_EQ(ErrorOf({"--budget", "much"}), "--budget: much is not in 0.01..100 percent");
}

TEST(DurationTest, UnitsAreMilliseconds) {
  EXPECT_EQ(*ParseDurationMs("500ms"), 500u);
  EXPECT_EQ(*ParseDurationMs("10s"), 10'000u);
  EXPECT_EQ(*ParseDurationMs("1m"), 60'000u);
  EXPECT_EQ(*ParseDurationMs("2h"), 7'200'000u);
}

TEST(DurationTest, AnythingElseIsRefused) {
  for (const char* text : {"", "10", "s", "-1s", "1.5s", "10 s", "10d", "99999999999999999999s",
                           "18446744073709551615h"}) {
    EXPECT_FALSE(ParseDurationMs(text).ok()) << text;
  }
}

TEST(ByteSizeTest, SuffixesAreBinary) {
  EXPECT_EQ(*ParseByteSize("5"), 5u);
  EXPECT_EQ(*ParseByteSize("2K"), 2'048u);
  EXPECT_EQ(*ParseByteSize("256MiB"), 268'435'456u);
  EXPECT_EQ(*ParseByteSize("1G"), 1'073'741'824u);
  EXPECT_FALSE(ParseByteSize("1T").ok());
  EXPECT_FALSE(ParseByteSize("18446744073709551615G").ok());
}

}  // namespace
}  // namespace firewatch::agent
