// SPDX-License-Identifier: Apache-2.0
// firewatch-agent with the modules of tests behind its own: each is one line here.
#include "agent/agent_main.h"
#include "tests/modules/test_modules.h"

int main(int argc, char** argv) {
  return firewatch::agent::AgentMain(argc, argv, [](firewatch::agent::ModuleParts parts) {
    firewatch::agent::ModuleList modules = firewatch::agent::MakeModules(std::move(parts));
    modules.push_back(std::make_unique<firewatch::testing::TickerModule>());
    modules.push_back(std::make_unique<firewatch::testing::UnloadableModule>());
    modules.push_back(std::make_unique<firewatch::testing::ForgetfulModule>());
    return modules;
  });
}
