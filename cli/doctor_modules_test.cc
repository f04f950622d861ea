// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor_modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace firewatch::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kStatus =
    R"({"budget":{"percent":1.0,"used_percent":0.31,"agent_percent":0.06},"modules":[
  {"name":"cpu","enabled":true,"state":"degraded","why":"over its budget: 9 Hz instead of 19 Hz",
   "detail":"9 Hz","level":1,"cpu_percent":0.25,"cpu_share_percent":0.75,"memory_bytes":4194304,
   "memory_share_bytes":50331648},
  {"name":"enforce","enabled":false,"state":"off","why":"not enabled","detail":"","level":0,
   "cpu_percent":0,"cpu_share_percent":0.25,"memory_bytes":0,"memory_share_bytes":0}]})";

TEST(DoctorModulesTest, SaysStateCostAndReason) {
  bool all_active = true;
  const auto text = FormatModules(kStatus, &all_active);
  ASSERT_TRUE(text.ok());
  EXPECT_FALSE(all_active);
  EXPECT_THAT(*text, HasSubstr("cpu        degraded  9 Hz            0.250 % of 0.750 %"));
  EXPECT_THAT(*text, HasSubstr("over its budget: 9 Hz instead of 19 Hz"));
  EXPECT_THAT(*text, HasSubstr("enforce    -         not enabled"));
  EXPECT_THAT(*text, HasSubstr("0.310 % of the machine used, 0.060 % of it by the agent itself"));
}

TEST(DoctorModulesTest, AnythingElseIsRefused) {
  EXPECT_FALSE(FormatModules("{}", nullptr).ok());
  EXPECT_FALSE(FormatModules("<html>", nullptr).ok());
  EXPECT_FALSE(FormatModules(R"({"modules":[{}],"budget":{}})", nullptr).ok());
}

TEST(DoctorModulesTest, MissingNeedsAreNamedWithTheirRemedy) {
  agent::ModuleNeeds needs;
  needs.needs = {{.name = "tp_btf", .available = true},
                 {.name = "iter/tcp",
                  .required = false,
                  .detail = "refused: Invalid argument",
                  .remedy = "Linux 5.9"}};
  bool runs = false;
  std::string text = FormatNeeds("network", needs, &runs);
  EXPECT_TRUE(runs);
  EXPECT_THAT(text, HasSubstr(" warn  module network"));
  EXPECT_THAT(text, HasSubstr("iter/tcp (one signal less): refused: Invalid argument; Linux 5.9"));
  needs.needs[0].available = false;
  text = FormatNeeds("network", needs, &runs);
  EXPECT_FALSE(runs);
  EXPECT_THAT(text, HasSubstr("cannot run here"));
}

}  // namespace
}  // namespace firewatch::cli
