// SPDX-License-Identifier: Apache-2.0
// The HTTP interface of Enforcer (enforcer.h): requests to calls, states and events to JSON.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "agent/enforce/enforcer.h"
#include "agent/enforce/rules_file.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using Json = nlohmann::json;
using transport::HttpRequest;
using transport::HttpResponse;

constexpr std::string_view kPrefix = "/api/v1/xdp";
constexpr size_t kMaxBody = size_t{48} << 20;

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 413;
    default:
      return 500;
  }
}

HttpResponse Answer(const Json& json) {
  return {.content_type = "application/json",
          .body = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"};
}
HttpResponse Answer(const absl::Status& status) {
  if (status.ok()) return Answer(Json{{"ok", true}});
  return transport::ErrorResponse(HttpStatusOf(status), base::Message(status));
}

Json ToJson(const FirewallState& state, uint64_t now_ns) {
  static constexpr std::string_view kCountNames[] = {
#define FW_NAME(constant, name, text) name,
      FW_FIREWALL_COUNTS(FW_NAME)
#undef FW_NAME
  };
  Json out = {{"interface", state.interface},
              {"attached", state.attached},
              {"mode", AttachModeName(state.mode)},
              {"note", state.note},
              {"generation", state.generation},
              {"dry_run", state.dry_run},
              {"source", state.source},
              {"map_bytes", state.map_bytes + state.image_bytes},
              {"rules", Json::array()},
              {"counts", Json::object()}};
  if (state.confirm_deadline_ns > 0) {
    out["confirm_within_ms"] =
        state.confirm_deadline_ns > now_ns ? (state.confirm_deadline_ns - now_ns) / 1'000'000 : 0;
  }
  for (size_t i = 0; i < FW_FIREWALL_COUNT; ++i) out["counts"][kCountNames[i]] = state.counts[i];
  for (const LoadedRule& rule : state.rules) {
    Json one = {{"name", rule.name},
                {"match", rule.match},
                {"action", rule.action},
                {"priority", rule.priority},
                {"comment", rule.comment},
                {"prefixes", rule.prefixes},
                {"packets", rule.counts.packets},
                {"bytes", rule.counts.bytes},
                {"dropped_packets", rule.counts.dropped_packets},
                {"dropped_bytes", rule.counts.dropped_bytes},
                {"would_drop_packets", rule.counts.would_drop_packets},
                {"would_drop_bytes", rule.counts.would_drop_bytes},
                {"sampled", rule.counts.sampled}};
    if (rule.deadline_ns > 0) {
      one["ttl_ms"] = rule.deadline_ns > now_ns ? (rule.deadline_ns - now_ns) / 1'000'000 : 0;
    }
    out["rules"].push_back(std::move(one));
  }
  out["expired_rules"] = state.expired_rules;
  return out;
}

std::string AddressText(const fw_drop_event& event, bool source) {
  const uint64_t high = source ? event.source_high : event.destination_high;
  const uint64_t low = source ? event.source_low : event.destination_low;
  return event.family == FW_FAMILY_IPV4 ? FormatAddress4(static_cast<uint32_t>(low))
                                        : FormatAddress6({high, low});
}

constexpr uint32_t kRefusedWaitsMs = 1'000;

Json ToJson(const DropEvent& event, const base::Clock& clock) {
  constexpr std::string_view kKinds[] = {"dropped", "would_drop", "sampled"};
  const fw_drop_event& from = event.event;
  const int64_t age_ns = static_cast<int64_t>(clock.MonotonicNs() - from.time_ns);
  Json out = {{"time_unix_ms", (clock.Now().unix_ns - age_ns) / 1'000'000},
              {"interface", event.interface},
              {"kind", kKinds[std::min<size_t>(from.kind, 2)]},
              {"rule", event.rule},
              {"frame_bytes", from.frame_bytes}};
  if (from.rule != FW_EVENT_NO_RULE || from.source_low != 0 || from.source_high != 0) {
    out["src"] = AddressText(from, true);
    out["dst"] = AddressText(from, false);
    if (from.protocol < FW_PROTOCOL_UNKNOWN) out["protocol"] = from.protocol;
  }
  if (from.has_ports != 0) {
    out["sport"] = from.source_port;
    out["dport"] = from.destination_port;
  }
  if (event.owner) out["process"] = {{"pid", event.owner->pid}, {"comm", event.owner->comm}};
  return out;
}

bool Flag(const HttpRequest& request, std::string_view name) {
  const auto value = request.Query(name);
  return value && (*value == "1" || *value == "true" || value->empty());
}

absl::StatusOr<uint64_t> NumberOf(const HttpRequest& request, std::string_view name, uint64_t max,
                                  uint64_t otherwise) {
  const auto text = request.Query(name);
  if (!text) return otherwise;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value > max) {
    return base::InvalidArgument("{}: \"{}\" is not a number up to {}", name, *text, max);
  }
  return value;
}

}  // namespace

