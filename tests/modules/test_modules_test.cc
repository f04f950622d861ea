// SPDX-License-Identifier: Apache-2.0
// Modules that load nothing, or forget what they have loaded, beside one that works: in the host,
// with a real kernel. Needs BPF; what needs none is in agent/core/module_host_test.cc.
#include "tests/modules/test_modules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "agent/core/module_host.h"
#include "base/status.h"

namespace firewatch::testing {
namespace {

using agent::ModuleState;
using agent::ModuleView;
using ::testing::HasSubstr;

constexpr uint64_t kSecondNs = 1'000'000'000;

class TestModulesTest : public ::testing::Test {
 protected:
  TestModulesTest() {
    root_ = ::testing::TempDir() + "modules_XXXXXX";
    EXPECT_NE(::mkdtemp(root_.data()), nullptr);
    std::vector<std::unique_ptr<agent::Module>> modules;
    modules.push_back(std::make_unique<TickerModule>());
    modules.push_back(std::make_unique<UnloadableModule>());
    modules.push_back(std::make_unique<ForgetfulModule>());
    host_ = std::make_unique<agent::ModuleHost>(
        agent::ModuleHostOptions{
            .state_root = root_,
            .upload = [](ingest::UploadWindowRequest) { return absl::OkStatus(); }},
        std::move(modules), processes_, clock_, metrics_);
  }
  ~TestModulesTest() override {
    host_.reset();
    std::filesystem::remove_all(root_);
  }
  ModuleView ViewOf(std::string_view name) {
    for (ModuleView& view : host_->Views()) {
      if (view.name == name) return view;
    }
    return {};
  }

  std::string root_;
  base::MetricsRegistry metrics_;
  base::FakeClock clock_{{}, 100 * kSecondNs};
  agent::ProcessDirectory processes_{{}, clock_, metrics_};
  std::unique_ptr<agent::ModuleHost> host_;
};

TEST_F(TestModulesTest, OneThatDoesNotLoadIsOffWithTheReasonAndOthersRun) {
  ASSERT_TRUE(host_->Start({.enabled = {"ticker", "unloadable"}}).ok());
  EXPECT_EQ(ViewOf("ticker").state, ModuleState::kActive);
  EXPECT_EQ(ViewOf("unloadable").state, ModuleState::kOff);
  EXPECT_THAT(ViewOf("unloadable").why, HasSubstr("load unloadable.bpf.c: "));
  EXPECT_EQ(ViewOf("forgetful").why, "not enabled");
}

TEST_F(TestModulesTest, OneThatThrowsAwayItsMapsIsStartedAgain) {
  const absl::Status started = host_->Start({.enabled = {"ticker", "forgetful"}});
  ASSERT_TRUE(started.ok());
  if (ViewOf("forgetful").state != ModuleState::kActive) {
    GTEST_SKIP() << "no BPF map here: " << ViewOf("forgetful").why;
  }
  ASSERT_TRUE(host_->Handle({.method = "GET", .path = "/forgetful/forget"}).has_value());
  host_->Tick();
  EXPECT_EQ(ViewOf("forgetful").state, ModuleState::kOff);
  EXPECT_THAT(ViewOf("forgetful").why, HasSubstr("its maps are gone: Bad file descriptor"));
  EXPECT_EQ(ViewOf("ticker").state, ModuleState::kActive);
  clock_.AdvanceNs(2 * kSecondNs);
  host_->Tick();
  EXPECT_EQ(ViewOf("forgetful").state, ModuleState::kActive);
}

}  // namespace
}  // namespace firewatch::testing
