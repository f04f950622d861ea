// SPDX-License-Identifier: Apache-2.0
#include "agent/core/module_host.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kSecondNs = 1'000'000'000;

// What a module was told, and what it answers.
struct Script {
  std::vector<std::string> calls;
  absl::Status start;
  absl::Status reconfigure;
  absl::Status health;
  ModuleUsage usage;
  ModuleReport report;
  int levels = 1;
  bool may_switch_off = true;
  std::function<void()> on_handle;
  std::function<void()> on_start;
};

class ScriptedModule final : public Module {
 public:
  ScriptedModule(std::string name, Script& script) : name_(std::move(name)), script_(script) {}
  std::string_view name() const override { return name_; }
  ModuleNeeds Needs() const override { return {}; }
  bool MaySwitchOff() const override { return script_.may_switch_off; }
  absl::Status CheckConfig(const ConfigSection& section) const override {
    uint64_t top = 0;
    ConfigReader reader(section, name_);
    reader.Integer("top", uint64_t{1}, uint64_t{10}, &top);
    return reader.Finish();
  }
  absl::Status Start(const ConfigSection& section, ModuleContext& context) override {
    script_.calls.push_back("start" + TopOf(section));
    context_ = &context;
    if (script_.on_start) script_.on_start();
    return script_.start;
  }
  absl::Status Reconfigure(const ConfigSection& section) override {
    script_.calls.push_back("reconfigure" + TopOf(section));
    return script_.reconfigure;
  }
  void Stop() override { script_.calls.push_back("stop"); }
  absl::Status CheckHealth() override { return script_.health; }
  ModuleReport Report() const override { return script_.report; }
  ModuleUsage Usage() const override { return script_.usage; }
  int DetailLevels() const override { return script_.levels; }
  std::string DetailText(int level) const override { return "level " + std::to_string(level); }
  void SetDetail(int level) override { script_.calls.push_back("detail " + std::to_string(level)); }
  std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request) override {
    if (request.path != "/" + name_) return std::nullopt;
    if (script_.on_handle) script_.on_handle();
    return transport::HttpResponse{.body = name_};
  }
  ModuleContext* context() const { return context_; }

 private:
  static std::string TopOf(const ConfigSection& section) {
    return section.Find("top") == nullptr ? "" : " " + section.Find("top")->text();
  }
  const std::string name_;
  Script& script_;
  ModuleContext* context_ = nullptr;
};

class ModuleHostTest : public ::testing::Test {
 protected:
  ModuleHostTest() {
    root_ = ::testing::TempDir() + "host_XXXXXX";
    EXPECT_NE(::mkdtemp(root_.data()), nullptr);
  }
  ~ModuleHostTest() override {
    host_.reset();
    std::filesystem::remove_all(root_);
  }

  ModuleHost& Make(ModuleHostOptions options = {}) {
    options.state_root = root_;
    options.node = "n1";
    options.governor.cpus = 1;
    if (!options.upload) {
      options.upload = [](ingest::UploadWindowRequest) { return absl::OkStatus(); };
    }
    std::vector<std::unique_ptr<Module>> modules;
    for (auto [name, script] : {std::pair{"a", &a_}, std::pair{"b", &b_}}) {
      auto module = std::make_unique<ScriptedModule>(name, *script);
      (name[0] == 'a' ? module_a_ : module_b_) = module.get();
      modules.push_back(std::move(module));
    }
    host_ = std::make_unique<ModuleHost>(std::move(options), std::move(modules), processes_, clock_,
                                         metrics_);
    return *host_;
  }

  static ModuleSettings Settings(std::string_view yaml = "",
                                 std::vector<std::string> enabled = {"a", "b"}) {
    ModuleSettings settings{.enabled = std::move(enabled)};
    const auto root = ParseConfigText(yaml, "t.yaml");
    EXPECT_TRUE(root.ok()) << base::ToString(root.status());
    for (const ConfigEntry& entry : root->entries()) settings.sections[entry.key] = entry.value;
    return settings;
  }

