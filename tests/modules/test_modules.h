// SPDX-License-Identifier: Apache-2.0
// Modules of tests, written the way that ARCHITECTURE.md says: a small one that counts and can be
// made to burn CPU, one whose load fails, and one that throws away its maps.
#pragma once

#include <atomic>
#include <string>
#include <thread>

#include "agent/core/module.h"
#include "base/unique_fd.h"

namespace firewatch::testing {

// Section `ticker`: interval (a time), burn (percent of one CPU that its thread uses at full
// detail; half of it at level 1). GET /ticker answers how often it has ticked.
class TickerModule final : public agent::Module {
 public:
  ~TickerModule() override { Stop(); }
  std::string_view name() const override { return "ticker"; }
  agent::ModuleNeeds Needs() const override { return {}; }
  absl::Status CheckConfig(const agent::ConfigSection& section) const override;
  absl::Status Start(const agent::ConfigSection& section, agent::ModuleContext& context) override;
  absl::Status Reconfigure(const agent::ConfigSection& section) override;
  void Stop() override;
  agent::ModuleReport Report() const override;
  agent::ModuleUsage Usage() const override { return {}; }
  int DetailLevels() const override { return 2; }
  std::string DetailText(int level) const override { return level == 0 ? "all ticks" : "half"; }
  void SetDetail(int level) override { level_ = level; }
  std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request) override;

 private:
  void Run(agent::ModuleContext& context);

  std::thread thread_;
  std::atomic<bool> stop_{false};
  std::atomic<int> level_{0};
  std::atomic<uint64_t> interval_ms_{100};
  std::atomic<uint64_t> burn_percent_{0};
  std::atomic<uint64_t> ticks_{0};
};

// Its object does not load: the verifier refuses it, every time.
class UnloadableModule final : public agent::Module {
 public:
  std::string_view name() const override { return "unloadable"; }
  agent::ModuleNeeds Needs() const override { return {}; }
  absl::Status CheckConfig(const agent::ConfigSection& section) const override;
  absl::Status Start(const agent::ConfigSection& section, agent::ModuleContext& context) override;
  absl::Status Reconfigure(const agent::ConfigSection&) override { return absl::OkStatus(); }
  void Stop() override {}
  agent::ModuleReport Report() const override { return {}; }
  agent::ModuleUsage Usage() const override { return {}; }
};

// Has a BPF map, and closes it behind its own back at GET /forgetful/forget.
class ForgetfulModule final : public agent::Module {
 public:
  std::string_view name() const override { return "forgetful"; }
  agent::ModuleNeeds Needs() const override { return {}; }
  absl::Status CheckConfig(const agent::ConfigSection& section) const override;
  absl::Status Start(const agent::ConfigSection& section, agent::ModuleContext& context) override;
  absl::Status Reconfigure(const agent::ConfigSection&) override { return absl::OkStatus(); }
  void Stop() override { map_.Reset(); }
  absl::Status CheckHealth() override;
  agent::ModuleReport Report() const override { return {}; }
  agent::ModuleUsage Usage() const override { return {.map_bytes = 4096}; }
  std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request) override;

 private:
  base::UniqueFd map_;
  std::atomic<bool> forget_{false};
};

}  // namespace firewatch::testing
