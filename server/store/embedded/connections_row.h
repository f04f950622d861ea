// SPDX-License-Identifier: Apache-2.0
// The row of a window's connections (docs/formats.md, kind 10): one per upload that has any, all
// series in it, each behind its length, so that a query decodes those that it asked for.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "server/store/connections.h"

namespace firewatch::server {

// By series id; the edges of each normalized and valid.
using EdgesBySeries = std::map<uint32_t, std::vector<ConnectionEdge>>;

std::string EncodeConnections(const EdgesBySeries& edges);

// Calls `visit` for each edge of each series that `wanted` says yes to, in the order of the row.
// False on bytes that no encoder wrote; `visit` may have been called before. What is not wanted is
// skipped unread.
[[nodiscard]] bool DecodeConnections(
    std::string_view value, absl::FunctionRef<bool(uint32_t series)> wanted,
    absl::FunctionRef<void(uint32_t series, const ConnectionEdge& edge)> visit);

}  // namespace firewatch::server