  ModuleView ViewOf(std::string_view name) {
    for (ModuleView& view : host_->Views()) {
      if (view.name == name) return view;
    }
    return {};
  }

  void TickFor(uint64_t seconds) {
    for (uint64_t i = 0; i < seconds; i += 2) {
      clock_.AdvanceNs(2 * kSecondNs);
      host_->Tick();
    }
  }

  std::string root_;
  base::MetricsRegistry metrics_;
  base::FakeClock clock_{{}, 100 * kSecondNs};
  ProcessDirectory processes_{{}, clock_, metrics_};
  Script a_, b_;
  ScriptedModule* module_a_ = nullptr;
  ScriptedModule* module_b_ = nullptr;
  std::unique_ptr<ModuleHost> host_;
};

TEST_F(ModuleHostTest, StartsInOrderAndStopsInReverse) {
  std::vector<std::string> order;
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings("a: {top: 5}\n")).ok());
  EXPECT_THAT(a_.calls, ElementsAre("start 5"));
  EXPECT_EQ(ViewOf("a").state, ModuleState::kActive);
  EXPECT_TRUE(std::filesystem::is_directory(module_a_->context()->state_directory));
  EXPECT_EQ(module_a_->context()->node, "n1");
  EXPECT_EQ(module_a_->context()->memory_limit_bytes, uint64_t{32} << 20);
  host.Stop();
  EXPECT_THAT(b_.calls, ElementsAre("start", "stop"));
  EXPECT_EQ(ViewOf("a").why, "the agent is stopping");
}

TEST_F(ModuleHostTest, OneThatDoesNotStartIsOffAndNobodyElse) {
  b_.start = base::FailedPrecondition("no BTF here");
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings()).ok());
  EXPECT_EQ(ViewOf("a").state, ModuleState::kActive);
  EXPECT_EQ(ViewOf("b").state, ModuleState::kOff);
  EXPECT_EQ(ViewOf("b").why, "no BTF here");
  TickFor(600);  // what will be the same is not tried again
  EXPECT_THAT(b_.calls, ElementsAre("start"));
  EXPECT_THAT(a_.calls, ElementsAre("start"));
}

TEST_F(ModuleHostTest, WhenNoneStartsTheReasonsAreReturned) {
  a_.start = base::FailedPrecondition("no BTF here");
  b_.start = base::PermissionDenied("not root");
  const absl::Status status = Make().Start(Settings());
  EXPECT_THAT(base::Message(status), HasSubstr("module a: no BTF here; module b: not root"));
}

TEST_F(ModuleHostTest, WhatMayPassIsTriedAgainWithBackoff) {
  b_.start = base::Unavailable("busy");
  Make().Start(Settings()).IgnoreError();
  TickFor(120);
  // After 2, 4, 8, 16, 32 and 64 seconds: the last has not come yet.
  EXPECT_EQ(b_.calls.size(), 6u);
  b_.start = absl::OkStatus();
  TickFor(64);
  EXPECT_EQ(ViewOf("b").state, ModuleState::kActive);
  EXPECT_EQ(
      metrics_.AddCounter("firewatch_agent_module_failures_total", "", {{"module", "b"}}).value(),
      6u);
}

TEST_F(ModuleHostTest, OneThatBreaksIsStoppedAndStartedAgain) {
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings()).ok());
  b_.health = base::FailedPrecondition("its maps are gone");
  TickFor(2);
  EXPECT_EQ(ViewOf("b").state, ModuleState::kOff);
  EXPECT_THAT(ViewOf("b").why, HasSubstr("its maps are gone"));
  b_.health = absl::OkStatus();
  TickFor(2);
  EXPECT_EQ(ViewOf("b").state, ModuleState::kActive);
  EXPECT_THAT(b_.calls, ElementsAre("start", "stop", "start"));
  EXPECT_THAT(a_.calls, ElementsAre("start"));
}

