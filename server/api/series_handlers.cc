// SPDX-License-Identifier: Apache-2.0
#include "server/api/series_handlers.h"

#include <limits>
#include <vector>

#include "base/status.h"
#include "profile/labels.h"
#include "profile/saturating.h"
#include "server/api/answers.h"
#include "server/query/request_query.h"
#include "server/query/series_groups.h"
#include "transport/json_writer.h"

namespace firewatch::server {
namespace {

using transport::HttpRequest;
using transport::HttpResponse;
using transport::JsonWriter;

// Per series; Prometheus has the same bound, and no screen shows more.
constexpr int64_t kMaxPoints = 11'000;

absl::StatusOr<int64_t> StepOf(const HttpRequest& request, TimeRange range) {
  ASSIGN_OR_RETURN(const int64_t step, ParseNumber(request, "step", DefaultStepMs(range), 1,
                                                   std::numeric_limits<int64_t>::max()));
  const int64_t length = range.to_ms - range.from_ms;
  if (length / step > kMaxPoints) {
    return base::InvalidArgument(
        "step: {} ms over this range is more than {} points; use {} or more", step, kMaxPoints,
        length / kMaxPoints + 1);
  }
  return step;
}

void WriteGroup(const std::vector<std::string>& labels, const SeriesGroup& group,
                JsonWriter& json) {
  json.BeginObject().Key("labels").BeginObject();
  for (size_t i = 0; i < labels.size(); ++i) json.Key(labels[i]).Value(group.values[i]);
  json.EndObject().Key("total").Value(group.total).Key("points").BeginArray();
  for (const auto& [time_ms, value] : group.points) {
    json.BeginArray().Value(time_ms).Value(value).EndArray();
  }
  json.EndArray().EndObject();
}

template <typename Counts>
void WriteCounts(std::string_view name, const Counts& counts, JsonWriter& json) {
  json.Key(name).BeginObject();
  for (const auto& [key, count] : counts) json.Key(key).Value(count);
  json.EndObject();
}

// Of the stacks with a user part, those that end at a proven root (the agent's names of reasons,
// bpf/include/frame.h).
template <typename Counts>
void WriteCompleteStacks(const Counts& stack_ends, JsonWriter& json) {
  uint64_t complete = 0;
  uint64_t all = 0;
  for (const auto& [reason, count] : stack_ends) {
    if (reason != "no_user_stack" && reason != "memory_gone") all += count;
    if (reason == "root") complete += count;
  }
  json.Key("complete_stacks").BeginObject();
  json.Key("complete").Value(complete).Key("all").Value(all).EndObject();
}

void WriteNodes(const std::vector<NodeStatus>& nodes, JsonWriter& json) {
  json.Key("nodes").BeginArray();
  for (const NodeStatus& node : nodes) {
    json.BeginObject().Key("node").Value(node.node).Key("last_seen_ms").Value(node.last_seen_ms);
    json.Key("hz").Value(node.sample_hz).Key("agent_version").Value(node.agent_version);
    json.Key("sampler").Value(node.sampler).Key("sampler_note").Value(node.sampler_note);
    json.Key("modules").BeginArray();
    for (const NodeModule& module : node.modules) {
      json.BeginObject().Key("name").Value(module.name).Key("state").Value(module.state);
      json.Key("why").Value(module.why).EndObject();
    }
    json.EndArray();
    json.Key("windows").Value(node.windows).Key("duplicates").Value(node.duplicates);
    json.Key("last_window_to_ms").Value(node.last_window_to_ms);
    json.Key("agents").Value(node.agents).EndObject();
  }
  json.EndArray();
}

}  // namespace

absl::StatusOr<HttpResponse> HandleSeries(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to", "type", "step", "group_by"}));
  ASSIGN_OR_RETURN(const Query query, ParseQuery(request, context.clock.Now().unix_ms()));
  ASSIGN_OR_RETURN(const int64_t step_ms, StepOf(request, query.range));
  ASSIGN_OR_RETURN(const std::vector<std::string> labels, ParseGroupBy(request));
  ASSIGN_OR_RETURN(const auto series, context.store.Series(query, step_ms));
  const std::vector<SeriesGroup> groups = GroupSeries(series, labels);
  int64_t total = 0;
  for (const SeriesGroup& group : groups) total = profile::SaturatingAdd(total, group.total);
  JsonWriter json;
  json.BeginObject().Key("step_ms").Value(step_ms).Key("unit").Value(UnitOf(query.sample_type));
  json.Key("from_ms").Value(query.range.from_ms).Key("to_ms").Value(query.range.to_ms);
  json.Key("total").Value(total).Key("groups").BeginArray();
  for (const SeriesGroup& group : groups) WriteGroup(labels, group, json);
  json.EndArray().EndObject();
  return JsonOf(std::move(json));
}

absl::StatusOr<HttpResponse> HandleLabels(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to"}));
  ASSIGN_OR_RETURN(const Query query, ParseQuery(request, context.clock.Now().unix_ms()));
  ASSIGN_OR_RETURN(const auto names, context.store.LabelNames(query));
  JsonWriter json;
  json.BeginObject().StringArray("names", names).EndObject();
  return JsonOf(std::move(json));
}

absl::StatusOr<HttpResponse> HandleLabelValues(const ApiContext& context,
                                               const HttpRequest& request, std::string_view name) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to"}));
  if (!profile::IsValidLabelName(name)) {
    return base::InvalidArgument("\"{}\" is not a label name", name.substr(0, 64));
  }
  ASSIGN_OR_RETURN(const Query query, ParseQuery(request, context.clock.Now().unix_ms()));
  ASSIGN_OR_RETURN(const auto values, context.store.LabelValues(query, name));
  JsonWriter json;
  json.BeginObject().StringArray("values", values).EndObject();
  return JsonOf(std::move(json));
}

absl::StatusOr<HttpResponse> HandleStatus(const ApiContext& context, const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {}));
  ASSIGN_OR_RETURN(const StoreStats stats, context.store.Stats());
  JsonWriter json;
  json.BeginObject().Key("version").Value(context.version);
  json.Key("now_ms").Value(context.clock.Now().unix_ms());
  WriteNodes(context.nodes ? context.nodes() : std::vector<NodeStatus>(), json);
  json.Key("store").BeginObject();
  json.Key("disk_bytes").Value(stats.disk_bytes).Key("windows").Value(stats.windows);
  json.Key("duplicates").Value(stats.duplicates);
  json.Key("oldest_ms").Value(stats.oldest_ms).Key("newest_ms").Value(stats.newest_ms).EndObject();
  WriteCounts("losses", stats.losses, json);
  WriteCounts("stack_ends", stats.stack_ends, json);
  WriteCompleteStacks(stats.stack_ends, json);
  json.EndObject();
  return JsonOf(std::move(json));
}

}  // namespace firewatch::server
