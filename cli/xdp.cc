// SPDX-License-Identifier: Apache-2.0
// Rules are read and checked here, lists are read here: the agent opens no file that a client
// names. It checks all of it again.
#include "cli/xdp.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "agent/core/config_node.h"
#include "agent/core/write_token.h"
#include "agent/enforce/rules_file.h"
#include "base/status.h"
#include "transport/address.h"
#include "transport/http_client.h"

namespace firewatch::cli {
namespace {

using Json = nlohmann::json;

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return base::NotFound("{}: cannot be read, or is empty", path);
  }
  return std::move(text).str();
}

std::string Url(const XdpOptions& options, std::string_view path) {
  const bool has_scheme = options.agent.find("://") != std::string::npos;
  return fmt::format("{}{}/api/v1/xdp{}", has_scheme ? "" : "http://", options.agent, path);
}

// When a burst of loads has come before, the agent takes the next one in a moment.
constexpr int kTooMany = 429;
constexpr int kTries = 20;
constexpr std::chrono::milliseconds kBetweenTries(500);

// The agent's answer, or its words as an error.
absl::StatusOr<Json> Parsed(const absl::StatusOr<transport::HttpResponse>& response) {
  if (!response.ok()) return response.status();
  Json json = Json::parse(response->body, nullptr, /*allow_exceptions=*/false);
  if (response->status == 200 && !json.is_discarded()) return json;
  if (json.is_object() && json.contains("error") && json["error"].is_string()) {
    return base::FailedPrecondition("{}", json["error"].get<std::string>());
  }
  if (response->status == 404) {
    return base::NotFound("the agent has no firewall (module enforce is off?)");
  }
  return base::Unavailable("the agent answered {}", response->status);
}

int Say(const absl::Status& status, std::string_view command) {
  if (status.ok()) return 0;
  fmt::print(stderr, "firewatch xdp {}: {}\n", command, base::Message(status));
  return 1;
}

// With the token of the agent that listens there (agent/core/write_token.h).
absl::StatusOr<Json> PostTo(const XdpOptions& options, std::string_view path,
                            std::string_view body) {
  std::string token_path = options.token_file;
  if (token_path.empty()) {
    std::string_view address = options.agent;
    if (address.starts_with("http://")) address.remove_prefix(7);
    if (address.ends_with('/')) address.remove_suffix(1);
    ASSIGN_OR_RETURN(const transport::HostPort parsed, transport::ParseHostPort(address));
    token_path = agent::WriteTokenPath(parsed.port.value_or(80));
  }
  ASSIGN_OR_RETURN(const std::string token, agent::ReadWriteToken(token_path));
  transport::HttpClientOptions client;
  client.headers.emplace_back("Authorization", "Bearer " + token);
  auto response = transport::HttpPost(Url(options, path), body, "application/json", client);
  for (int i = 0; i < kTries && response.ok() && response->status == kTooMany; ++i) {
    std::this_thread::sleep_for(kBetweenTries);
    response = transport::HttpPost(Url(options, path), body, "application/json", client);
  }
  return Parsed(response);
}

absl::StatusOr<Json> Get(const XdpOptions& options, std::string_view path) {
  return Parsed(transport::HttpGet(Url(options, path)));
}
absl::StatusOr<Json> Post(const XdpOptions& options, std::string_view path) {
  return PostTo(options, path, "");
}

std::string Head(const Json& state) {
  std::string out =
      fmt::format("{}: {}, generation {}, {}", state["interface"].get<std::string>(),
                  state["attached"].get<bool>() ? state["mode"].get<std::string>() : "NOT ATTACHED",
                  state["generation"].get<uint64_t>(), state["source"].get<std::string>());
  if (state["dry_run"].get<bool>()) out += ", dry run: nothing is dropped";
  if (state.contains("confirm_within_ms")) {
    out += fmt::format(", undone in {} s unless confirmed",
                       state["confirm_within_ms"].get<uint64_t>() / 1000);
  }
  if (const auto note = state["note"].get<std::string>(); !note.empty())
    out += fmt::format(" ({})", note);
  return out;
}

