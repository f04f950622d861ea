// SPDX-License-Identifier: Apache-2.0
// What there is (labels, nodes, losses) and how it goes over time.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "server/api/context.h"
#include "transport/http_server.h"

namespace firewatch::server {

// GET /api/v1/series?query=&from=&to=&type=&step=MS&group_by=service,node
absl::StatusOr<transport::HttpResponse> HandleSeries(const ApiContext& context,
                                                     const transport::HttpRequest& request);

// GET /api/v1/labels?query=&from=&to=
absl::StatusOr<transport::HttpResponse> HandleLabels(const ApiContext& context,
                                                     const transport::HttpRequest& request);

// GET /api/v1/labels/NAME/values?query=&from=&to=
absl::StatusOr<transport::HttpResponse> HandleLabelValues(const ApiContext& context,
                                                          const transport::HttpRequest& request,
                                                          std::string_view name);

// GET /api/v1/status
absl::StatusOr<transport::HttpResponse> HandleStatus(const ApiContext& context,
                                                     const transport::HttpRequest& request);

}  // namespace firewatch::server
