// SPDX-License-Identifier: Apache-2.0
// One table lists the settings; flags and the file both set them as text through it, so that a
// value is checked by the same code and refused in the same words. Exceptions of CLI11 and yaml-cpp
// end in this file.
#include "server/config.h"

#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <string_view>

#include "base/status.h"
#include "transport/address.h"

namespace firewatch::server {
namespace {

using Texts = std::vector<std::string>;

std::optional<uint64_t> ParseWhole(std::string_view text, uint64_t max) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || stop != end || value > max) return std::nullopt;
  return value;
}

// "1048576", "512KiB", "10GiB" (K, M, G, T for short).
absl::StatusOr<uint64_t> ParseBytes(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = ParseWhole(text.substr(0, digits), std::numeric_limits<uint64_t>::max());
  std::string_view unit = text.substr(digits);
  if (unit.ends_with("iB")) unit.remove_suffix(2);
  constexpr std::string_view kUnits = "KMGT";
  int shift = 0;
  if (unit.size() == 1 && kUnits.find(unit[0]) != std::string_view::npos) {
    shift = 10 * (static_cast<int>(kUnits.find(unit[0])) + 1);
  }
  const bool known = digits == text.size() || shift > 0;
  if (!number || !known || *number > (std::numeric_limits<uint64_t>::max() >> shift)) {
    return base::InvalidArgument("\"{}\" is no number of bytes such as 500MiB or 10GiB", text);
  }
  return *number << shift;
}

absl::Status SetRetentionHours(ServerConfig& config, const std::string& text) {
  const auto hours = ParseWhole(text, 24 * 366 * 100);
  if (!hours) return base::InvalidArgument("\"{}\" is no number of hours", text);
  config.retention_hours = static_cast<int64_t>(*hours);
  return absl::OkStatus();
}

absl::Status SetRetentionBytes(ServerConfig& config, const std::string& text) {
  ASSIGN_OR_RETURN(config.retention_bytes, ParseBytes(text));
  return absl::OkStatus();
}

template <uint64_t ServerConfig::* kMember>
absl::Status SetBytes(ServerConfig& config, const std::string& text) {
  ASSIGN_OR_RETURN(config.*kMember, ParseBytes(text));
  return absl::OkStatus();
}

absl::Status AddAllowedHost(ServerConfig& config, const std::string& text) {
  RETURN_IF_ERROR(transport::ParseHostPort(text).status());
  config.allowed_hosts.push_back(text);
  return absl::OkStatus();
}

absl::Status SetMaxNodes(ServerConfig& config, const std::string& text) {
  const auto nodes = ParseWhole(text, std::numeric_limits<uint32_t>::max());
  if (!nodes) return base::InvalidArgument("\"{}\" is no number of nodes", text);
  config.max_nodes = static_cast<uint32_t>(*nodes);
  return absl::OkStatus();
}

absl::Status SetHttpWorkers(ServerConfig& config, const std::string& text) {
  const auto workers = ParseWhole(text, 256);
  if (!workers || *workers == 0) return base::InvalidArgument("\"{}\" is not in 1..256", text);
  config.http_workers = static_cast<uint32_t>(*workers);
  return absl::OkStatus();
}

absl::Status SetInsecure(ServerConfig& config, const std::string& text) {
  if (text != "true" && text != "false") {
    return base::InvalidArgument("\"{}\" is neither true nor false", text);
  }
  config.insecure = text == "true";
  return absl::OkStatus();
}

absl::Status SetLogLevel(ServerConfig& config, const std::string& text) {
  constexpr std::array<std::string_view, 5> kLevels = {"trace", "debug", "info", "warn", "error"};
  if (std::find(kLevels.begin(), kLevels.end(), text) == kLevels.end()) {
    return base::InvalidArgument("\"{}\" is none of trace, debug, info, warn, error", text);
  }
  config.log_level = text;
  return absl::OkStatus();
}

template <std::string ServerConfig::* kMember>
absl::Status SetText(ServerConfig& config, const std::string& text) {
  if (text.empty()) return base::InvalidArgument("is empty");
  config.*kMember = text;
  return absl::OkStatus();
}

enum class Shape { kOne, kSwitch, kList };

struct Setting {
  const char* name;
  const char* value;  // for --help
  const char* help;
  Shape shape;
  absl::Status (*set)(ServerConfig&, const std::string&);
};

constexpr std::array<Setting, 12> kSettings = {{
    {"data", "DIR", "Where profiles are kept (/var/lib/firewatch/server, else ./firewatch-data)",
     Shape::kOne, SetText<&ServerConfig::data_directory>},
    {"http", "ADDR", "The page and the APIs (127.0.0.1:7171)", Shape::kOne,
     SetText<&ServerConfig::http>},
    {"grpc", "ADDR", "Where agents send windows (127.0.0.1:7070)", Shape::kOne,
     SetText<&ServerConfig::grpc>},
    {"retention-hours", "N", "Profiles are kept this long; 0: for ever (168)", Shape::kOne,
     SetRetentionHours},
    {"retention-bytes", "BYTES", "And at most this much disk; 0: no bound (10GiB)", Shape::kOne,
     SetRetentionBytes},
    {"allowed-host", "NAME", "Another name this server answers to; may be repeated", Shape::kList,
     AddAllowedHost},
    {"max-nodes", "N", "Largest flame tree of one answer; 0: no bound (1000000)", Shape::kOne,
     SetMaxNodes},
    {"http-workers", "N", "Queries answered at the same time, 1..256 (2)", Shape::kOne,
     SetHttpWorkers},
    {"debuginfo-bytes", "BYTES", "Debug information kept for names; 0: none is taken (10GiB)",
     Shape::kOne, SetBytes<&ServerConfig::debuginfo_bytes>},
    {"debuginfo-file-bytes", "BYTES", "Largest file of debug information (4GiB)", Shape::kOne,
     SetBytes<&ServerConfig::debuginfo_file_bytes>},
    {"insecure", "", "Allow listeners outside loopback, without TLS", Shape::kSwitch, SetInsecure},
    {"log-level", "LEVEL", "trace, debug, info, warn or error (info)", Shape::kOne, SetLogLevel},
}};

