// SPDX-License-Identifier: Apache-2.0
// firewatch-agent with all modules there are (modules.cc).
#include "agent/agent_main.h"
#include "agent/modules.h"

int main(int argc, char** argv) {
  return firewatch::agent::AgentMain(argc, argv, firewatch::agent::MakeModules);
}
