// SPDX-License-Identifier: Apache-2.0
#include "cli/connections.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <iterator>
#include <nlohmann/json.hpp>

#include "agent/core/write_token.h"
#include "base/status.h"
#include "transport/address.h"
#include "transport/http_client.h"

namespace firewatch::cli {
namespace {

using Json = nlohmann::json;

std::string Bytes(uint64_t bytes) {
  if (bytes < 10'000) return fmt::format("{}", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f}K", static_cast<double>(bytes) / 1e3);
  if (bytes < 10'000'000'000) return fmt::format("{:.1f}M", static_cast<double>(bytes) / 1e6);
  return fmt::format("{:.1f}G", static_cast<double>(bytes) / 1e9);
}

std::string Milliseconds(uint64_t us) {
  return us == 0 ? "-" : fmt::format("{:.2f}", static_cast<double>(us) / 1e3);
}

std::string Seconds(uint64_t us) { return fmt::format("{:.1f}", static_cast<double>(us) / 1e6); }

// Text of strangers goes to a terminal: nothing of it may command it.
std::string Plain(const std::string& text) {
  std::string out;
  for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return out;
}

std::string Program(const Json& item) {
  std::string exe = item.at("exe");
  if (exe.empty()) exe = item.at("comm");
  const std::string name = exe.substr(exe.rfind('/') + 1);
  return Plain(name.empty() ? "?" : name);
}

std::string Process(const Json& item) {
  return fmt::format("{}/{}", item.at("pid").get<uint64_t>(), Program(item));
}

std::string How(const Json& item) {
  std::string how;
  if (item.contains("error")) how += " " + item.at("error").get<std::string>();
  if (item.contains("reset_by")) {
    how += " reset by " + item.at("reset_by").get<std::string>();
    if (item.contains("reset_reason"))
      how += " (" + item.at("reset_reason").get<std::string>() + ")";
  }
  return how;
}

void FormatLiving(const Json& json, std::string* out) {
  const auto to = std::back_inserter(*out);
  fmt::format_to(to, "{:<11} {:<3} {:<24} {:<24} {:<24} {:>8} {:>8} {:>6} {:>8} {:>9}\n", "STATE",
                 "DIR", "PROCESS", "LOCAL", "REMOTE", "SENT", "RECEIVED", "RETR", "RTT ms",
                 "AGE s");
  for (const Json& item : json.at("connections")) {
    fmt::format_to(to, "{:<11} {:<3} {:<24} {:<24} {:<24} {:>8} {:>8} {:>6} {:>8} {:>9}{}{}\n",
                   item.at("state").get<std::string>(), item.at("direction").get<std::string>(),
                   Process(item), item.at("local").get<std::string>(),
                   item.at("remote").get<std::string>(), Bytes(item.at("bytes_sent")),
                   Bytes(item.at("bytes_received")), item.at("retransmits").get<uint64_t>(),
                   Milliseconds(item.at("rtt_us")), Seconds(item.at("duration_us")),
                   item.at("from_before").get<bool>() ? "+" : "", How(item));
  }
  const size_t shown = json.at("connections").size();
  const uint64_t all = json.at("matching");
  if (shown < all) fmt::format_to(to, "({} of {}: --limit shows more)\n", shown, all);
}

void FormatListeners(const Json& json, std::string* out) {
  if (json.at("listeners").empty()) return;
  const auto to = std::back_inserter(*out);
  fmt::format_to(to, "\n{:<24} {:<24} {:>11} {:>9} {:>13}\n", "LISTENER", "LOCAL", "QUEUE",
                 "OVERFLOWS", "SYN-ACK RETR");
  for (const Json& item : json.at("listeners")) {
    fmt::format_to(to, "{:<24} {:<24} {:>11} {:>9} {:>13}\n", Process(item),
                   item.at("local").get<std::string>(),
                   fmt::format("{}/{}", item.at("queue").get<uint64_t>(),
                               item.at("queue_limit").get<uint64_t>()),
                   item.at("overflows").get<uint64_t>(),
                   item.at("syn_ack_retransmits").get<uint64_t>());
  }
}

void FormatPeers(const Json& json, std::string* out) {
  if (json.at("peers").empty()) return;
  const auto to = std::back_inserter(*out);
  fmt::format_to(to, "\n{:<20} {:<3} {:<28} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8}\n",
                 "PROGRAM", "DIR", "PEER:PORT", "LIVING", "CLOSED", "FAILED", "RESETS", "RETR",
                 "SENT", "RECEIVED", "RTT ms");
  for (const Json& item : json.at("peers")) {
    fmt::format_to(
        to, "{:<20} {:<3} {:<28} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8}\n", Program(item),
        item.at("direction").get<std::string>(),
        fmt::format("{}:{}", item.at("peer").get<std::string>(), item.at("port").get<uint64_t>()),
        item.at("living").get<uint64_t>(), item.at("closed").get<uint64_t>(),
        item.at("failed").get<uint64_t>(),
        item.at("resets_sent").get<uint64_t>() + item.at("resets_received").get<uint64_t>(),
        item.at("retransmits").get<uint64_t>() + item.at("syn_retransmits").get<uint64_t>(),
        Bytes(item.at("bytes_sent")), Bytes(item.at("bytes_received")),
        Milliseconds(item.at("rtt_us")));
  }
}

void FormatDrops(const Json& json, std::string* out) {
  const auto to = std::back_inserter(*out);
  if (!json.at("drops").empty()) {
    fmt::format_to(to, "\n{:>9} {:<7} {:<36} {}\n", "DROPPED", "PROTO", "REASON", "PROCESS");
    for (const Json& item : json.at("drops")) {
      std::string reason = item.at("reason");
      if (item.contains("where")) reason += " in " + item.at("where").get<std::string>();
      fmt::format_to(to, "{:>9} {:<7} {:<36} {}\n", item.at("packets").get<uint64_t>(),
                     item.at("protocol").get<std::string>(), reason,
                     item.contains("pid") ? Process(item) : "-");
    }
  }
  for (const auto& [error, count] : json.at("failures").items()) {
    fmt::format_to(to, "{:>9} failed connections: {}\n", count.get<uint64_t>(), error);
  }
  for (const Json& item : json.at("missing")) {
    fmt::format_to(to, "not seen on this kernel: {}\n", item.get<std::string>());
  }
}

std::string Url(const ConnectionsOptions& options, uint64_t since) {
  std::string url = fmt::format("http://{}/api/v1/connections?sort={}&limit={}", options.agent,
                                options.sort, options.follow ? 0 : options.limit);
  if (options.pid != 0) url += fmt::format("&pid={}", options.pid);
  if (options.follow) url += fmt::format("&events_since={}", since);
  return url;
}

// With the agent's token, where this user may read it: the agent may want it (network:
// connections-need-token), and says so.
transport::HttpClientOptions WithToken(const std::string& address) {
  transport::HttpClientOptions client;
  const auto parsed = transport::ParseHostPort(address);
  if (!parsed.ok()) return client;
  const auto token = agent::ReadWriteToken(agent::WriteTokenPath(parsed->port.value_or(80)));
  if (token.ok()) client.headers.emplace_back("Authorization", "Bearer " + *token);
  return client;
}

absl::StatusOr<std::string> Ask(const std::string& url, const std::string& address) {
  const auto response = transport::HttpGet(url, WithToken(address));
  if (!response.ok()) {
    return base::Annotate(response.status(), "is an agent running with the module network?");
  }
  if (response->status != 200) {
    return base::Unavailable("{}: {}", response->status, response->body);
  }
  return response->body;
}

int Fail(const std::string& url, const absl::Status& status) {
  fmt::print(stderr, "firewatch: {}: {}\n", url, base::Message(status));
  return 1;
}

int Follow(const ConnectionsOptions& options) {
  uint64_t last = 0;
  bool first = true;
  while (true) {
    const std::string url = Url(options, first ? UINT64_MAX : last);
    const auto body = Ask(url, options.agent);
    if (!body.ok()) return Fail(url, body.status());
    const auto lines = FormatConnectionEvents(*body, &last);
    if (!lines.ok()) return Fail(url, lines.status());
    if (options.output == "json" && !first) {
      const Json answer = Json::parse(*body);
      for (const Json& event : answer.at("events")) fmt::print("{}\n", event.dump());
    } else if (!first) {
      fmt::print("{}", *lines);
    }
    first = false;
    if (std::fflush(stdout) != 0) return 0;  // the reader has gone
    ::sleep(1);
  }
}

}  // namespace

absl::StatusOr<std::string> FormatConnections(std::string_view text) {
  try {
    const Json json = Json::parse(text);
    std::string out;
    FormatLiving(json, &out);
    FormatListeners(json, &out);
    FormatPeers(json, &out);
    FormatDrops(json, &out);
    return out;
  } catch (const Json::exception& error) {
    return base::InvalidArgument("the answer is no list of connections: {}", error.what());
  }
}

absl::StatusOr<std::string> FormatConnectionEvents(std::string_view text, uint64_t* last) {
  try {
    const Json json = Json::parse(text);
    std::string out;
    for (const Json& item : json.at("events")) {
      const std::time_t seconds = item.at("time_unix_ms").get<int64_t>() / 1000;
      std::tm local{};
      ::localtime_r(&seconds, &local);
      fmt::format_to(std::back_inserter(out),
                     "{:02}:{:02}:{:02}.{:03} {:<11} {:<3} {:<24} {} -> {} sent {} received {} "
                     "retransmits {} rtt {} ms after {} s{}\n",
                     local.tm_hour, local.tm_min, local.tm_sec,
                     item.at("time_unix_ms").get<int64_t>() % 1000,
                     item.at("event").get<std::string>(), item.at("direction").get<std::string>(),
                     Process(item), item.at("local").get<std::string>(),
                     item.at("remote").get<std::string>(), Bytes(item.at("bytes_sent")),
                     Bytes(item.at("bytes_received")), item.at("retransmits").get<uint64_t>(),
                     Milliseconds(item.at("rtt_us")), Seconds(item.at("duration_us")), How(item));
    }
    *last = json.at("last_event");
    return out;
  } catch (const Json::exception& error) {
    return base::InvalidArgument("the answer is no list of connections: {}", error.what());
  }
}

int RunConnections(const ConnectionsOptions& options) {
  if (options.follow) return Follow(options);
  const std::string url = Url(options, 0);
  const auto body = Ask(url, options.agent);
  if (!body.ok()) return Fail(url, body.status());
  if (options.output == "json") {
    fmt::print("{}\n", *body);
    return 0;
  }
  const auto text = FormatConnections(*body);
  if (!text.ok()) return Fail(url, text.status());
  fmt::print("{}", *text);
  return 0;
}

}  // namespace firewatch::cli
