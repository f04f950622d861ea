// SPDX-License-Identifier: Apache-2.0
// Everything that firewatch-agent is beside its list of modules: builds the parts in the order of
// the drawing in ARCHITECTURE.md, then waits for signals. SIGTERM and SIGINT end it, SIGHUP reads
// the configuration again.
#pragma once

#include "agent/modules.h"

namespace firewatch::agent {

// The whole of main: also the hidden role of the symbol helper. Returns the exit code.
int AgentMain(int argc, char** argv, const MakeModulesFunction& make_modules);

}  // namespace firewatch::agent
