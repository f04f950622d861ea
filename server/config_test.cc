// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "base/status.h"

namespace firewatch::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<ServerConfig> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "firewatch-server");
  return ParseServerConfig(static_cast<int>(arguments.size()), arguments.data());
}

// A file below the test's own folder, gone with it.
class ConfigFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path =
        ::testing::TempDir() + "server_config_" + std::to_string(::getpid()) + ".yaml";
    std::ofstream(path) << text;
    paths_.push_back(path);
    return path;
  }
  ~ConfigFileTest() override {
    for (const std::string& path : paths_) std::remove(path.c_str());
  }

 private:
  std::vector<std::string> paths_;
};

TEST(ConfigTest, DefaultsListenOnLoopback) {
  const auto config = Parse({});
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->http, "127.0.0.1:7171");
  EXPECT_EQ(config->grpc, "127.0.0.1:7070");
  EXPECT_EQ(config->retention_hours, 168);
  EXPECT_EQ(config->retention_bytes, uint64_t{10} << 30);
  EXPECT_FALSE(config->insecure);
  EXPECT_FALSE(config->data_directory.empty());
}

TEST(ConfigTest, ReadsEveryFlag) {
  const auto config = Parse({"--data",
                             "/d",
                             "--http",
                             "[::1]:1",
                             "--grpc",
                             "127.0.0.1:2",
                             "--retention-hours",
                             "5",
                             "--retention-bytes",
                             "512MiB",
                             "--allowed-host",
                             "a.example",
                             "--allowed-host",
                             "b.example:80",
                             "--max-nodes",
                             "7",
                             "--http-workers",
                             "3",
                             "--insecure",
                             "--log-level",
                             "debug"});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->data_directory, "/d");
  EXPECT_EQ(config->http, "[::1]:1");
  EXPECT_EQ(config->retention_hours, 5);
  EXPECT_EQ(config->retention_bytes, uint64_t{512} << 20);
  EXPECT_THAT(config->allowed_hosts, ElementsAre("a.example", "b.example:80"));
  EXPECT_EQ(config->max_nodes, 7u);
  EXPECT_EQ(config->http_workers, 3u);
  EXPECT_TRUE(config->insecure);
  EXPECT_EQ(config->log_level, "debug");
}

TEST(ConfigTest, NamesTheFlagThatIsWrong) {
  for (const auto& [flag, value] :
       std::vector<std::pair<const char*, const char*>>{{"--retention-hours", "-1"},
                                                        {"--retention-hours", "x"},
                                                        {"--retention-bytes", "10GB"},
                                                        {"--retention-bytes", "99999999999TiB"},
                                                        {"--allowed-host", "a b"},
                                                        {"--data", ""},
                                                        {"--http-workers", "0"},
                                                        {"--log-level", "loud"},
                                                        {"--max-nodes", "1e6"}}) {
    const auto config = Parse({flag, value});
    EXPECT_THAT(base::ToString(config.status()), HasSubstr(flag)) << value;
  }
  EXPECT_THAT(base::ToString(Parse({"--retention", "5"}).status()), HasSubstr("--retention"));
}

TEST(ConfigTest, HelpAndVersionAreMessages) {
  EXPECT_THAT(Parse({"--help"})->message, HasSubstr("--retention-bytes"));
  EXPECT_THAT(Parse({"--version"})->message, HasSubstr("firewatch-server "));
}

TEST_F(ConfigFileTest, TheFileSetsWhatFlagsDoNot) {
  const std::string path = Write(
      "# comment\nhttp: 127.0.0.1:1\nretention-bytes: 1GiB\ninsecure: true\n"
      "allowed-host: [a.example, b.example]\n");
  const auto config = Parse({"--config", path.c_str(), "--http", "127.0.0.1:9"});
  ASSERT_TRUE(config.ok()) << base::ToString(config.status());
  EXPECT_EQ(config->http, "127.0.0.1:9");
  EXPECT_EQ(config->retention_bytes, uint64_t{1} << 30);
  EXPECT_TRUE(config->insecure);
  EXPECT_THAT(config->allowed_hosts, ElementsAre("a.example", "b.example"));
}

TEST_F(ConfigFileTest, NamesFileAndLineOfAMistake) {
  const auto error_of = [this](const std::string& text) {
    const std::string path = Write(text);
    return base::ToString(Parse({"--config", path.c_str()}).status());
  };
  EXPECT_THAT(error_of("http: 127.0.0.1:1\nretention: 5\n"), HasSubstr(".yaml:2: unknown key"));
  EXPECT_THAT(error_of("retention-hours: soon\n"), HasSubstr(".yaml:1: retention-hours: "));
  EXPECT_THAT(error_of("http: [a, b]\n"), HasSubstr("plain value"));
  EXPECT_THAT(error_of("http: {a: b\n"), HasSubstr(".yaml:"));
  EXPECT_THAT(error_of("- a\n"), HasSubstr("KEY: VALUE"));
  EXPECT_THAT(base::ToString(Parse({"--config", "/nonexistent.yaml"}).status()),
              HasSubstr("cannot be read"));
}

}  // namespace
}  // namespace firewatch::server
