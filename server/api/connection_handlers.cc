// SPDX-License-Identifier: Apache-2.0
#include "server/api/connection_handlers.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "server/api/answers.h"
#include "server/query/request_query.h"
#include "server/store/connections.h"
#include "transport/json_writer.h"

namespace firewatch::server {
namespace {

using transport::HttpRequest;
using transport::HttpResponse;
using transport::JsonWriter;

constexpr int64_t kDefaultLimit = 200;
constexpr int64_t kMaxLimit = 5'000;

uint64_t MeanRtt(const ConnectionCounts& counts) {
  return counts.rtt_count == 0 ? 0 : counts.rtt_us / counts.rtt_count;
}

using Rank = uint64_t (*)(const ConnectionCounts& counts);
struct Sort {
  std::string_view name;
  Rank rank;
};
// The first one is the default.
constexpr std::array<Sort, 5> kSorts = {
    {{"retransmits", [](const ConnectionCounts& c) { return c.retransmits + c.syn_retransmits; }},
     {"bytes", [](const ConnectionCounts& c) { return c.bytes_sent + c.bytes_received; }},
     {"failed", [](const ConnectionCounts& c) { return c.failed; }},
     {"opened", [](const ConnectionCounts& c) { return c.opened; }},
     {"rtt", MeanRtt}}};

absl::StatusOr<Rank> ParseSort(const HttpRequest& request) {
  const std::string_view name = request.Query("sort").value_or(kSorts.front().name);
  for (const Sort& sort : kSorts) {
    if (sort.name == name) return sort.rank;
  }
  return base::InvalidArgument("sort: \"{}\" is not one of retransmits, bytes, failed, opened, rtt",
                               name.substr(0, 64));
}

// "" for what was not kept apart.
std::string AddressText(std::string_view bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  if (bytes.size() == 4) ::inet_ntop(AF_INET, bytes.data(), text, sizeof(text));
  if (bytes.size() == 16) ::inet_ntop(AF_INET6, bytes.data(), text, sizeof(text));
  return text;
}

void WriteCounts(const ConnectionCounts& counts, uint64_t living, JsonWriter& json) {
  json.Key("opened").Value(counts.opened).Key("closed").Value(counts.closed);
  json.Key("failed").Value(counts.failed).Key("resets_sent").Value(counts.resets_sent);
  json.Key("resets_received").Value(counts.resets_received);
  json.Key("retransmits").Value(counts.retransmits);
  json.Key("syn_retransmits").Value(counts.syn_retransmits);
  json.Key("bytes_sent").Value(counts.bytes_sent);
  json.Key("bytes_received").Value(counts.bytes_received);
  json.Key("segments_sent").Value(counts.segments_sent);
  json.Key("segments_received").Value(counts.segments_received);
  json.Key("duration_us").Value(counts.duration_us).Key("rtt_us").Value(MeanRtt(counts));
  json.Key("living").Value(living);
}

void WriteRow(const ConnectionRow& row, JsonWriter& json) {
  json.BeginObject().Key("labels").BeginObject();
  for (const auto& [name, value] : row.labels.pairs()) json.Key(name).Value(value);
  json.EndObject();
  json.Key("role").Value(row.edge.role == ConnectionRole::kConnect ? "connect" : "accept");
  json.Key("remote").Value(AddressText(row.edge.remote)).Key("port").Value(row.edge.port);
  WriteCounts(row.edge.counts, row.edge.living, json);
  json.EndObject();
}

// The largest first; of equal ones the order of the report.
std::vector<const ConnectionRow*> Largest(const std::vector<ConnectionRow>& rows, Rank rank,
                                          size_t limit) {
  std::vector<const ConnectionRow*> sorted;
  sorted.reserve(rows.size());
  for (const ConnectionRow& row : rows) sorted.push_back(&row);
  const auto end = sorted.begin() + static_cast<ptrdiff_t>(std::min(limit, sorted.size()));
  std::partial_sort(sorted.begin(), end, sorted.end(),
                    [rank](const ConnectionRow* a, const ConnectionRow* b) {
                      const uint64_t of_a = rank(a->edge.counts);
                      const uint64_t of_b = rank(b->edge.counts);
                      return of_a != of_b ? of_a > of_b : a < b;
                    });
  sorted.erase(end, sorted.end());
  return sorted;
}

}  // namespace

absl::StatusOr<HttpResponse> HandleConnections(const ApiContext& context,
                                               const HttpRequest& request) {
  RETURN_IF_ERROR(CheckParameters(request, {"query", "from", "to", "sort", "limit"}));
  ASSIGN_OR_RETURN(const Query query, ParseQuery(request, context.clock.Now().unix_ms()));
  ASSIGN_OR_RETURN(const Rank rank, ParseSort(request));
  ASSIGN_OR_RETURN(const int64_t limit, ParseNumber(request, "limit", kDefaultLimit, 1, kMaxLimit));
  ASSIGN_OR_RETURN(const ConnectionReport report, context.store.Connections(query));
  ConnectionCounts total;
  uint64_t living = 0;
  for (const ConnectionRow& row : report.rows) {
    total.Add(row.edge.counts);
    living = AddCounts(living, row.edge.living);
  }
  const auto shown = Largest(report.rows, rank, static_cast<size_t>(limit));
  JsonWriter json;
  json.BeginObject();
  json.Key("from_ms").Value(query.range.from_ms).Key("to_ms").Value(query.range.to_ms);
  json.Key("windows").Value(report.windows).Key("rows").BeginArray();
  for (const ConnectionRow* row : shown) WriteRow(*row, json);
  json.EndArray().Key("total").BeginObject();
  WriteCounts(total, living, json);
  json.EndObject().Key("left_out").Value(report.rows.size() - shown.size()).EndObject();
  return JsonOf(std::move(json));
}

}  // namespace firewatch::server
