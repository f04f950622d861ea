// SPDX-License-Identifier: Apache-2.0
// The firewall as the agent's module `enforce`. Its section of the file, which may be left out
// (rules then come by `firewatch xdp load` alone):
//
//   enforce:
//     pin_directory: /sys/fs/bpf/firewatch
//     loads_per_second: 4    by `firewatch xdp load` and the API, in bursts of 12; 0: no limit
//     interfaces:
//       - {name: eth0, rules: /etc/firewatch/rules.yaml, allow_default_route: true}
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "agent/core/module.h"
#include "agent/enforce/enforcer.h"
#include "base/mutex.h"

namespace firewatch::agent {

class EnforceModule final : public Module {
 public:
  EnforceModule();
  ~EnforceModule() override;

  std::string_view name() const override { return "enforce"; }
  ModuleNeeds Needs() const override;
  bool MaySwitchOff() const override { return false; }
  absl::Status CheckConfig(const ConfigSection& section) const override;
  // Rules and lists are read anew.
  bool NamesFiles(const ConfigSection& section) const override {
    return section.Find("interfaces") != nullptr;
  }
  absl::Status Start(const ConfigSection& section, ModuleContext& context) override;
  absl::Status Reconfigure(const ConfigSection& section) override;
  void Stop() override;
  ModuleUsage Usage() const override;
  ModuleReport Report() const override;
  std::optional<transport::HttpResponse> Handle(const transport::HttpRequest& request) override;

 private:
  // What metrics read; outlives a Stop, is then empty.
  struct Shared;
  std::shared_ptr<Enforcer> Running() const;

  const std::shared_ptr<Shared> shared_;
  bool has_metrics_ = false;
};

}  // namespace firewatch::agent
