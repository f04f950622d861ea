// SPDX-License-Identifier: Apache-2.0
// The shapes that answers share.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "transport/http_server.h"
#include "transport/json_writer.h"

namespace firewatch::server {

// Answers change with every window: no cache may keep them.
inline transport::HttpResponse JsonOf(transport::JsonWriter&& json) {
  return {.status = 200,
          .content_type = "application/json",
          .body = std::move(json).Take(),
          .headers = {{"Cache-Control", "no-store"}}};
}

// 400 for what the caller asked wrongly, 404, 503 for what may pass, 507 for a full disk, else 500.
int HttpStatusOf(const absl::Status& status);

}  // namespace firewatch::server
