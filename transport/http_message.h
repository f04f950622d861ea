// SPDX-License-Identifier: Apache-2.0
// The written form of an answer: what happens to an HttpResponse between handler and socket.
#pragma once

#include <string>
#include <string_view>

#include "transport/http_server.h"

namespace firewatch::transport {

// Status line and headers, ready to send.
struct WireResponse {
  int status = 200;
  bool keep_alive = false;
  std::string head;
  std::string body;
  uint32_t hold_ms = 0;
};

// Replaces the body by its gzip form where http_server.h says so. On a worker's thread: it costs.
void CompressIfWanted(const HttpRequest& request, HttpResponse& response);

// Adds Content-Type, Content-Length, Date, Connection and the security headers. CR, LF and NUL in
// header values become spaces: a value made of a label cannot forge a header. A HEAD's body is
// dropped, its length is told.
WireResponse RenderResponse(HttpResponse response, bool is_head, bool keep_alive);

}  // namespace firewatch::transport