TEST_F(ModuleHostTest, ReloadTouchesOnlyWhatHasChanged) {
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings("a: {top: 5}\nb: {top: 5}\n")).ok());
  ASSERT_TRUE(host.Reload(Settings("# comment\n\na: {top: 5}\nb: {top: 6}\n")).ok());
  EXPECT_THAT(a_.calls, ElementsAre("start 5"));
  EXPECT_THAT(b_.calls, ElementsAre("start 5", "reconfigure 6"));
}

TEST_F(ModuleHostTest, ReloadThatIsWrongSomewhereChangesNothing) {
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings("a: {top: 5}\n")).ok());
  const absl::Status status = host.Reload(Settings("a: {top: 6}\nb:\n  topp: 1\n", {"a"}));
  EXPECT_EQ(base::Message(status), "t.yaml:3: unknown key \"topp\" in b; did you mean \"top\"?");
  EXPECT_THAT(a_.calls, ElementsAre("start 5"));
  EXPECT_EQ(ViewOf("b").state, ModuleState::kActive);
}

TEST_F(ModuleHostTest, ReloadSwitchesModulesOnAndOff) {
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings("", {"a"})).ok());
  EXPECT_EQ(ViewOf("b").why, "not enabled");
  ASSERT_TRUE(host.Reload(Settings("", {"b"})).ok());
  EXPECT_THAT(a_.calls, ElementsAre("start", "stop"));
  EXPECT_THAT(b_.calls, ElementsAre("start"));
  EXPECT_FALSE(ViewOf("a").enabled);
}

TEST_F(ModuleHostTest, WhatCannotChangeWhileItRunsIsStartedAgain) {
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings()).ok());
  a_.reconfigure = absl::UnimplementedError("");
  ASSERT_TRUE(host.Reload(Settings("a: {top: 3}\n")).ok());
  EXPECT_THAT(a_.calls, ElementsAre("start", "reconfigure 3", "stop", "start 3"));
}

TEST_F(ModuleHostTest, RefusedSettingsAreSaidAndTheOldOnesStay) {
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings()).ok());
  a_.reconfigure = base::Unavailable("no such interface");
  EXPECT_FALSE(host.Reload(Settings("a: {top: 3}\nb: {top: 4}\n")).ok());
  EXPECT_EQ(ViewOf("a").state, ModuleState::kDegraded);
  EXPECT_EQ(ViewOf("a").why, "the last reload was refused: no such interface");
  EXPECT_THAT(b_.calls, ElementsAre("start", "reconfigure 4"));
  // The same again: it differs from what is in force, so it is tried again.
  a_.reconfigure = absl::OkStatus();
  EXPECT_TRUE(host.Reload(Settings("a: {top: 3}\nb: {top: 4}\n")).ok());
  EXPECT_EQ(ViewOf("a").state, ModuleState::kActive);
}

TEST_F(ModuleHostTest, ModuleOverItsBudgetStepsDownAndIsSwitchedOffAndComesBack) {
  b_.levels = 2;
  ModuleHost& host = Make();
  ASSERT_TRUE(host.Start(Settings()).ok());
  const auto burn = [this](uint64_t seconds) {
    for (uint64_t i = 0; i < seconds; i += 2) {
      b_.usage.cpu_ns += kSecondNs / 5;  // 10 % of the machine
      TickFor(2);
    }
  };
  burn(16);
  EXPECT_THAT(b_.calls, ElementsAre("start", "detail 1"));
  EXPECT_EQ(ViewOf("b").state, ModuleState::kDegraded);
  EXPECT_THAT(ViewOf("b").why, HasSubstr("over its budget: level 1 instead of level 0 (10.00 %"));
  burn(20);
  EXPECT_THAT(b_.calls, ElementsAre("start", "detail 1", "stop"));
  EXPECT_EQ(ViewOf("b").state, ModuleState::kOff);
  EXPECT_TRUE(ViewOf("b").governed_off);
  EXPECT_EQ(ViewOf("a").state, ModuleState::kActive);
  TickFor(64);
  EXPECT_THAT(b_.calls, ElementsAre("start", "detail 1", "stop", "start", "detail 1"));
  EXPECT_EQ(ViewOf("b").state, ModuleState::kDegraded);
  TickFor(120);
  EXPECT_EQ(b_.calls.back(), "detail 0");
  EXPECT_EQ(ViewOf("b").state, ModuleState::kActive);
  EXPECT_THAT(a_.calls, ElementsAre("start"));
  EXPECT_EQ(metrics_
                .AddCounter("firewatch_agent_module_steps_total", "",
                            {{"module", "b"}, {"direction", "down"}})
                .value(),
            2u);
}

