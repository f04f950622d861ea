// SPDX-License-Identifier: Apache-2.0
// The parameters of a URL as a Query. Nothing is dropped in silence: a parameter that a handler
// does not know, or that comes twice, is refused by name.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/store/profile_store.h"
#include "transport/http_server.h"

namespace firewatch::server {

// InvalidArgument names the parameter and lists those that are known.
absl::Status CheckParameters(const transport::HttpRequest& request,
                             std::initializer_list<std::string_view> known);

// `query`, `from`, `to` and `type`: defaults are everything, the last 15 minutes, and cpu.
absl::StatusOr<Query> ParseQuery(const transport::HttpRequest& request, int64_t now_ms);

// A whole number from `min` to `max`, or `fallback` when the parameter is absent.
absl::StatusOr<int64_t> ParseNumber(const transport::HttpRequest& request, std::string_view name,
                                    int64_t fallback, int64_t min, int64_t max);

// "service,node" as label names; absent or empty means none. InvalidArgument for a name that is no
// label name, or comes twice.
absl::StatusOr<std::vector<std::string>> ParseGroupBy(const transport::HttpRequest& request);

// "nanoseconds" for cpu, "count" for samples.
std::string_view UnitOf(std::string_view sample_type);

}  // namespace firewatch::server
