// SPDX-License-Identifier: Apache-2.0
// Logging is spdlog's default logger; this sets its shape once, from main.
#pragma once

#include <spdlog/spdlog.h>

#include <string_view>

namespace firewatch::base {

// Lines as "2026-01-02T03:04:05.678Z I message" on standard error. `level` is one of trace, debug,
// info, warn, error; anything else means info.
void SetupLogging(std::string_view level);

}  // namespace firewatch::base
