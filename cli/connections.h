// SPDX-License-Identifier: Apache-2.0
// `firewatch connections`: who talks to whom, as the agent of this machine sees it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::cli {

struct ConnectionsOptions {
  std::string agent = "127.0.0.1:7172";
  uint32_t pid = 0;  // 0: all
  uint32_t limit = 50;
  std::string sort = "bytes";
  std::string output = "table";  // or json
  bool follow = false;           // events as they come, until interrupted
};

// The exit code.
int RunConnections(const ConnectionsOptions& options);

// The tables of one answer of /api/v1/connections. InvalidArgument when it is none.
absl::StatusOr<std::string> FormatConnections(std::string_view json);
// A line per event of an answer; `last` gets the number to ask from next.
absl::StatusOr<std::string> FormatConnectionEvents(std::string_view json, uint64_t* last);

}  // namespace firewatch::cli
