// SPDX-License-Identifier: Apache-2.0
#include "agent/modules.h"

#include <utility>

namespace firewatch::agent {

ModuleList MakeModules(ModuleParts parts) {
  ModuleList modules;
  modules.push_back(std::make_unique<CpuModule>(std::move(parts.cpu)));
  return modules;
}

}  // namespace firewatch::agent
