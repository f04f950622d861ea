// SPDX-License-Identifier: Apache-2.0
// Merged stacks: as a flame tree, as a table of functions, as pprof, as folded text.
#pragma once

#include "absl/status/statusor.h"
#include "server/api/context.h"
#include "transport/http_server.h"

namespace firewatch::server {

// GET
// /api/v1/profile?query=&from=&to=&type=cpu|samples&format=json|columns|pprof|folded&max_nodes=N
absl::StatusOr<transport::HttpResponse> HandleProfile(const ApiContext& context,
                                                      const transport::HttpRequest& request);

// GET /api/v1/top?query=&from=&to=&type=&limit=N (0: all)
absl::StatusOr<transport::HttpResponse> HandleTop(const ApiContext& context,
                                                  const transport::HttpRequest& request);

// GET /api/v1/unnamed?query=&from=&to=&type=&limit=N (0: all): which binaries have frames without a
// name, why, and what helps.
absl::StatusOr<transport::HttpResponse> HandleUnnamed(const ApiContext& context,
                                                      const transport::HttpRequest& request);

// GET /pprof/profile?query=&seconds=N | from=&to=   (what `go tool pprof URL` asks)
// `seconds` is answered at once, from what is stored: the last N seconds up to the newest window.
absl::StatusOr<transport::HttpResponse> HandlePprof(const ApiContext& context,
                                                    const transport::HttpRequest& request);

}  // namespace firewatch::server