HttpResponse Enforcer::HandleLoad(const HttpRequest& request) {
  uint64_t wait_ns = 0;
  {
    const base::MutexLock lock(mutex_);
    wait_ns = allowance_.Take(clock_.MonotonicNs());
    if (wait_ns != 0) ++refused_loads_;
  }
  if (wait_ns != 0) {
    HttpResponse refused =
        transport::ErrorResponse(429, "too many loads: the rules in force stay (loads_per_second)");
    refused.headers.emplace_back("Retry-After",
                                 std::to_string((wait_ns + 999'999'999) / 1'000'000'000));
    // Else who does not wait by himself costs more by being refused than by being served.
    refused.hold_ms = kRefusedWaitsMs;
    return refused;
  }
  HttpResponse out;
  options_.run_thread([&] { out = LoadFrom(request); });
  return out;
}

HttpResponse Enforcer::LoadFrom(const HttpRequest& request) {
  if (request.body.size() > kMaxBody)
    return transport::ErrorResponse(413, "the rules are too large");
  LoadOptions options;
  options.dry_run = Flag(request, "dry_run");
  options.allow_default_route = Flag(request, "allow_default_route");
  options.replace = Flag(request, "replace");
  const auto confirm_ms = NumberOf(request, "confirm_within_ms", kMaxConfirmMs, 0);
  if (!confirm_ms.ok()) return Answer(confirm_ms.status());
  options.confirm_within_ms = *confirm_ms;
  const auto mode = ParseAttachMode(request.Query("mode").value_or("auto"));
  if (!mode.ok()) return Answer(mode.status());
  options.mode = *mode;

  std::string yaml = request.body;
  std::string name = "rules";
  std::map<std::string, std::string> lists;
  if (request.Header("content-type").starts_with("application/json")) {
    const Json json = Json::parse(request.body, nullptr, /*allow_exceptions=*/false);
    try {
      yaml = json.at("rules").get<std::string>();
      name = json.value("name", name);
      if (json.contains("lists")) json.at("lists").get_to(lists);
    } catch (const Json::exception& error) {
      return transport::ErrorResponse(400, "the body is not {\"rules\": TEXT, \"lists\": {…}}");
    }
  }
  options.source = name;
  const auto rules =
      ParseRules(yaml, name, [&](const std::string& list) -> absl::StatusOr<std::string> {
        const auto found = lists.find(list);
        if (found != lists.end()) return found->second;
        return base::InvalidArgument("the list \"{}\" did not come with the rules", list);
      });
  if (!rules.ok()) return Answer(rules.status());
  const std::string interface(request.Query("interface").value_or(""));
  if (const absl::Status status = Load(interface, *rules, options); !status.ok())
    return Answer(status);
  for (const FirewallState& state : States()) {
    if (state.interface == interface) return Answer(ToJson(state, clock_.MonotonicNs()));
  }
  return Answer(Json{{"ok", true}});
}

std::optional<HttpResponse> Enforcer::Handle(const HttpRequest& request) {
  if (!request.path.starts_with(kPrefix)) return std::nullopt;
  const std::string_view rest = std::string_view(request.path).substr(kPrefix.size());
  const bool is_post = request.method == "POST";
  const std::string interface(request.Query("interface").value_or(""));
  if (rest == "/load" || rest == "/confirm" || rest == "/unload") {
    if (!is_post) return transport::ErrorResponse(405, "POST");
    if (interface.empty()) return transport::ErrorResponse(400, "interface must be named");
    if (rest == "/load") return HandleLoad(request);
    return Answer(rest == "/confirm" ? Confirm(interface) : Unload(interface));
  }
  if (is_post) return transport::ErrorResponse(405, "GET");
  if (rest.empty() || rest == "/" || rest == "/stats") {
    Json out = {{"interfaces", Json::array()}, {"problems", Problems()}};
    for (const FirewallState& state : States()) {
      if (interface.empty() || state.interface == interface) {
        out["interfaces"].push_back(ToJson(state, clock_.MonotonicNs()));
      }
    }
    return Answer(out);
  }
  if (rest == "/events") {
    const auto limit = NumberOf(request, "limit", kMaxEvents, 100);
    if (!limit.ok()) return Answer(limit.status());
    Json out = {{"events", Json::array()}};
    for (const DropEvent& event : Events(*limit)) out["events"].push_back(ToJson(event, clock_));
    return Answer(out);
  }
  return transport::ErrorResponse(404, "no such path");
}

}  // namespace firewatch::agent
