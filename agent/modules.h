// SPDX-License-Identifier: Apache-2.0
// The list of what this agent can do: one line per module.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "agent/core/module.h"
#include "agent/cpu/cpu_module.h"

namespace firewatch::agent {

using ModuleList = std::vector<std::unique_ptr<Module>>;

// What main wires into them. A default one makes modules that can be asked (name, needs,
// CheckConfig) and not started.
struct ModuleParts {
  CpuModuleOptions cpu;
};

using MakeModulesFunction = std::function<ModuleList(ModuleParts)>;
ModuleList MakeModules(ModuleParts parts);

}  // namespace firewatch::agent
