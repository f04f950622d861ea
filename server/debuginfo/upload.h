// SPDX-License-Identifier: Apache-2.0
// PUT /api/v1/debuginfo/BUILDID?kind=debug|executable: the body, plain or as one zstd frame
// (Content-Encoding: zstd), goes to disk piece by piece; at its end it is checked and taken over.
#pragma once

#include "server/debuginfo/debuginfo.h"
#include "transport/http_server.h"

namespace firewatch::server {

inline constexpr std::string_view kDebugInfoPath = "/api/v1/debuginfo/";

// The build id of a path below kDebugInfoPath; empty when it is none of 1 to 20 bytes.
symbolizer::BuildId BuildIdOfPath(std::string_view path);

// For transport::StreamOptions::open. `debuginfo` must outlive the sink.
transport::StreamStart OpenUpload(DebugInfo& debuginfo, const transport::HttpRequest& request);

}  // namespace firewatch::server
