// SPDX-License-Identifier: Apache-2.0
#include "server/query/request_query.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "base/status.h"
#include "profile/labels.h"
#include "server/query/time_range.h"

namespace firewatch::server {
namespace {

constexpr size_t kMaxGroupLabels = 8;

std::string_view Shown(std::string_view text) { return text.substr(0, 64); }

}  // namespace

absl::Status CheckParameters(const transport::HttpRequest& request,
                             std::initializer_list<std::string_view> known) {
  std::set<std::string_view> seen;
  for (const auto& [name, value] : request.query) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return base::InvalidArgument(
          "unknown parameter \"{}\"; this path takes: {}", Shown(name),
          known.size() == 0 ? "none" : fmt::format("{}", fmt::join(known, ", ")));
    }
    if (!seen.insert(name).second) {
      return base::InvalidArgument("the parameter \"{}\" comes twice", Shown(name));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Query> ParseQuery(const transport::HttpRequest& request, int64_t now_ms) {
  Query query;
  auto selector = profile::ParseSelector(request.Query("query").value_or(""));
  if (!selector.ok()) return base::Annotate(selector.status(), "query");
  query.selector = *std::move(selector);
  ASSIGN_OR_RETURN(query.range, ParseTimeRange(request.Query("from"), request.Query("to"), now_ms));
  const std::string_view type = request.Query("type").value_or("cpu");
  if (type != "cpu" && type != "samples") {
    return base::InvalidArgument("type: \"{}\" is not one of cpu, samples", Shown(type));
  }
  query.sample_type = type;
  return query;
}

absl::StatusOr<int64_t> ParseNumber(const transport::HttpRequest& request, std::string_view name,
                                    int64_t fallback, int64_t min, int64_t max) {
  const auto text = request.Query(name);
  if (!text.has_value()) return fallback;
  int64_t number = 0;
  const char* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, number);
  if (text->empty() || error != std::errc() || stop != end || number < min || number > max) {
    return base::InvalidArgument("{}: \"{}\" is not a whole number from {} to {}", name,
                                 Shown(*text), min, max);
  }
  return number;
}

absl::StatusOr<std::vector<std::string>> ParseGroupBy(const transport::HttpRequest& request) {
  std::vector<std::string> names;
  std::string_view text = request.Query("group_by").value_or("");
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view name = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (!profile::IsValidLabelName(name)) {
      return base::InvalidArgument("group_by: \"{}\" is not a label name", Shown(name));
    }
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      return base::InvalidArgument("group_by: \"{}\" comes twice", Shown(name));
    }
    names.emplace_back(name);
  }
  if (names.size() > kMaxGroupLabels) {
    return base::InvalidArgument("group_by: at most {} labels", kMaxGroupLabels);
  }
  return names;
}

std::string_view UnitOf(std::string_view sample_type) {
  return sample_type == "samples" ? "count" : "nanoseconds";
}

}  // namespace firewatch::server
