// SPDX-License-Identifier: Apache-2.0
// Who may change something by the agent's HTTP page. Every local user reaches loopback; only who
// can read this file may write: a secret of one run of the agent, mode 0600, in a directory of mode
// 0700. Sent as "Authorization: Bearer TOKEN".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::agent {

// Of the agent that listens on `port`: /run/firewatch/agent-PORT.token; without root below
// $XDG_RUNTIME_DIR, or $HOME/.local/state.
std::string WriteTokenPath(uint16_t port);

// Makes a new one, in the place of one that is there. An error names the path.
absl::StatusOr<std::string> CreateWriteToken(const std::string& path);

// When the agent ends. Another's token in that place, and what cannot be removed, stay.
void RemoveWriteToken(const std::string& path, std::string_view token);

// PermissionDenied and NotFound say what that means.
absl::StatusOr<std::string> ReadWriteToken(const std::string& path);

// Whether this Authorization header bears the token. An empty token allows nobody. In a time that
// does not tell how much of it was right.
bool BearsToken(std::string_view authorization, std::string_view token);

}  // namespace firewatch::agent
