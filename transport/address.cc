// SPDX-License-Identifier: Apache-2.0
#include "transport/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "base/status.h"
#include "transport/http_server.h"

namespace firewatch::transport {
namespace {

constexpr size_t kMaxHostBytes = 253;  // DNS' own bound

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// Quotes at most a screenful of what a stranger sent.
std::string_view Shown(std::string_view text) { return text.substr(0, 100); }

absl::StatusOr<uint16_t> ParsePort(std::string_view digits, std::string_view whole) {
  uint16_t port = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, port);
  if (error != std::errc() || stop != end || digits.empty()) {
    return base::InvalidArgument("address \"{}\": the port must be a number from 0 to 65535",
                                 Shown(whole));
  }
  return port;
}

absl::Status CheckHost(const HostPort& parsed, bool bracketed, std::string_view whole) {
  in6_addr v6{};
  if (bracketed) {
    if (::inet_pton(AF_INET6, parsed.host.c_str(), &v6) == 1) return absl::OkStatus();
    return base::InvalidArgument("address \"{}\": not an IPv6 address in the brackets",
                                 Shown(whole));
  }
  if (parsed.host.empty() || parsed.host.size() > kMaxHostBytes ||
      !std::all_of(parsed.host.begin(), parsed.host.end(), IsNameCharacter)) {
    return base::InvalidArgument(
        "address \"{}\": expected host:port such as 127.0.0.1:7171 or [::1]:7171", Shown(whole));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(std::string_view text) {
  HostPort parsed;
  std::string_view rest;
  const bool bracketed = text.starts_with('[');
  if (bracketed) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) {
      return base::InvalidArgument("address \"{}\": the ']' is missing", Shown(text));
    }
    parsed.host = LowerCase(text.substr(1, close - 1));
    rest = text.substr(close + 1);
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    parsed.host = LowerCase(text.substr(0, colon));
    rest = text.substr(colon);
    if (parsed.host.ends_with('.')) parsed.host.pop_back();  // "localhost." is localhost
  }
  RETURN_IF_ERROR(CheckHost(parsed, bracketed, text));
  if (rest.empty()) return parsed;
  if (!rest.starts_with(':')) {
    return base::InvalidArgument("address \"{}\": expected ':' after the host", Shown(text));
  }
  ASSIGN_OR_RETURN(parsed.port, ParsePort(rest.substr(1), text));
  return parsed;
}

bool IsLoopbackHost(std::string_view host) {
  const std::string name = LowerCase(host);
  if (name == "localhost") return true;
  in_addr v4{};
  if (::inet_pton(AF_INET, name.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  if (::inet_pton(AF_INET6, name.c_str(), &v6) != 1) return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return v6.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6);
}

std::string CanonicalHost(std::string_view host) {
  const std::string name = LowerCase(host);
  in6_addr v6{};
  if (::inet_pton(AF_INET6, name.c_str(), &v6) != 1) return name;
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    ::inet_ntop(AF_INET, &v6.s6_addr[12], text.data(), text.size());
  } else {
    ::inet_ntop(AF_INET6, &v6, text.data(), text.size());
  }
  return text.data();
}

absl::StatusOr<bool> IsLoopbackAddress(std::string_view address) {
  ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(address));
  if (!parsed.port.has_value()) {
    return base::InvalidArgument("address \"{}\": the port is missing", Shown(address));
  }
  return IsLoopbackHost(parsed.host);
}

absl::Status CheckListenerPolicy(std::string_view address, bool insecure) {
  ASSIGN_OR_RETURN(const bool loopback, IsLoopbackAddress(address));
  if (loopback || insecure) return absl::OkStatus();
  return base::PermissionDenied(
      "refusing to listen on {}: it can be reached from other machines, and there is no TLS and no "
      "token; use a loopback address such as 127.0.0.1, or add --insecure to allow it",
      Shown(address));
}

}  // namespace firewatch::transport
