// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor_modules.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "transport/http_client.h"

namespace firewatch::cli {
namespace {

using Json = nlohmann::json;

void FormatRow(const Json& row, bool* all_active, std::string* out) {
  const bool enabled = row.at("enabled");
  const std::string state = row.at("state");
  if (enabled && state != "active") *all_active = false;
  auto to = std::back_inserter(*out);
  if (!enabled) {
    fmt::format_to(to, "{:<10} {:<9} not enabled\n", row.at("name").get<std::string>(), "-");
    return;
  }
  fmt::format_to(
      to, "{:<10} {:<9} {:<14} {:>6.3f} % of {:.3f} %  {:>7.1f} MiB of {:.1f} MiB",
      row.at("name").get<std::string>(), state,
      row.at("detail").get<std::string>().empty() ? "-" : row.at("detail").get<std::string>(),
      row.at("cpu_percent").get<double>(), row.at("cpu_share_percent").get<double>(),
      row.at("memory_bytes").get<double>() / (1 << 20),
      row.at("memory_share_bytes").get<double>() / (1 << 20));
  const std::string why = row.at("why");
  fmt::format_to(to, "{}{}\n", why.empty() ? "" : "\n           ", why);
}

}  // namespace

absl::StatusOr<std::string> FormatModules(std::string_view json, bool* all_active) {
  bool active = true;
  try {
    const Json status = Json::parse(json);
    std::string out = fmt::format("{:<10} {:<9} {:<14} {}\n", "module", "state", "detail",
                                  "CPU of the machine, memory: used of share");
    for (const Json& row : status.at("modules")) FormatRow(row, &active, &out);
    const Json& budget = status.at("budget");
    fmt::format_to(
        std::back_inserter(out),
        "\n{:.3f} % of the machine used, {:.3f} % of it by the agent itself; {:.3f} % is "
        "the budget\n",
        budget.at("used_percent").get<double>(), budget.value("agent_percent", 0.0),
        budget.at("percent").get<double>());
    if (all_active != nullptr) *all_active = active;
    return out;
  } catch (const Json::exception& error) {
    return base::InvalidArgument("not the status of a live agent: {}", error.what());
  }
}

int RunDoctorModules(const std::string& agent) {
  const std::string url = fmt::format("http://{}/status", agent);
  const auto response = transport::HttpGet(url);
  absl::Status status = response.status();
  if (response.ok() && response->status != 200) {
    status = base::Unavailable("{} says {}", agent, response->status);
  }
  if (status.ok()) {
    bool all_active = true;
    const auto text = FormatModules(response->body, &all_active);
    status = text.status();
    if (text.ok()) {
      fmt::print("{}", *text);
      return all_active ? 0 : 2;
    }
  }
  fmt::print(stderr, "firewatch: {}\n", base::Message(status));
  return 1;
}

std::string FormatNeeds(std::string_view name, const agent::ModuleNeeds& needs, bool* runs) {
  *runs = true;
  size_t missing = 0;
  std::string lines;
  for (const agent::ModuleNeed& need : needs.needs) {
    if (need.available) continue;
    ++missing;
    if (need.required) *runs = false;
    fmt::format_to(std::back_inserter(lines), "{:>31}{}{}: {}{}{}\n", "-> ", need.name,
                   need.required ? "" : " (one signal less)", need.detail,
                   need.remedy.empty() ? "" : "; ", need.remedy);
  }
  const std::string_view mark = !*runs ? " FAIL" : missing != 0 ? " warn" : "  ok ";
  return fmt::format("{}  {:<22} {}\n{}", mark, fmt::format("module {}", name),
                     !*runs ? "cannot run here"
                     : missing != 0
                         ? fmt::format("runs, but for {} of {} needs", missing, needs.needs.size())
                         : "has all it needs",
                     lines);
}

}  // namespace firewatch::cli
