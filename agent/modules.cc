// SPDX-License-Identifier: Apache-2.0
#include "agent/modules.h"

#include <utility>

#include "agent/enforce/enforce_module.h"
#include "agent/network/network_module.h"

namespace firewatch::agent {

ModuleList MakeModules(ModuleParts parts) {
  ModuleList modules;
  modules.push_back(std::make_unique<CpuModule>(std::move(parts.cpu)));
  modules.push_back(std::make_unique<NetworkModule>());
  modules.push_back(std::make_unique<EnforceModule>());
  return modules;
}

}  // namespace firewatch::agent
