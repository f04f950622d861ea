// SPDX-License-Identifier: Apache-2.0
#include "agent/core/governor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace firewatch::agent {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSecondNs = 1'000'000'000;

// A machine of four CPUs; each module costs what its function says, as a part of the machine.
class GovernorTest : public ::testing::Test {
 protected:
  GovernorTest() : governor_({.budget = 0.01, .cpus = 4, .memory_bytes = 1000}) {}

  void Add(const std::string& name, std::function<double(int level)> cost, int levels = 3,
           double weight = 1) {
    governor_.Add({.name = name, .weight = weight, .levels = levels});
    costs_[name] = std::move(cost);
  }

  // Steps of that many seconds, "network 0>1".
  std::vector<std::string> Run(uint64_t seconds) {
    std::vector<std::string> out;
    for (uint64_t i = 0; i < seconds; i += 2) {
      now_ns_ += 2 * kSecondNs;
      for (auto& [name, cost] : costs_) {
        GovernedUsage& usage = used_[name];
        const int level = governor_.LevelOf(name);
        usage.cpu_ns += static_cast<uint64_t>(cost(level) * 4 * 2e9);
        governor_.Measure(name, now_ns_, usage);
      }
      agent_used_ns_ += static_cast<uint64_t>(agent_cost_ * 4 * 2e9);
      governor_.MeasureAgent(now_ns_, agent_used_ns_);
      for (const GovernorStep& step : governor_.Decide(now_ns_)) {
        out.push_back(fmt(step));
        last_why_ = step.why;
      }
    }
    return out;
  }

  static std::string fmt(const GovernorStep& step) {
    return step.module + " " + std::to_string(step.from) + ">" + std::to_string(step.to);
  }

  Governor governor_;
  uint64_t now_ns_ = 1000 * kSecondNs;
  std::map<std::string, std::function<double(int)>> costs_;
  std::map<std::string, GovernedUsage> used_;
  double agent_cost_ = 0;  // of the machine, what no module uses
  uint64_t agent_used_ns_ = 0;
  std::string last_why_;
};

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(GovernorTest, WithinTheBudgetNothingHappens) {
  Add("cpu", [](int) { return 0.004; });
  Add("network", [](int) { return 0.004; });
  EXPECT_THAT(Run(3600), IsEmpty());
  EXPECT_NEAR(governor_.total(), 0.008, 1e-6);
}

TEST_F(GovernorTest, UnusedShareOfOthersIsLent) {
  Add("cpu", [](int) { return 0.001; });
  Add("network", [](int) { return 0.008; });  // its share is 0.005
  EXPECT_THAT(Run(600), IsEmpty());
}

TEST_F(GovernorTest, TheOneOverItsShareStepsDownAndNobodyElse) {
  Add("cpu", [](int) { return 0.004; });
  Add("network", [](int level) { return level == 0 ? 0.02 : 0.004; });
  EXPECT_THAT(Run(60), ElementsAre("network 0>1"));
  EXPECT_THAT(last_why_, HasSubstr("2.00 % of the machine, 0.50 % is its share"));
}

TEST_F(GovernorTest, WhatTheAgentItselfUsesComesOffTheShares) {
  Add("cpu", [](int) { return 0.004; });
  Add("network", [](int level) { return level == 0 ? 0.0045 : 0.002; });
  agent_cost_ = 0.001;
  EXPECT_THAT(Run(600), IsEmpty());
  EXPECT_NEAR(governor_.agent(), 0.001, 1e-9);
  EXPECT_NEAR(governor_.total(), 0.0095, 1e-9);
  EXPECT_NEAR(governor_.View()[0].share, 0.0045, 1e-9);
  // The same two modules, but the agent has become dearer: together they are over now.
  agent_cost_ = 0.003;
  EXPECT_THAT(Run(60), ElementsAre("network 0>1"));
  EXPECT_THAT(last_why_, HasSubstr("0.45 % of the machine, 0.3"));
}

TEST_F(GovernorTest, AnAgentOverTheWholeBudgetLeavesModulesATenth) {
  Add("cpu", [](int) { return 0.0004; });
  agent_cost_ = 0.02;
  EXPECT_THAT(Run(600), IsEmpty());  // it is not the module that is over
  EXPECT_NEAR(governor_.View()[0].share, 0.001, 1e-9);
}

TEST_F(GovernorTest, BurstShorterThanPatienceIsNoReason) {
  Add("network",
      [this](int) { return now_ns_ % (100 * kSecondNs) < 4 * kSecondNs ? 0.03 : 0.001; });
  EXPECT_THAT(Run(1000), IsEmpty());
}

TEST_F(GovernorTest, StepsUntilItFitsThenOff) {
  Add("network", [](int level) { return level >= 3 ? 0 : 0.03; });
  EXPECT_THAT(Run(60), ElementsAre("network 0>1", "network 1>2", "network 2>3"));
  EXPECT_EQ(governor_.total(), 0);
}

