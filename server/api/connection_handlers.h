// SPDX-License-Identifier: Apache-2.0
// Who talks to whom over TCP, from what the agents' network probes have sent.
#pragma once

#include "absl/status/statusor.h"
#include "server/api/context.h"
#include "transport/http_server.h"

namespace firewatch::server {

// GET /api/v1/connections?query=&from=&to=&sort=retransmits|bytes|failed|opened|rtt&limit=200
absl::StatusOr<transport::HttpResponse> HandleConnections(const ApiContext& context,
                                                          const transport::HttpRequest& request);

}  // namespace firewatch::server
