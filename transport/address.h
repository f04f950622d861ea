// SPDX-License-Identifier: Apache-2.0
// "host:port" texts: what listeners bind to and what the Host header names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace firewatch::transport {

struct HostPort {
  std::string host;  // lower-case, without brackets or a trailing dot: "127.0.0.1", "::1", "node7"
  std::optional<uint16_t> port;
};

// Takes "host", "host:port", "1.2.3.4:80", "[::1]" and "[::1]:80". InvalidArgument names the text.
// A host is an IP literal or made of letters, digits, '-', '_' and '.'; an IPv6 literal needs
// brackets, and a zone ("%eth0") is refused.
absl::StatusOr<HostPort> ParseHostPort(std::string_view text);

// localhost, 127.0.0.0/8, ::1 and ::ffff:127.0.0.0/104. Other names are not looked up: false.
bool IsLoopbackHost(std::string_view host);

// IP literals in one canonical spelling ("0:0::1" -> "::1"), names lower-case.
std::string CanonicalHost(std::string_view host);

}  // namespace firewatch::transport
