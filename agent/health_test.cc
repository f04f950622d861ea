// SPDX-License-Identifier: Apache-2.0
#include "agent/health.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "agent/core/memory.h"
#include "agent/core/module_host.h"
#include "agent/core/process_directory.h"
#include "agent/self_metrics.h"

namespace firewatch::agent {
namespace {

class FakeUploader final : public Uploader {
 public:
  absl::Status Submit(ingest::UploadWindowRequest) override { return absl::OkStatus(); }
  bool Flush(int) override { return true; }
  UploaderStatus Status() const override {
    return {.connected = false, .last_error = "away \xff", .spooled_windows = 3};
  }
};

class HealthTest : public testing::Test {
 protected:
  int Get(const std::string& path, std::string* body = nullptr) {
    const transport::HttpResponse response =
        HandleAgentRequest({.method = "GET", .path = path}, metrics_, health_);
    if (body != nullptr) *body = response.body;
    return response.status;
  }

  base::FakeClock clock_{{0}, 1'000'000'000};
  base::MetricsRegistry metrics_;
  Health health_{clock_};
};

TEST_F(HealthTest, WhatChangesSomethingNeedsTheToken) {
  struct Switch final : Module {
    std::string_view name() const override { return "switch"; }
    ModuleNeeds Needs() const override { return {}; }
    absl::Status CheckConfig(const ConfigSection&) const override { return absl::OkStatus(); }
    absl::Status Start(const ConfigSection&, ModuleContext&) override { return absl::OkStatus(); }
    absl::Status Reconfigure(const ConfigSection&) override { return absl::OkStatus(); }
    void Stop() override {}
    ModuleReport Report() const override { return {}; }
    ModuleUsage Usage() const override { return {}; }
    std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request) override {
      if (request.path != "/api/v1/switch") return std::nullopt;
      return transport::HttpResponse{.body = request.method};
    }
  };
  std::vector<std::unique_ptr<Module>> modules;
  modules.push_back(std::make_unique<Switch>());
  ProcessDirectory directory({.proc_root = "/nonexistent"}, clock_, metrics_);
  ModuleHost host({.state_root = testing::TempDir() + "/health_test"}, std::move(modules),
                  directory, clock_, metrics_);
  ASSERT_TRUE(host.Start({.enabled = {"switch"}}).ok());
  health_.SetHost(&host);
  const auto ask = [&](const std::string& method, const std::string& authorization) {
    return HandleAgentRequest({.method = method,
                               .path = "/api/v1/switch",
                               .headers = {{"authorization", authorization}}},
                              metrics_, health_)
        .status;
  };
  EXPECT_EQ(ask("GET", ""), 200);
  EXPECT_EQ(ask("POST", ""), 401);
  EXPECT_EQ(ask("POST", "Bearer "), 401) << "no token yet";
  health_.SetWriteToken("abc", "/run/it");
  EXPECT_EQ(ask("POST", "Bearer abc"), 200);
  EXPECT_EQ(ask("POST", "Bearer abd"), 401);
  EXPECT_EQ(ask("DELETE", ""), 401);
  health_.SetHost(nullptr);
  host.Stop();
}

TEST_F(HealthTest, IsUnwellBeforeSamplingAndWhenWindowsStop) {
  EXPECT_EQ(Get("/healthz"), 503);
  health_.Started(10'000);
  EXPECT_EQ(Get("/healthz"), 200);
  clock_.AdvanceNs(39'000'000'000);
  EXPECT_EQ(Get("/healthz"), 200);
  clock_.AdvanceNs(2'000'000'000);
  EXPECT_EQ(health_.Problem(), "no window was closed for 41 s");
  health_.WindowClosed({});
  EXPECT_EQ(Get("/healthz"), 200);
}

TEST_F(HealthTest, StatusSurvivesTextsThatAreNotUtf8) {
  FakeUploader uploader;
  health_.SetUploader(&uploader);
  std::string body;
  EXPECT_EQ(Get("/status", &body), 200);
  EXPECT_NE(body.find("\"spooled_windows\":3"), std::string::npos) << body;
}

TEST_F(HealthTest, StatusSaysHowStacksEndedByProgram) {
  auto ends = std::make_shared<StackEndsByProgram>();
  ProgramStackEnds app{"app", {}};
  app.counts[FW_STACK_END_ROOT] = 3;
  app.counts[FW_STACK_END_NO_TABLE] = 1;
  ends->Add(std::span(&app, 1));
  health_.SetProgramEnds(ends);
  std::string body;
  EXPECT_EQ(Get("/status", &body), 200);
  EXPECT_NE(body.find("\"complete_stacks\":0.75"), std::string::npos) << body;
  EXPECT_NE(body.find("\"stack_ends\":{\"no_table\":1,\"root\":3}"), std::string::npos) << body;
}

TEST_F(HealthTest, TablesAreListedOnceThereIsAReport) {
  EXPECT_EQ(Get("/tables"), 404);
  TableReport report;
  report.memory_limit_bytes = 123;
  report.maps = {{"tables", 77}};
  report.listing.rows.push_back({.path = "/bin/\xff", .rows = 9, .state = "loaded"});
  health_.SetTables(report);
  std::string body;
  EXPECT_EQ(Get("/tables", &body), 200);
  for (const char* part : {"\"memory_limit_bytes\":123", "\"tables\":77", "\"rows\":9"}) {
    EXPECT_NE(body.find(part), std::string::npos) << body;
  }
}

TEST_F(HealthTest, AnswersOnlyWhatItHas) {
  EXPECT_EQ(Get("/metrics"), 200);
  EXPECT_EQ(Get("/other"), 404);
  EXPECT_EQ(HandleAgentRequest({.method = "POST", .path = "/metrics"}, metrics_, health_).status,
            405);
}

TEST(SelfMetricsTest, CountsAnonymousMemoryAndMaps) {
  EXPECT_GT(RssAnonBytes(), 100'000u);
  base::MetricsRegistry metrics;
  RegisterSelfMetrics(metrics, [] { return uint64_t{1'000'000'000'000}; });
  EXPECT_NE(metrics.Expose().find("firewatch_agent_memory_bytes 100"), std::string::npos);
}

}  // namespace
}  // namespace firewatch::agent
