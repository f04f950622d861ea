// SPDX-License-Identifier: Apache-2.0
// Who talked to whom: sums the connection rows of the windows in a range.
#pragma once

#include "absl/status/statusor.h"
#include "server/store/connections.h"
#include "server/store/embedded/database.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

// As ProfileStore's; any thread.
absl::StatusOr<ConnectionReport> ReadConnections(const Database& database, const Query& query);

}  // namespace firewatch::server
