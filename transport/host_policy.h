// SPDX-License-Identifier: Apache-2.0
// Which Host and Origin headers a server answers to. A page on another site can make a browser send
// requests to loopback, and with DNS rebinding even read the answers, but it cannot choose the Host
// header: that names the page's own site. So a server that knows its names is safe from it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"

namespace firewatch::transport {

enum class HostVerdict { kAllowed, kForeignHost, kForeignOrigin };

// Immutable, any thread.
class HostPolicy {
 public:
  // `allowed_hosts`: names or addresses, a port in them is ignored.
  explicit HostPolicy(const std::vector<std::string>& allowed_hosts);

  // `host` is the Host header, `origin` the Origin header or "", `local_address` the address on
  // which the connection came in (a literal: what it is bound to, also behind 0.0.0.0).
  // Allowed hosts: localhost, loopback literals, local_address, allowed_hosts; with any port or
  // none, because a tunnel changes the port. An Origin must name the same host and port as Host.
  HostVerdict Check(std::string_view host, std::string_view origin,
                    std::string_view local_address) const;

 private:
  base::StringSet allowed_;
};

}  // namespace firewatch::transport