// --- the file ------------------------------------------------------------------------------------

absl::StatusOr<Texts> TextsOf(const Setting& setting, const YAML::Node& node) {
  if (node.IsScalar()) return Texts{node.Scalar()};
  if (!node.IsSequence() || setting.shape != Shape::kList) {
    return base::InvalidArgument("a plain value is expected");
  }
  Texts texts;
  for (const YAML::Node& item : node) {
    if (!item.IsScalar()) return base::InvalidArgument("a list of plain values is expected");
    texts.push_back(item.Scalar());
  }
  return texts;
}

absl::Status ApplyNode(ServerConfig& config, const std::string& key, const YAML::Node& value) {
  const auto* setting = std::find_if(kSettings.begin(), kSettings.end(),
                                     [&](const Setting& known) { return known.name == key; });
  if (setting == kSettings.end()) {
    return base::InvalidArgument("unknown key \"{}\"; keys are flags without dashes", key);
  }
  const auto texts = TextsOf(*setting, value);
  if (!texts.ok()) return base::Annotate(texts.status(), key);
  for (const std::string& text : *texts) {
    RETURN_IF_ERROR(base::Annotate(setting->set(config, text), key));
  }
  return absl::OkStatus();
}

absl::Status ApplyFile(ServerConfig& config, const std::string& path) {
  try {
    const YAML::Node root = YAML::LoadFile(path);
    if (root.IsNull()) return absl::OkStatus();  // only comments
    if (!root.IsMap()) return base::InvalidArgument("{}: KEY: VALUE lines are expected", path);
    for (const auto& pair : root) {
      const std::string key = pair.first.IsScalar() ? pair.first.Scalar() : "";
      RETURN_IF_ERROR(base::Annotate(ApplyNode(config, key, pair.second),
                                     fmt::format("{}:{}", path, pair.first.Mark().line + 1)));
    }
    return absl::OkStatus();
  } catch (const YAML::BadFile&) {
    return base::InvalidArgument("{}: cannot be read", path);
  } catch (const YAML::Exception& error) {
    return base::InvalidArgument("{}:{}: {}", path, error.mark.line + 1, error.msg);
  }
}

// --- flags ---------------------------------------------------------------------------------------

// Fills `texts` with what was given. A text in return (help, version) ends the program.
absl::StatusOr<std::string> ReadFlags(int argc, const char* const* argv,
                                      std::map<std::string, Texts>& texts) {
  CLI::App app("Keeps the profiles of the whole fleet, and serves them as flame graphs and pprof.",
               "firewatch-server");
  app.set_version_flag("--version", "firewatch-server " FIREWATCH_VERSION "\n");
  for (const Setting& setting : kSettings) {
    const std::string flag = std::string("--") + setting.name;
    Texts& target = texts[setting.name];
    if (setting.shape == Shape::kSwitch) {
      app.add_flag_callback(flag, [&target] { target = {"true"}; }, setting.help);
      continue;
    }
    app.add_option(flag, target, setting.help)
        ->type_name(setting.value)
        ->expected(1)
        ->multi_option_policy(setting.shape == Shape::kList ? CLI::MultiOptionPolicy::TakeAll
                                                            : CLI::MultiOptionPolicy::TakeLast);
  }
  app.add_option("--config", texts["config"], "YAML file; flags win over it")
      ->type_name("FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return app.help();
  } catch (const CLI::CallForVersion& version) {
    return std::string(version.what());
  } catch (const CLI::ParseError& error) {
    return base::InvalidArgument("{} (see --help)", error.what());
  }
  return std::string();
}

// The packaged place when it is there and ours, so that a service finds its data again; else a
// folder that a person sees.
std::string DefaultDataDirectory() {
  constexpr std::array<const char*, 2> kPlaces = {"/var/lib/firewatch/server",
                                                  "/var/lib/firewatch"};
  for (const char* place : kPlaces) {
    if (::access(place, W_OK | X_OK) == 0) return "/var/lib/firewatch/server";
  }
  return "./firewatch-data";
}

}  // namespace

absl::StatusOr<ServerConfig> ParseServerConfig(int argc, const char* const* argv) {
  ServerConfig config;
  std::map<std::string, Texts> flags;
  ASSIGN_OR_RETURN(config.message, ReadFlags(argc, argv, flags));
  if (!config.message.empty()) return config;
  if (!flags["config"].empty()) {
    config.config_path = flags["config"].back();
    RETURN_IF_ERROR(ApplyFile(config, config.config_path));
  }
  if (!flags["allowed-host"].empty()) config.allowed_hosts.clear();  // replaces the file's list
  for (const Setting& setting : kSettings) {
    for (const std::string& text : flags[setting.name]) {
      RETURN_IF_ERROR(base::Annotate(setting.set(config, text), fmt::format("--{}", setting.name)));
    }
  }
  if (config.data_directory.empty()) config.data_directory = DefaultDataDirectory();
  return config;
}

}  // namespace firewatch::server
