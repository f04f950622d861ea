// SPDX-License-Identifier: Apache-2.0
#include "server/api/profile_handlers.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/status.h"
#include "profile/flame_codec.h"
#include "profile/flame_tree.h"
#include "profile/folded_codec.h"
#include "profile/pprof_codec.h"
#include "profile/saturating.h"
#include "server/api/answers.h"
#include "server/debuginfo/reasons.h"
#include "server/query/request_query.h"
#include "transport/json_writer.h"

namespace firewatch::server {
namespace {

using transport::HttpRequest;
using transport::HttpResponse;
using transport::JsonWriter;

constexpr int64_t kMaxSeconds = int64_t{10} * 366 * 86'400;
constexpr int64_t kDefaultTopLimit = 100;
// `seconds` counts back from the newest window's end if that is this young; else from now: an agent
// that stopped an hour ago gives an empty answer, not an old one.
constexpr int64_t kRecentMs = 60'000;
constexpr uint8_t kOtherFlag = 8;  // flame_tree.h

// Everything that matches, merged, and where the asked type stands in it.
struct Merged {
  profile::Profile profile;
  int value_index = 0;
};

// An empty range is a valid profile of nothing, not an error.
void SetEmptyTypes(profile::Profile& merged, const Query& query) {
  merged.sample_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  merged.period_type = {"cpu", "nanoseconds"};
  merged.start_unix_ns = query.range.from_ms * 1'000'000;
  if (merged.strings.empty()) merged.strings.emplace_back();
  if (merged.mappings.empty()) merged.mappings.emplace_back();
  if (merged.stacks.empty()) merged.stacks.emplace_back();
  if (merged.label_sets.empty()) merged.label_sets.emplace_back();
}

absl::StatusOr<Merged> MergeFor(const ApiContext& context, const Query& query) {
  Merged merged;
  ASSIGN_OR_RETURN(merged.profile, context.store.Merge(query));
  if (merged.profile.sample_types.empty()) SetEmptyTypes(merged.profile, query);
  merged.value_index = merged.profile.FindSampleType(query.sample_type);
  if (merged.value_index < 0) {
    return base::Internal("the merged profile has no sample type {}", query.sample_type);
  }
  return merged;
}

// The totals of the whole range in one point per series: counts series without touching stacks.
absl::StatusOr<size_t> CountSeries(const ApiContext& context, const Query& query) {
  const int64_t whole = std::max<int64_t>(query.range.to_ms - query.range.from_ms, 1);
  ASSIGN_OR_RETURN(const auto series, context.store.Series(query, whole));
  return series.size();
}

int64_t TotalOf(const Merged& merged) {
  int64_t total = 0;
  for (const profile::Sample& sample : merged.profile.samples) {
    total = profile::SaturatingAdd(total, sample.values[static_cast<size_t>(merged.value_index)]);
  }
  return total;
}

bool IsCut(const profile::FlameTree& tree) {
  return std::any_of(tree.flags.begin(), tree.flags.end(),
                     [](uint8_t flags) { return (flags & kOtherFlag) != 0; });
}

struct TreeAnswer {
  profile::FlameTree tree;
  uint32_t max_nodes = 0;  // the bound that was applied; 0: none
  bool cut = false;        // some of the tree stands in nodes named "(other)"
};

absl::StatusOr<TreeAnswer> BuildTree(const ApiContext& context, const HttpRequest& request,
                                     const Merged& merged) {
  ASSIGN_OR_RETURN(const int64_t asked,
                   ParseNumber(request, "max_nodes", 0, 0, std::numeric_limits<uint32_t>::max()));
  TreeAnswer answer;
  answer.max_nodes = static_cast<uint32_t>(asked);
  if (context.max_nodes > 0 && (asked == 0 || answer.max_nodes > context.max_nodes)) {
    answer.max_nodes = context.max_nodes;
  }
  const std::vector<uint8_t> reasons = BareReasons(merged.profile, context.debuginfo).All();
  answer.tree = profile::BuildFlameTree(
      merged.profile,
      {.value_index = merged.value_index, .max_nodes = answer.max_nodes, .reasons = reasons});
  answer.cut = IsCut(answer.tree);
  return answer;
}

HttpResponse TreeAsJson(const Query& query, const TreeAnswer& answer, size_t matched_series) {
  const profile::FlameTree& tree = answer.tree;
  JsonWriter json;
  json.Reserve(tree.size() * 48 + tree.names.size() * 64);  // about what they take: one allocation
  json.BeginObject();
  json.Key("type").Value(query.sample_type).Key("unit").Value(UnitOf(query.sample_type));
  json.Key("from_ms").Value(query.range.from_ms).Key("to_ms").Value(query.range.to_ms);
  json.Key("total").Value(tree.total.empty() ? 0 : tree.total[0]);
  json.Key("matched_series").Value(matched_series);
  json.Key("max_nodes").Value(answer.max_nodes).Key("cut").Value(answer.cut);
  json.StringArray("names", tree.names).Key("nodes").BeginObject();
  json.NumberArray("parent", tree.parent).NumberArray("name", tree.name);
  json.NumberArray("self", tree.self).NumberArray("total", tree.total);
  json.NumberArray("flags", tree.flags).NumberArray("file", tree.file);
  json.NumberArray("source", tree.source).NumberArray("line", tree.line);
  json.EndObject().EndObject();
  return JsonOf(std::move(json));
}

HttpResponse TreeAsColumns(const Query& query, const TreeAnswer& answer, size_t matched_series) {
  const profile::FlameTree& tree = answer.tree;
  return {.status = 200,
          .content_type = "application/octet-stream",
          .body = profile::EncodeFlameTree(tree),
          .headers = {{"Cache-Control", "no-store"},
                      {"X-Firewatch-Total", std::to_string(tree.total.empty() ? 0 : tree.total[0])},
                      {"X-Firewatch-Unit", std::string(UnitOf(query.sample_type))},
                      {"X-Firewatch-Nodes", std::to_string(tree.size())},
                      {"X-Firewatch-Matched-Series", std::to_string(matched_series)},
                      {"X-Firewatch-From-Ms", std::to_string(query.range.from_ms)},
                      {"X-Firewatch-To-Ms", std::to_string(query.range.to_ms)},
                      {"X-Firewatch-Cut", answer.cut ? "1" : "0"}}};
}

absl::StatusOr<HttpResponse> PprofOf(const ApiContext& context, const Query& query) {
  ASSIGN_OR_RETURN(Merged merged, MergeFor(context, query));
  merged.profile.default_sample_type = query.sample_type;
  ASSIGN_OR_RETURN(std::string bytes,
                   profile::WritePprof(merged.profile, profile::Compression::kGzip));
  const std::string name =
      fmt::format("firewatch-{}-{}.pb.gz", query.sample_type, query.range.to_ms);
  return HttpResponse{
      .status = 200,
      .content_type = "application/octet-stream",
      .body = std::move(bytes),
      .headers = {{"Cache-Control", "no-store"},
                  {"Content-Disposition", fmt::format("attachment; filename=\"{}\"", name)}}};
}

// Start of the newest window that matches and began within the last minute, to the second.
absl::StatusOr<std::optional<int64_t>> NewestWindow(const ApiContext& context, Query query,
                                                    int64_t now_ms) {
  query.range = {.from_ms = std::max<int64_t>(now_ms - kRecentMs, 0), .to_ms = now_ms + 1};
  ASSIGN_OR_RETURN(const auto series, context.store.Series(query, 1'000));
  std::optional<int64_t> newest_ms;
  for (const SeriesPoints& one : series) {
    if (!one.points.empty()) newest_ms = std::max(newest_ms.value_or(0), one.points.back().first);
  }
  return newest_ms;
}

// The range of `seconds=N`. A window is stored when it is over and found by its start, so counting
// back from now would miss the newest one for a small N: the range goes back from its end, and at
// least to its start.
absl::StatusOr<TimeRange> LastSeconds(const ApiContext& context, const HttpRequest& request,
                                      const Query& query, int64_t now_ms) {
  if (request.Query("from").has_value() || request.Query("to").has_value()) {
    return base::InvalidArgument("give either seconds or from and to");
  }
  ASSIGN_OR_RETURN(const int64_t seconds, ParseNumber(request, "seconds", 0, 1, kMaxSeconds));
  ASSIGN_OR_RETURN(const StoreStats stats, context.store.Stats());
  ASSIGN_OR_RETURN(const auto newest_window_ms, NewestWindow(context, query, now_ms));
  const bool recent = stats.newest_ms <= now_ms && now_ms - stats.newest_ms <= kRecentMs;
  const int64_t end_ms = recent ? stats.newest_ms : now_ms;
  const int64_t from_ms = std::min(end_ms - seconds * 1'000, newest_window_ms.value_or(end_ms));
  return TimeRange{.from_ms = std::max<int64_t>(from_ms, 0), .to_ms = now_ms + 1};
}

}  // namespace

absl::StatusOr<HttpResponse> HandleProfile(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to", "type", "format", "max_nodes"}));
  ASSIGN_OR_RETURN(const Query query, ParseQuery(request, context.clock.Now().unix_ms()));
  const std::string_view format = request.Query("format").value_or("json");
  if (format != "json" && format != "columns" && request.Query("max_nodes").has_value()) {
    return base::InvalidArgument("max_nodes: only json and columns take it, {} is always whole",
                                 format.substr(0, 16));
  }
  if (format == "pprof") return PprofOf(context, query);
  if (format != "json" && format != "columns" && format != "folded") {
    return base::InvalidArgument("format: \"{}\" is not one of json, columns, pprof, folded",
                                 format.substr(0, 64));
  }
  ASSIGN_OR_RETURN(const Merged merged, MergeFor(context, query));
  if (format == "folded") {
    return HttpResponse{.body = profile::WriteFolded(merged.profile, merged.value_index),
                        .headers = {{"Cache-Control", "no-store"}}};
  }
  ASSIGN_OR_RETURN(const TreeAnswer answer, BuildTree(context, request, merged));
  ASSIGN_OR_RETURN(const size_t matched_series, CountSeries(context, query));
  return format == "json" ? TreeAsJson(query, answer, matched_series)
                          : TreeAsColumns(query, answer, matched_series);
}

absl::StatusOr<HttpResponse> HandleTop(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to", "type", "limit"}));
  ASSIGN_OR_RETURN(const Query query, ParseQuery(request, context.clock.Now().unix_ms()));
  ASSIGN_OR_RETURN(const int64_t limit, ParseNumber(request, "limit", kDefaultTopLimit, 0,
                                                    std::numeric_limits<int32_t>::max()));
  ASSIGN_OR_RETURN(const Merged merged, MergeFor(context, query));
  JsonWriter json;
  json.BeginObject().Key("total").Value(TotalOf(merged));
  json.Key("unit").Value(UnitOf(query.sample_type)).Key("functions").BeginArray();
  for (const profile::FunctionTotals& one :
       profile::TopFunctions(merged.profile, merged.value_index, static_cast<size_t>(limit))) {
    json.BeginObject().Key("name").Value(one.name).Key("file").Value(one.file);
    json.Key("self").Value(one.self).Key("total").Value(one.total).EndObject();
  }
  json.EndArray().EndObject();
  return JsonOf(std::move(json));
}

absl::StatusOr<HttpResponse> HandleUnnamed(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to", "type", "limit"}));
  ASSIGN_OR_RETURN(const Query query, ParseQuery(request, context.clock.Now().unix_ms()));
  ASSIGN_OR_RETURN(const int64_t limit, ParseNumber(request, "limit", kDefaultTopLimit, 0,
                                                    std::numeric_limits<int32_t>::max()));
  ASSIGN_OR_RETURN(const Merged merged, MergeFor(context, query));
  const UnnamedFrames unnamed = FindUnnamed(merged.profile, merged.value_index, context.debuginfo);
  JsonWriter json;
  json.BeginObject().Key("unit").Value(UnitOf(query.sample_type));
  json.Key("total").Value(unnamed.total).Key("frames").Value(unnamed.frames);
  json.Key("all_frames").Value(unnamed.all_frames).Key("binaries").BeginArray();
  size_t left = limit == 0 ? unnamed.binaries.size() : static_cast<size_t>(limit);
  for (const UnnamedBinary& one : unnamed.binaries) {
    if (left-- == 0) break;
    json.BeginObject().Key("path").Value(one.path).Key("build_id").Value(one.build_id);
    json.Key("reason").Value(ReasonKey(one.reason)).Key("text").Value(ReasonText(one.reason));
    json.Key("advice").Value(ReasonAdvice(one.reason, one.build_id, one.path));
    json.Key("detail").Value(one.detail).Key("self").Value(one.self);
    json.Key("total").Value(one.total).Key("frames").Value(one.frames).EndObject();
  }
  json.EndArray().EndObject();
  return JsonOf(std::move(json));
}

absl::StatusOr<HttpResponse> HandlePprof(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to", "type", "seconds"}));
  const int64_t now_ms = context.clock.Now().unix_ms();
  ASSIGN_OR_RETURN(Query query, ParseQuery(request, now_ms));
  if (request.Query("seconds").has_value()) {
    ASSIGN_OR_RETURN(query.range, LastSeconds(context, request, query, now_ms));
  }
  return PprofOf(context, query);
}

}  // namespace firewatch::server
