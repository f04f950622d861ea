// SPDX-License-Identifier: Apache-2.0
#include "server/query/time_range.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include "base/status.h"

namespace firewatch::server {
namespace {

// The year 9999 in milliseconds: beyond it RFC 3339 ends, and below it nothing here overflows.
constexpr int64_t kMaxTimeMs = 253'402'300'799'999;

absl::Status NotATime(std::string_view text) {
  return base::InvalidArgument(
      "\"{}\" is not a time: use unix milliseconds, RFC 3339 such as 2026-01-02T03:04:05Z, or now, "
      "now-15m (units ms, s, m, h, d, w)",
      text.substr(0, 64));
}

// Takes digits off the front of `text`; nullopt when there are none or too many.
std::optional<int64_t> TakeNumber(std::string_view& text) {
  int64_t number = 0;
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

// Exactly `digits` digits and then, unless it is 0, the character `then`.
std::optional<int> TakeField(std::string_view& text, size_t digits, char then) {
  std::string_view field = text.substr(0, digits);
  const auto number = TakeNumber(field);
  if (!number.has_value() || !field.empty() || text.size() < digits) return std::nullopt;
  text.remove_prefix(digits);
  if (then != 0) {
    if (!text.starts_with(then)) return std::nullopt;
    text.remove_prefix(1);
  }
  return static_cast<int>(*number);
}

std::optional<int64_t> UnitMs(std::string_view unit) {
  if (unit == "ms") return 1;
  if (unit == "s") return 1'000;
  if (unit == "m") return 60'000;
  if (unit == "h") return 3'600'000;
  if (unit == "d") return 86'400'000;
  if (unit == "w") return 604'800'000;
  return std::nullopt;
}

// What stands after "now": "", "-15m", "+1h".
std::optional<int64_t> ParseOffset(std::string_view text) {
  if (text.empty()) return 0;
  const bool minus = text.starts_with('-');
  // In a query a '+' arrives as a space unless it was escaped.
  if (!minus && !text.starts_with('+') && !text.starts_with(' ')) return std::nullopt;
  text.remove_prefix(1);
  const auto count = TakeNumber(text);
  const auto unit = UnitMs(text);
  if (!count.has_value() || !unit.has_value() || *count > kMaxTimeMs / *unit) return std::nullopt;
  return (minus ? -1 : 1) * *count * *unit;
}

// ".678" as milliseconds, further digits cut off.
std::optional<int> TakeFraction(std::string_view& text) {
  if (!text.starts_with('.')) return 0;
  text.remove_prefix(1);
  int ms = 0;
  int digits = 0;
  for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; text.remove_prefix(1)) {
    if (digits++ < 3) ms = ms * 10 + (text.front() - '0');
  }
  if (digits == 0) return std::nullopt;
  for (; digits < 3; ++digits) ms *= 10;
  return ms;
}

// "Z", "+01:00", "-07:30": milliseconds east of Greenwich.
std::optional<int64_t> ParseZone(std::string_view text) {
  if (text == "Z" || text == "z") return 0;
  if (text.empty()) return std::nullopt;
  const int64_t sign = text.front() == '-' ? -1 : 1;
  if (text.front() != '-' && text.front() != '+' && text.front() != ' ') return std::nullopt;
  text.remove_prefix(1);
  const auto hours = TakeField(text, 2, ':');
  const auto minutes = TakeField(text, 2, 0);
  if (!hours || !minutes || !text.empty() || *hours > 23 || *minutes > 59) return std::nullopt;
  return sign * (*hours * 60 + *minutes) * 60'000;
}

std::optional<int64_t> ParseRfc3339(std::string_view text) {
  const auto year = TakeField(text, 4, '-');
  const auto month = TakeField(text, 2, '-');
  const auto day = TakeField(text, 2, 0);
  if (!year || !month || !day || text.empty()) return std::nullopt;
  if (text.front() != 'T' && text.front() != 't' && text.front() != ' ') return std::nullopt;
  text.remove_prefix(1);
  const auto hour = TakeField(text, 2, ':');
  const auto minute = TakeField(text, 2, ':');
  const auto second = TakeField(text, 2, 0);
  const auto ms = TakeFraction(text);
  const auto zone = ParseZone(text);
  if (!hour || !minute || !second || !ms || !zone) return std::nullopt;
  const std::chrono::year_month_day date(std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day)));
  // 60 is a leap second; like everyone, we let it run into the next minute.
  if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const int64_t seconds = ((days * 24 + *hour) * 60 + *minute) * 60 + *second;
  return seconds * 1000 + *ms - *zone;
}

std::optional<int64_t> ParseAnyForm(std::string_view text, int64_t now_ms) {
  if (text.starts_with("now")) {
    const auto offset = ParseOffset(text.substr(3));
    if (!offset.has_value()) return std::nullopt;
    return now_ms + *offset;
  }
  std::string_view rest = text;
  if (const auto number = TakeNumber(rest); number.has_value() && rest.empty()) return number;
  return ParseRfc3339(text);
}

}  // namespace

absl::StatusOr<int64_t> ParseTime(std::string_view text, int64_t now_ms) {
  const bool negative = text.size() > 1 && text[0] == '-' && text[1] >= '0' && text[1] <= '9';
  const auto time = negative ? std::optional<int64_t>(-1) : ParseAnyForm(text, now_ms);
  if (!time.has_value()) return NotATime(text);
  if (*time < 0) {
    return base::InvalidArgument("\"{}\" is before 1970: times are not negative",
                                 text.substr(0, 64));
  }
  if (*time > kMaxTimeMs) {
    return base::InvalidArgument("\"{}\" is after the year 9999: unix times are in milliseconds",
                                 text.substr(0, 64));
  }
  return *time;
}

absl::StatusOr<TimeRange> ParseTimeRange(std::optional<std::string_view> from,
                                         std::optional<std::string_view> to, int64_t now_ms) {
  // Ranges are half-open and windows are found by their start: one more millisecond takes "now" in.
  TimeRange range{.from_ms = std::max<int64_t>(now_ms - kDefaultRangeMs, 0), .to_ms = now_ms + 1};
  if (from.has_value()) {
    auto time = ParseTime(*from, now_ms);
    if (!time.ok()) return base::Annotate(time.status(), "from");
    range.from_ms = *time;
  }
  if (to.has_value() && *to != "now") {
    auto time = ParseTime(*to, now_ms);
    if (!time.ok()) return base::Annotate(time.status(), "to");
    range.to_ms = *time;
    if (!from.has_value()) range.from_ms = std::max<int64_t>(range.to_ms - kDefaultRangeMs, 0);
  }
  if (range.from_ms > now_ms) {
    return base::InvalidArgument(
        "the range starts {} ms in the future of the server's clock ({}): nothing can be there yet",
        range.from_ms - now_ms, now_ms);
  }
  if (range.from_ms >= range.to_ms) {
    return base::InvalidArgument("the range is empty: from ({}) must be before to ({})",
                                 range.from_ms, range.to_ms);
  }
  return range;
}

}  // namespace firewatch::server
