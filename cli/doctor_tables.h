// SPDX-License-Identifier: Apache-2.0
// `firewatch doctor --tables`: what a running agent keeps in the kernel to unwind stacks.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::cli {

// Asks the agent's page (GET /tables) and prints. 0, or 1 with the reason on standard error.
int RunDoctorTables(const std::string& agent);

// From the JSON of /tables to the text. InvalidArgument when it is something else.
absl::StatusOr<std::string> FormatTables(std::string_view json);

}  // namespace firewatch::cli