TEST_F(GovernorTest, WhatMayNotBeSwitchedOffStaysAtItsLeastDetail) {
  governor_.Add({.name = "enforce", .levels = 2, .may_switch_off = false});
  costs_["enforce"] = [](int) { return 0.03; };
  EXPECT_THAT(Run(600), ElementsAre("enforce 0>1"));
}

TEST_F(GovernorTest, WhatIsPinnedIsNeverLowered) {
  governor_.Add({.name = "cpu", .levels = 4, .pinned = true});
  costs_["cpu"] = [](int) { return 0.2; };
  EXPECT_THAT(Run(600), IsEmpty());
  EXPECT_NEAR(governor_.total(), 0.2, 1e-6);
}

TEST_F(GovernorTest, RecoversWhenTheLoadHasGone) {
  double load = 0.02;
  Add("network", [&load](int level) { return load / (1 << level); });
  EXPECT_THAT(Run(60), ElementsAre("network 0>1"));  // at level 1 it uses 0.01: just the budget
  load = 0.002;
  EXPECT_THAT(Run(120), ElementsAre("network 1>0"));
}

TEST_F(GovernorTest, DoesNotStepUpToWhatItCouldNotAfford) {
  Add("network", [](int level) { return 0.016 / (1 << level); });
  EXPECT_THAT(Run(60), ElementsAre("network 0>1"));
  // It uses 0.008 here and would use 0.016 above: no oscillation, ever.
  EXPECT_THAT(Run(7200), IsEmpty());
}

TEST_F(GovernorTest, FailedTrialsComeEverMoreRarely) {
  Add("network", [](int level) { return level >= 1 ? 0.0001 : 0.03; }, 1);
  size_t steps = 0;
  steps += Run(3600).size();
  // Off and on: with a wait that doubles from 60 s these are 6 trials in an hour, not 50.
  EXPECT_GE(steps, 7u);
  EXPECT_LE(steps, 15u);
}

TEST_F(GovernorTest, LeastImportantIsNotTheFirstButTheOneFurthestOver) {
  Add("cpu", [](int level) { return level == 0 ? 0.009 : 0.003; }, 3, 3);      // share 0.0075
  Add("network", [](int level) { return level == 0 ? 0.009 : 0.002; }, 3, 1);  // share 0.0025
  // After network's step both together fit but for cpu's: it is over its share and the sum is over.
  EXPECT_THAT(Run(300), ElementsAre("network 0>1", "cpu 0>1"));
}

TEST_F(GovernorTest, BuildingIsSpreadOverTenMinutes) {
  Add("cpu", [](int) { return 0.002; });
  Run(30);
  used_["cpu"].building_cpu_ns +=
      12 * kSecondNs;  // 12 s of one CPU within a moment: 0.5 % of 600 s
  EXPECT_THAT(Run(590), IsEmpty());
  EXPECT_NEAR(governor_.total(), 0.007, 0.0002);
  Run(60);
  EXPECT_NEAR(governor_.total(), 0.002, 0.0002);
}

TEST_F(GovernorTest, KernelTimeCounts) {
  Add("network", [this](int level) {
    used_["network"].kernel_ns += level == 0 ? 8 * kSecondNs / 50 : 0;  // 2 % of the machine
    return 0.0;
  });
  EXPECT_THAT(Run(60), ElementsAre("network 0>1"));
}

TEST_F(GovernorTest, MemoryOverItsShareStepsDown) {
  Add("cpu", [](int) { return 0.0; });
  Add("network", [](int) { return 0.0; });
  used_["cpu"].memory_bytes = 200;
  used_["network"].memory_bytes = 600;
  EXPECT_THAT(Run(100), IsEmpty());
  governor_.SetCommonMemory(300);
  EXPECT_THAT(Run(14), ElementsAre("network 0>1"));
  used_["network"].memory_bytes = 100;
  governor_.SetCommonMemory(300);
  EXPECT_THAT(Run(100), ElementsAre("network 1>0"));
}

TEST_F(GovernorTest, ViewSaysWhatEachUsesAndMayUse) {
  Add("cpu", [](int) { return 0.004; }, 3, 3);
  Add("network", [](int) { return 0.001; });
  Run(60);
  const std::vector<GovernorView> view = governor_.View();
  ASSERT_EQ(view.size(), 2u);
  EXPECT_EQ(view[0].module, "cpu");
  EXPECT_NEAR(view[0].cpu, 0.004, 1e-6);
  EXPECT_NEAR(view[0].share, 0.0075, 1e-9);
  EXPECT_EQ(view[1].memory_share_bytes, 250u);
}

}  // namespace
}  // namespace firewatch::agent
