// SPDX-License-Identifier: Apache-2.0
// Times as people and programs write them in a URL.
//
//   1767322245000                 unix milliseconds
//   2026-01-02T03:04:05.678+01:00 RFC 3339 (a '+' that a URL turned into a space is understood)
//   now, now-15m, now+1h          units ms, s, m, h, d, w
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/store/profile_store.h"

namespace firewatch::server {

inline constexpr int64_t kDefaultRangeMs = 15 * 60 * 1000;

// Unix milliseconds, never negative. InvalidArgument quotes the text and lists the three forms.
absl::StatusOr<int64_t> ParseTime(std::string_view text, int64_t now_ms);

// Absent: from = now-15m, to = now. A `to` of "now" includes a window that starts this very
// millisecond. InvalidArgument, in a sentence: a time that does not parse, from >= to, and a range
// that lies wholly in the future.
absl::StatusOr<TimeRange> ParseTimeRange(std::optional<std::string_view> from,
                                         std::optional<std::string_view> to, int64_t now_ms);

}  // namespace firewatch::server
