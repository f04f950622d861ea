// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "transport/http_client.h"

namespace firewatch::cli {
namespace {

using Json = nlohmann::json;

constexpr size_t kShownBuildId = 12;

std::string Bytes(uint64_t bytes) {
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (bytes < 10'000'000) return fmt::format("{:.1f} KB", static_cast<double>(bytes) / 1e3);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

std::string PerRow(uint64_t bytes, uint64_t rows) {
  if (bytes == 0 || rows == 0) return "-";
  return fmt::format("{:.2f}", static_cast<double>(bytes) / static_cast<double>(rows));
}

void FormatTable(const Json& table, uint64_t now_s, std::string* out) {
  const uint64_t used_s = table.at("last_used_s");
  fmt::format_to(std::back_inserter(*out),
                 "{:>9} {:>10} {:>6} {:>6} {:>9} {:>9}  {:<11} {:<12}  {}\n",
                 table.at("rows").get<uint64_t>(), Bytes(table.at("bytes")),
                 PerRow(table.at("bytes"), table.at("rows")), table.at("rules").get<uint64_t>(),
                 used_s == 0 ? "never" : fmt::format("{} s", now_s - std::min(now_s, used_s)),
                 table.at("uses").get<uint64_t>(), table.at("state").get<std::string>(),
                 table.at("build_id").get<std::string>().substr(0, kShownBuildId),
                 table.at("path").get<std::string>());
}

void FormatTotals(const Json& json, uint64_t loaded, std::string* out) {
  uint64_t charged = json.at("slab_bytes");
  std::string maps;
  for (const auto& [name, bytes] : json.at("map_bytes").items()) {
    charged += bytes.get<uint64_t>();
    maps += fmt::format("  {:<14} {:>10}\n", name, Bytes(bytes));
  }
  maps += fmt::format("  {:<14} {:>10}  in {} slabs, {} of them used\n", "slabs",
                      Bytes(json.at("slab_bytes")), json.at("slabs").get<uint64_t>(),
                      Bytes(json.at("table_bytes")));
  const uint64_t rss = json.at("rss_anon_bytes");
  auto to = std::back_inserter(*out);
  fmt::format_to(to, "\n{} tables loaded, {} rows, {} bytes of slabs per row, {} evictions\n",
                 loaded, json.at("rows_loaded").get<uint64_t>(),
                 PerRow(json.at("slab_bytes"), json.at("rows_loaded")),
                 json.at("evictions").get<uint64_t>());
  fmt::format_to(to, "\nBPF maps, as the kernel charges them\n{}", maps);
  fmt::format_to(to, "\n{} of maps and {} of heap, {} of {} allowed\n", Bytes(charged), Bytes(rss),
                 Bytes(charged + rss), Bytes(json.at("memory_limit_bytes")));
}

std::string Format(const Json& json) {
  std::string out =
      fmt::format("{:>9} {:>10} {:>6} {:>6} {:>9} {:>9}  {:<11} {:<12}  {}\n", "rows", "bytes",
                  "B/row", "rules", "used ago", "samples", "state", "build id", "file");
  std::string without;
  uint64_t loaded = 0;
  for (const Json& table : json.at("tables")) {
    if (table.at("state") == "none") {
      fmt::format_to(std::back_inserter(without), "  {}: {}\n", table.at("path").get<std::string>(),
                     table.at("reason").get<std::string>());
      continue;
    }
    loaded += table.at("state") == "loaded" ? 1 : 0;
    FormatTable(table, json.at("now_s"), &out);
  }
  if (!without.empty())
    out += "\nFiles without a table (frame pointers are followed there)\n" + without;
  FormatTotals(json, loaded, &out);
  return out;
}

}  // namespace

absl::StatusOr<std::string> FormatTables(std::string_view json) {
  try {
    return Format(Json::parse(json));
  } catch (const Json::exception& error) {
    return base::InvalidArgument("the answer is not a list of tables: {}", error.what());
  }
}

int RunDoctorTables(const std::string& agent) {
  const std::string url = fmt::format("http://{}/tables", agent);
  const auto response = transport::HttpGet(url);
  if (!response.ok()) {
    fmt::print(stderr, "firewatch: {}: {}\n", url, base::Message(response.status()));
    return 1;
  }
  if (response->status != 200) {
    fmt::print(stderr, "firewatch: {}: {} {}", url, response->status, response->body);
    return 1;
  }
  const auto text = FormatTables(response->body);
  if (!text.ok()) {
    fmt::print(stderr, "firewatch: {}: {}\n", url, base::Message(text.status()));
    return 1;
  }
  fmt::print("{}", *text);
  return 0;
}

}  // namespace firewatch::cli
