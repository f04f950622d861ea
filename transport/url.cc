// SPDX-License-Identifier: Apache-2.0
#include "transport/url.h"

#include <algorithm>

#include "base/status.h"

namespace firewatch::transport {
namespace {

// -1 when it is no hex digit.
int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

// Segments are compared after decoding: "%2e%2e" is "..", and the files and names behind a path
// are found by its decoded text.
bool HasDotSegment(std::string_view path) {
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, slash);
    if (segment == "." || segment == "..") return true;
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return false;
}

absl::Status ParseQuery(std::string_view text, Target& target) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (pair.empty()) continue;  // "a=1&&b=2"
    if (target.query.size() >= kMaxQueryParameters) {
      return base::InvalidArgument("more than {} query parameters", kMaxQueryParameters);
    }
    const size_t equal = std::min(pair.find('='), pair.size());
    ASSIGN_OR_RETURN(std::string name, PercentDecode(pair.substr(0, equal), true));
    ASSIGN_OR_RETURN(std::string value,
                     PercentDecode(pair.substr(std::min(equal + 1, pair.size())), true));
    target.query.emplace_back(std::move(name), std::move(value));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> PercentDecode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      decoded.push_back(' ');
    } else if (text[i] != '%') {
      decoded.push_back(text[i]);
    } else {
      const int high = i + 1 < text.size() ? HexDigit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
      if (high < 0 || low < 0) {
        return base::InvalidArgument("a '%' in the URL is not followed by two hex digits");
      }
      decoded.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    }
  }
  return decoded;
}

std::string PercentEncode(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      encoded.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
  return encoded;
}

absl::StatusOr<Target> ParseTarget(std::string_view text) {
  if (!text.starts_with('/')) {
    return base::InvalidArgument("the request target must be a path that starts with '/'");
  }
  text = text.substr(0, std::min(text.find('#'), text.size()));  // no client should send one
  const size_t question = std::min(text.find('?'), text.size());
  Target target;
  ASSIGN_OR_RETURN(target.path, PercentDecode(text.substr(0, question), false));
  if (std::any_of(target.path.begin(), target.path.end(), IsControl)) {
    return base::InvalidArgument("the path holds a control character");
  }
  if (HasDotSegment(target.path)) {
    return base::InvalidArgument("the path holds a \".\" or \"..\" segment");
  }
  RETURN_IF_ERROR(ParseQuery(text.substr(std::min(question + 1, text.size())), target));
  return target;
}

}  // namespace firewatch::transport
