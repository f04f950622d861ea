// SPDX-License-Identifier: Apache-2.0
#include "transport/host_policy.h"

#include "transport/address.h"

namespace firewatch::transport {
namespace {

// "http://h:1" and "https://h" name h:1 and h:443. Anything else ("null" too) is no origin of ours.
bool IsSameOrigin(std::string_view origin, const HostPort& host) {
  uint16_t default_port = 80;
  if (origin.starts_with("http://")) {
    origin.remove_prefix(7);
  } else if (origin.starts_with("https://")) {  // behind a proxy that ends TLS
    origin.remove_prefix(8);
    default_port = 443;
  } else {
    return false;
  }
  const auto named = ParseHostPort(origin);
  return named.ok() && CanonicalHost(named->host) == CanonicalHost(host.host) &&
         named->port.value_or(default_port) == host.port.value_or(default_port);
}

}  // namespace

HostPolicy::HostPolicy(const std::vector<std::string>& allowed_hosts) {
  for (const std::string& text : allowed_hosts) {
    const auto parsed = ParseHostPort(text);
    // A bare IPv6 literal has no brackets to parse by; it stands for itself.
    allowed_.insert(CanonicalHost(parsed.ok() ? parsed->host : text));
  }
}

HostVerdict HostPolicy::Check(std::string_view host, std::string_view origin,
                              std::string_view local_address) const {
  const auto parsed = ParseHostPort(host);
  if (!parsed.ok()) return HostVerdict::kForeignHost;
  const std::string name = CanonicalHost(parsed->host);
  if (!IsLoopbackHost(name) && name != CanonicalHost(local_address) && !allowed_.contains(name)) {
    return HostVerdict::kForeignHost;
  }
  if (!origin.empty() && !IsSameOrigin(origin, *parsed)) return HostVerdict::kForeignOrigin;
  return HostVerdict::kAllowed;
}

}  // namespace firewatch::transport
