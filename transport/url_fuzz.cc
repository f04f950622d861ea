// SPDX-License-Identifier: Apache-2.0
// Any bytes as a request target and as a Host header: parsed or refused, and what is accepted holds
// to the promises of url.h and address.h.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "transport/address.h"
#include "transport/gzip.h"
#include "transport/http_server.h"
#include "transport/url.h"

using firewatch::transport::ParseTarget;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto target = ParseTarget(text); target.ok()) {
    CHECK(target->path.starts_with('/'));
    CHECK(target->path.find('\0') == std::string::npos);
    CHECK(target->path.find("/../") == std::string::npos);
    CHECK(!target->path.ends_with("/.."));
    CHECK(target->query.size() <= firewatch::transport::kMaxQueryParameters);
  }
  const auto round_trip =
      firewatch::transport::PercentDecode(firewatch::transport::PercentEncode(text), true);
  CHECK(round_trip.ok() && *round_trip == text);
  if (const auto host = firewatch::transport::ParseHostPort(text); host.ok()) {
    CHECK(!host->host.empty());
    const std::string canonical = firewatch::transport::CanonicalHost(host->host);
    CHECK(firewatch::transport::CanonicalHost(canonical) == canonical);
    CHECK(firewatch::transport::IsLoopbackHost(canonical) ==
          firewatch::transport::IsLoopbackHost(host->host));
  }
  (void)firewatch::transport::AcceptsGzip(text);
  (void)firewatch::transport::IsLoopbackAddress(text);
  return 0;
}
