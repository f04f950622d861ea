// SPDX-License-Identifier: Apache-2.0
// The page that is embedded in the binary.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "transport/http_server.h"
#include "web/assets.h"

namespace firewatch::server {

// Serves `assets` (which stay valid for ever): "/" is "/index.html". Hashed names may be cached for
// ever, everything else is asked for again each time and answered 304 by its ETag. nullopt: no such
// file. Without assets "/" is a plain page that says why and lists what else there is.
std::optional<transport::HttpResponse> ServeStaticFile(std::span<const web::Asset> assets,
                                                       const transport::HttpRequest& request);

}  // namespace firewatch::server
