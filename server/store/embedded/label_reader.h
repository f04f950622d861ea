// SPDX-License-Identifier: Apache-2.0
// Questions that need no block: label names and values from the series rows, time lines from the
// window rows.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/store/embedded/database.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

// As ProfileStore's; any thread.
absl::StatusOr<std::vector<std::string>> ReadLabelNames(const Database& database,
                                                        const Query& query);
absl::StatusOr<std::vector<std::string>> ReadLabelValues(const Database& database,
                                                         const Query& query, std::string_view name);
absl::StatusOr<std::vector<SeriesPoints>> ReadSeries(const Database& database, const Query& query,
                                                     int64_t step_ms);

}  // namespace firewatch::server
