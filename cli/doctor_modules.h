// SPDX-License-Identifier: Apache-2.0
// `firewatch doctor --modules`: what the modules of a running agent do, and what they cost.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/core/module.h"

namespace firewatch::cli {

// Asks the agent's page (GET /status) and prints. 0: all that are enabled are active; 2: some are
// not; 1 with the reason on standard error.
int RunDoctorModules(const std::string& agent);

// From the JSON of /status to the text. `all_active` may be nullptr. InvalidArgument when it is
// something else.
absl::StatusOr<std::string> FormatModules(std::string_view json, bool* all_active);

// What this machine has of what a module needs, without an agent: one line, and one more for each
// thing that is missing with how to mend it. `runs`: all that is required is there.
std::string FormatNeeds(std::string_view name, const agent::ModuleNeeds& needs, bool* runs);

}  // namespace firewatch::cli