TEST_F(ModuleHostTest, TimeInBpfIsCountedNowAndThenAndTakenToHold) {
  int asked = 0;
  Make({.enable_bpf_stats = [&asked]() -> absl::StatusOr<base::UniqueFd> {
    ++asked;
    return base::UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }});
  ModuleSettings settings = Settings();
  settings.budget = 0.5;
  ASSERT_TRUE(host_->Start(settings).ok());
  for (int i = 0; i < 45; ++i) {
    b_.usage.bpf_run_ns += kSecondNs / 25;  // 2 % of the machine of one CPU
    TickFor(2);
  }
  EXPECT_GE(asked, 3);
  EXPECT_LE(asked, 5);
  EXPECT_NEAR(ViewOf("b").governor.cpu, 0.02, 0.001);
}

// A storm begins between two countings, and ends.
TEST_F(ModuleHostTest, TimeInBpfIsCountedAnewWhenItsEventsComeFaster) {
  int asked = 0;
  Make({.enable_bpf_stats = [&asked]() -> absl::StatusOr<base::UniqueFd> {
    ++asked;
    return base::UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  }});
  ModuleSettings settings = Settings();
  settings.budget = 0.5;
  ASSERT_TRUE(host_->Start(settings).ok());
  const auto tick = [this](uint64_t events) {
    b_.usage.kernel_events += events;
    b_.usage.bpf_run_ns += events * 1'000;
    TickFor(2);
  };
  for (int i = 0; i < 6; ++i) tick(200);
  const int before = asked;
  EXPECT_LT(ViewOf("b").governor.cpu, 0.001);
  tick(80'000);
  EXPECT_EQ(asked, before + 1) << "at the first tick that sees it";
  for (int i = 0; i < 11; ++i) tick(80'000);
  EXPECT_EQ(asked, before + 1) << "once";
  EXPECT_NEAR(ViewOf("b").governor.cpu, 0.04, 0.005);
  tick(200);
  EXPECT_EQ(asked, before + 2) << "it is over";
  for (int i = 0; i < 12; ++i) tick(200);
  EXPECT_LT(ViewOf("b").governor.cpu, 0.001);
}

// 3 % of one CPU, and 2 % in a thread of a module: the rest of the process is the agent's own.
TEST_F(ModuleHostTest, WhatNoModuleHasUsedIsTheAgentsOwn) {
  uint64_t process_ns = 7 * kSecondNs;  // from before the first look
  Make({.process_cpu_ns = [&process_ns] { return process_ns; }});
  ModuleSettings settings = Settings();
  settings.budget = 0.1;
  ASSERT_TRUE(host_->Start(settings).ok());
  TickFor(2);
  for (int i = 0; i < 30; ++i) {
    process_ns += kSecondNs / 10;
    b_.usage.cpu_ns += kSecondNs / 25;
    TickFor(2);
  }
  EXPECT_NEAR(host_->used_by_agent(), 0.03, 0.001);
  EXPECT_NEAR(host_->used(), 0.05, 0.001);
  EXPECT_NEAR(ViewOf("b").governor.cpu, 0.02, 0.001);
  EXPECT_NEAR(ViewOf("b").governor.share, 0.035, 0.001);
  EXPECT_THAT(metrics_.Expose(), HasSubstr("\nfirewatch_agent_own_cpu_ratio 0.03"));
}

// Loading its programs on the host's thread, as modules do: spread like the building of tables.
TEST_F(ModuleHostTest, StartOfAModuleIsItsOwnLump) {
  const auto real_ns = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<uint64_t>(time.tv_sec) * kSecondNs + static_cast<uint64_t>(time.tv_nsec);
  };
  Make({.process_cpu_ns = real_ns});
  TickFor(2);
  b_.on_start = [&real_ns] {
    for (const uint64_t end_ns = real_ns() + kSecondNs / 5; real_ns() < end_ns;) continue;
  };
  ASSERT_TRUE(host_->Start(Settings()).ok());
  TickFor(4);
  EXPECT_LT(host_->used_by_agent(), 0.02);  // 0.2 s in 4 s would be 0.05
  EXPECT_EQ(ViewOf("b").governor.level, 0);
}

TEST_F(ModuleHostTest, WithoutStatisticsTheHostGoesOn) {
  int asked = 0;
  Make({.enable_bpf_stats = [&asked]() -> absl::StatusOr<base::UniqueFd> {
    ++asked;
    return base::PermissionDenied("no");
  }});
  ASSERT_TRUE(host_->Start(Settings()).ok());
  TickFor(100);
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(ViewOf("b").state, ModuleState::kActive);
}

TEST_F(ModuleHostTest, MapsOfOthersAreKnownToEach) {
  b_.usage.map_bytes = 4096;
  Make();
  ASSERT_TRUE(host_->Start(Settings()).ok());
  EXPECT_EQ(module_a_->context()->map_bytes_of_others(), 4096u);
  EXPECT_EQ(host_->MapBytes(), 4096u);
}

TEST_F(ModuleHostTest, PageAsksTheModuleWhosePathItIs) {
  Make();
  ASSERT_TRUE(host_->Start(Settings("", {"b"})).ok());
  EXPECT_EQ(host_->Handle({.method = "GET", .path = "/b"})->body, "b");
  EXPECT_FALSE(host_->Handle({.method = "GET", .path = "/a"}).has_value());  // it is off
  EXPECT_FALSE(host_->Handle({.method = "GET", .path = "/c"}).has_value());
}

TEST_F(ModuleHostTest, NobodyIsInsideAModuleThatIsBeingStopped) {
  std::atomic<bool> inside{false};
  std::atomic<bool> left{false};
  b_.on_handle = [&] {
    inside = true;
    inside.notify_all();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    left = true;
  };
  Make();
  ASSERT_TRUE(host_->Start(Settings()).ok());
  std::thread asker([this] { host_->Handle({.method = "GET", .path = "/b"}); });
  inside.wait(false);
  host_->Stop();
  EXPECT_TRUE(left);
  asker.join();
}

TEST_F(ModuleHostTest, UploadsOfModulesComeOneAtATime) {
  std::atomic<int> at_once{0};
  std::atomic<int> uploads{0};
  Make({.upload = [&](ingest::UploadWindowRequest) {
    EXPECT_EQ(++at_once, 1);
    ++uploads;
    --at_once;
    return absl::OkStatus();
  }});
  ASSERT_TRUE(host_->Start(Settings()).ok());
  const auto send = [&](ScriptedModule* module) {
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE(module->context()->upload({}).ok());
  };
  std::thread other([&] { send(module_a_); });
  send(module_b_);
  other.join();
  EXPECT_EQ(uploads, 2000);
}

TEST_F(ModuleHostTest, MetricsTellStateAndCost) {
  b_.start = base::FailedPrecondition("no");
  Make();
  ASSERT_TRUE(host_->Start(Settings()).ok());
  TickFor(4);
  const std::string page = metrics_.Expose();
  EXPECT_THAT(page, HasSubstr("firewatch_agent_module_state{module=\"a\"} 1"));
  EXPECT_THAT(page, HasSubstr("firewatch_agent_module_state{module=\"b\"} 0"));
  EXPECT_THAT(page, HasSubstr("firewatch_agent_module_cpu_share_ratio{module=\"a\"} 0.01"));
}

}  // namespace
}  // namespace firewatch::agent
