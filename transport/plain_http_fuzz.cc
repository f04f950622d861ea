// SPDX-License-Identifier: Apache-2.0
// Heads of answers and addresses of any bytes.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "transport/plain_http.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto head = firewatch::transport::ParsePlainHttpHead(bytes);
  if (head.ok()) CHECK(head->body_at <= bytes.size());
  const auto url = firewatch::transport::ParsePlainHttpUrl(bytes);
  if (url.ok()) CHECK(!url->host.empty() && !url->port.empty());
  return 0;
}
