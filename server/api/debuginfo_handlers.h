// SPDX-License-Identifier: Apache-2.0
// Debug information that is kept here: list, one, delete. PUT is a stream (debuginfo/upload.h).
#pragma once

#include "absl/status/statusor.h"
#include "server/api/context.h"
#include "transport/http_server.h"

namespace firewatch::server {

// GET /api/v1/debuginfo
absl::StatusOr<transport::HttpResponse> HandleDebugInfoList(const ApiContext& context,
                                                            const transport::HttpRequest& request);

// GET, DELETE /api/v1/debuginfo/BUILDID. GET also of an id without a file: its state is "unknown".
absl::StatusOr<transport::HttpResponse> HandleDebugInfo(const ApiContext& context,
                                                        const transport::HttpRequest& request);

}  // namespace firewatch::server
