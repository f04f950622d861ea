// SPDX-License-Identifier: Apache-2.0
// The target of a request line ("/a%20b?x=1&y"), taken apart. The bytes are a stranger's.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace firewatch::transport {

struct Target {
  std::string path;                                        // percent-decoded
  std::vector<std::pair<std::string, std::string>> query;  // decoded, in order, '+' is a space
};

inline constexpr size_t kMaxQueryParameters = 128;

// InvalidArgument: no leading '/', a broken %-escape, a NUL byte or other control character in the
// path, a "." or ".." segment (also when written as %2e), more than kMaxQueryParameters.
absl::StatusOr<Target> ParseTarget(std::string_view target);

// Decodes %XX and, for queries, '+'. InvalidArgument for a broken escape.
absl::StatusOr<std::string> PercentDecode(std::string_view text, bool plus_is_space);

// Everything but letters, digits and -._~ becomes %XX: one value of a path or query.
std::string PercentEncode(std::string_view text);

}  // namespace firewatch::transport