absl::Status Load(const XdpOptions& options) {
  ASSIGN_OR_RETURN(const std::string rules, ReadText(options.file));
  const std::filesystem::path folder = std::filesystem::path(options.file).parent_path();
  Json body = {{"name", options.file}, {"rules", rules}, {"lists", Json::object()}};
  const auto read_list = [&](const std::string& list) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(std::string text, ReadText((folder / list).string()));
    body["lists"][list] = text;
    return text;
  };
  RETURN_IF_ERROR(agent::ParseRules(rules, options.file, read_list).status());
  uint64_t confirm_ms = 0;
  if (!options.confirm_within.empty()) {
    ASSIGN_OR_RETURN(confirm_ms, agent::ParseDurationMs(options.confirm_within));
    if (confirm_ms == 0) return base::InvalidArgument("--confirm-within: more than nothing");
  }
  const std::string path = fmt::format(
      "/load?interface={}&mode={}&confirm_within_ms={}&dry_run={:d}&allow_default_route={:d}&"
      "replace={:d}",
      options.interface, options.mode, confirm_ms, options.dry_run, options.allow_default_route,
      options.replace);
  std::string text;
  try {
    text = body.dump();
  } catch (const Json::exception& error) {
    return base::InvalidArgument("{}: is not UTF-8", options.file);
  }
  ASSIGN_OR_RETURN(const Json state, PostTo(options, path, text));
  fmt::print("{}\n", Head(state));
  if (confirm_ms > 0) {
    fmt::print("confirm with: firewatch xdp confirm --interface {}\n", options.interface);
  }
  return absl::OkStatus();
}

absl::Status ForEach(const XdpOptions& options, const std::function<void(const Json&)>& print) {
  ASSIGN_OR_RETURN(
      const Json answer,
      Get(options, options.interface.empty() ? "/stats" : "/stats?interface=" + options.interface));
  if (options.json) {
    fmt::print("{}\n", answer.dump(2));
    return absl::OkStatus();
  }
  try {
    for (const Json& problem : answer.at("problems")) {
      fmt::print(stderr, "{}\n", problem.get<std::string>());
    }
    if (answer.at("interfaces").empty()) fmt::print("no rules are loaded\n");
    for (const Json& state : answer.at("interfaces")) {
      fmt::print("{}\n", Head(state));
      print(state);
    }
  } catch (const Json::exception& error) {
    return base::Unavailable("the agent's answer is not understood: {}", error.what());
  }
  return absl::OkStatus();
}

void PrintRules(const Json& state) {
  for (const Json& rule : state["rules"]) {
    fmt::print("  {:>6} {:<24} {:<28} {}", rule["priority"].get<uint32_t>(),
               rule["name"].get<std::string>(), rule["action"].get<std::string>(),
               rule["match"].get<std::string>());
    if (const auto count = rule["prefixes"].get<uint64_t>(); count > 0) {
      fmt::print(" [{} prefixes]", count);
    }
    if (rule.contains("ttl_ms")) fmt::print(" [{} s left]", rule["ttl_ms"].get<uint64_t>() / 1000);
    fmt::print("\n");
  }
}

void PrintStats(const Json& state) {
  fmt::print("  {:<24} {:>14} {:>16} {:>14} {:>16} {:>14}\n", "RULE", "PACKETS", "BYTES", "DROPPED",
             "DROPPED BYTES", "WOULD DROP");
  for (const Json& rule : state["rules"]) {
    fmt::print("  {:<24} {:>14} {:>16} {:>14} {:>16} {:>14}\n", rule["name"].get<std::string>(),
               rule["packets"].get<uint64_t>(), rule["bytes"].get<uint64_t>(),
               rule["dropped_packets"].get<uint64_t>(), rule["dropped_bytes"].get<uint64_t>(),
               rule["would_drop_packets"].get<uint64_t>());
  }
  for (const auto& [name, value] : state["counts"].items()) {
    if (value.get<uint64_t>() > 0) fmt::print("  {:<24} {:>14}\n", name, value.get<uint64_t>());
  }
}

absl::Status Events(const XdpOptions& options) {
  ASSIGN_OR_RETURN(const Json answer, Get(options, fmt::format("/events?limit={}", options.limit)));
  if (options.json) {
    fmt::print("{}\n", answer.dump(2));
    return absl::OkStatus();
  }
  for (const Json& event : answer.value("events", Json::array())) fmt::print("{}\n", event.dump());
  return absl::OkStatus();
}

}  // namespace

int RunXdpLoad(const XdpOptions& options) { return Say(Load(options), "load"); }
int RunXdpList(const XdpOptions& options) { return Say(ForEach(options, PrintRules), "list"); }
int RunXdpStats(const XdpOptions& options) { return Say(ForEach(options, PrintStats), "stats"); }
int RunXdpEvents(const XdpOptions& options) { return Say(Events(options), "events"); }
int RunXdpConfirm(const XdpOptions& options) {
  return Say(Post(options, "/confirm?interface=" + options.interface).status(), "confirm");
}
int RunXdpUnload(const XdpOptions& options) {
  return Say(Post(options, "/unload?interface=" + options.interface).status(), "unload");
}

}  // namespace firewatch::cli
