// SPDX-License-Identifier: Apache-2.0
// One table lists the settings; flags and the file both set them as text through it, so that a
// value is checked by the same code and refused in the same words. Exceptions of CLI11 end in this
// file, those of yaml-cpp in config_node.cc.
#include "agent/core/config.h"

#include <limits.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <map>
#include <optional>
#include <utility>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr uint64_t kMinWindowMs = 100;
constexpr uint64_t kMaxWindowMs = 3'600'000;
constexpr uint64_t kMinSpoolBytes = 4096;
// Without any unwind table: 6 MiB of heap, 2 to 3 MiB of maps on two CPUs.
constexpr uint64_t kMinMemoryLimit = uint64_t{16} << 20;
constexpr std::string_view kFileKey = "config";

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

absl::Status SetHz(AgentConfig* config, const std::string& text) {
  const auto hz = ParseNumber(text);
  if (!hz || *hz < 1 || *hz > 999) return base::InvalidArgument("{} is not in 1..999", text);
  config->hz = static_cast<uint32_t>(*hz);
  return absl::OkStatus();
}

absl::Status SetSampler(AgentConfig* config, const std::string& text) {
  for (const std::string_view name : {"auto", "ebpf", "perf", "ptrace"}) {
    if (text != name) continue;
    config->sampler = text;
    return absl::OkStatus();
  }
  return base::InvalidArgument("\"{}\" is none of auto, ebpf, perf, ptrace", text);
}

absl::Status SetWindow(AgentConfig* config, const std::string& text) {
  ASSIGN_OR_RETURN(const uint64_t window_ms, ParseDurationMs(text));
  if (window_ms < kMinWindowMs || window_ms > kMaxWindowMs) {
    return base::InvalidArgument("{} is not in 100ms..1h", text);
  }
  config->window_ms = window_ms;
  return absl::OkStatus();
}

absl::Status SetSpoolMaxBytes(AgentConfig* config, const std::string& text) {
  ASSIGN_OR_RETURN(const uint64_t bytes, ParseByteSize(text));
  if (bytes < kMinSpoolBytes) return base::InvalidArgument("{} is less than 4KiB", text);
  config->spool_max_bytes = bytes;
  return absl::OkStatus();
}

absl::Status SetMemoryLimit(AgentConfig* config, const std::string& text) {
  ASSIGN_OR_RETURN(const uint64_t bytes, ParseByteSize(text));
  if (bytes < kMinMemoryLimit) return base::InvalidArgument("{} is less than 16MiB", text);
  config->memory_limit_bytes = bytes;
  return absl::OkStatus();
}

absl::Status AddLabel(AgentConfig* config, const std::string& text) {
  const size_t equals = text.find('=');
  const std::string_view name = std::string_view(text).substr(0, equals);
  if (equals == std::string::npos || !profile::IsValidLabelName(name)) {
    return base::InvalidArgument("\"{}\" is not NAME=VALUE", text);
  }
  const std::string_view value = std::string_view(text).substr(equals + 1);
  if (value.size() > profile::kMaxLabelValueBytes) {
    return base::InvalidArgument("the value of {} is longer than {} bytes", name,
                                 profile::kMaxLabelValueBytes);
  }
  config->labels.Set(name, value);
  return absl::OkStatus();
}

absl::Status AddPid(AgentConfig* config, const std::string& text) {
  const auto pid = ParseNumber(text);
  if (!pid || *pid == 0 || *pid > UINT32_MAX) {
    return base::InvalidArgument("{} is not a process id", text);
  }
  config->pids.push_back(Pid{static_cast<uint32_t>(*pid)});
  return absl::OkStatus();
}

absl::Status SetModules(AgentConfig* config, const std::string& text) {
  config->modules.clear();
  const std::string known = fmt::format("{}", fmt::join(config->known_modules, ", "));
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = rest.find(',');
    const std::string_view name = rest.substr(0, comma);
    if (std::ranges::find(config->known_modules, name) == config->known_modules.end()) {
      return base::InvalidArgument("there is no module \"{}\"; known: {}", name, known);
    }
    config->modules.emplace_back(name);
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
  }
  if (config->modules.empty()) return base::InvalidArgument("no module is named; known: {}", known);
  return absl::OkStatus();
}

absl::Status SetBudget(AgentConfig* config, const std::string& text) {
  const std::string_view number = std::string_view(text).substr(0, text.find('%'));
  double percent = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), percent);
  if (error != std::errc() || end != number.data() + number.size() ||
      text.size() - number.size() > 1 || !(percent >= 0.01 && percent <= 100)) {
    return base::InvalidArgument("{} is not in 0.01..100 percent", text);
  }
  config->budget_percent = percent;
  config->explicit_budget = true;
  return absl::OkStatus();
}

absl::Status SetInsecure(AgentConfig* config, const std::string& text) {
  if (text != "true" && text != "false") {
    return base::InvalidArgument("\"{}\" is neither true nor false", text);
  }
  config->insecure = text == "true";
  return absl::OkStatus();
}

absl::Status SetLines(AgentConfig* config, const std::string& text) {
  if (text != "on" && text != "off")
    return base::InvalidArgument("\"{}\" is neither on nor off", text);
  config->lines = text == "on";
  return absl::OkStatus();
}

absl::Status SetLogLevel(AgentConfig* config, const std::string& text) {
  for (const std::string_view level : {"trace", "debug", "info", "warn", "error"}) {
    if (text != level) continue;
    config->log_level = text;
    return absl::OkStatus();
  }
  return base::InvalidArgument("\"{}\" is none of trace, debug, info, warn, error", text);
}

template <std::string AgentConfig::* kMember>
absl::Status SetText(AgentConfig* config, const std::string& text) {
  if (text.empty()) return base::InvalidArgument("is empty");
  config->*kMember = text;
  return absl::OkStatus();
}

absl::Status AddCgroup(AgentConfig* config, const std::string& text) {
  if (text.empty()) return base::InvalidArgument("is empty");
  config->cgroups.push_back(text);
  return absl::OkStatus();
}

enum class Shape { kOne, kSwitch, kList, kPairs };

struct Setting {
  const char* name;
  const char* value;  // for --help
  const char* help;
  Shape shape;
  absl::Status (*set)(AgentConfig*, const std::string&);
  bool of_cpu = false;  // belongs to the section `cpu`
};

constexpr std::array<Setting, 22> kSettings = {{
    {"server", "ADDR", "Where windows are sent: gRPC, HOST:PORT (127.0.0.1:7070)", Shape::kOne,
     SetText<&AgentConfig::server>},
    {"http", "ADDR", "The agent's own page: /metrics, /healthz (127.0.0.1:7172)", Shape::kOne,
     SetText<&AgentConfig::http>},
    {"hz", "N", "Samples per second and CPU, 1..999 (19)", Shape::kOne, SetHz, true},
    {"sampler", "NAME", "auto, ebpf, perf or ptrace; auto takes the first that is allowed (auto)",
     Shape::kOne, SetSampler, true},
    {"window", "DURATION", "How much time one upload covers: 500ms, 10s, 1m (10s)", Shape::kOne,
     SetWindow, true},
    {"spool", "DIR", "Windows that wait for the server, and the agent's id", Shape::kOne,
     SetText<&AgentConfig::spool_directory>},
    {"spool-max-bytes", "BYTES", "Bound of the spool, the oldest is dropped (256MiB)", Shape::kOne,
     SetSpoolMaxBytes},
    {"cache", "DIR", "Symbol indexes by build id", Shape::kOne,
     SetText<&AgentConfig::cache_directory>},
    {"lines", "on|off", "Files, lines and inlined functions, from debug information (on)",
     Shape::kOne, SetLines},
    {"debuginfo-server", "URL",
     "Send debug information of sampled files, without code, to this server's HTTP address (off)",
     Shape::kOne, SetText<&AgentConfig::debuginfo_server>},
    {"memory-limit", "BYTES", "Bound of the agent's heap and BPF maps together (64MiB)",
     Shape::kOne, SetMemoryLimit},
    {"label", "NAME=VALUE", "Added to every profile; may be repeated", Shape::kPairs, AddLabel},
    {"service", "NAME", "The service of every process here, instead of what is discovered",
     Shape::kOne, SetText<&AgentConfig::service>},
    {"node", "NAME", "The node's name (host name)", Shape::kOne, SetText<&AgentConfig::node>},
    {"cgroup", "PATH", "Only processes of this cgroup; may be repeated", Shape::kList, AddCgroup,
     true},
    {"pid", "PID", "Only this process and its children; may be repeated", Shape::kList, AddPid,
     true},
    {"modules", "NAMES", "What runs, separated by commas; --help lists them below", Shape::kOne,
     SetModules},
    {"budget", "PERCENT",
     "Of the machine's CPU time, for everything together; an explicit --hz is lowered only with it "
     "(1)",
     Shape::kOne, SetBudget},
    {"replay", "FILE", "Read recorded events instead of the kernel's, then end", Shape::kOne,
     SetText<&AgentConfig::replay_path>},
    {"record-events", "FILE", "Also write every event to FILE, for --replay", Shape::kOne,
     SetText<&AgentConfig::record_events_path>, true},
    {"insecure", "", "Allow a page outside loopback, without TLS", Shape::kSwitch, SetInsecure},
    {"log-level", "LEVEL", "trace, debug, info, warn or error (info)", Shape::kOne, SetLogLevel},
}};

// A flag's list replaces the file's; labels of both are joined, the flag's win.
void Clear(AgentConfig* config, std::string_view name) {
  if (name == "pid") config->pids.clear();
  if (name == "cgroup") config->cgroups.clear();
}

std::string_view NearestKey(const AgentConfig& config, std::string_view key, bool of_cpu) {
  std::vector<std::string_view> names;
  for (const Setting& setting : kSettings) {
    if (!of_cpu || setting.of_cpu) names.emplace_back(setting.name);
  }
  if (!of_cpu) names.insert(names.end(), config.known_modules.begin(), config.known_modules.end());
  return NearestWord(key, names);
}

const Setting* FindSetting(std::string_view key) {
  const auto* found = std::find_if(kSettings.begin(), kSettings.end(),
                                   [key](const Setting& known) { return key == known.name; });
  return found == kSettings.end() ? nullptr : found;
}

// --- the file ------------------------------------------------------------------------------------

// The texts of one key: a scalar, a list of scalars, or a map for labels.
absl::StatusOr<std::vector<std::string>> Texts(const Setting& setting, const ConfigNode& node) {
  std::vector<std::string> texts;
  if (node.kind() == ConfigNode::Kind::kScalar) {
    texts.push_back(node.text());
  } else if (node.kind() == ConfigNode::Kind::kList && setting.shape != Shape::kSwitch) {
    std::string joined;
    for (const ConfigNode& item : node.items()) {
      if (item.kind() != ConfigNode::Kind::kScalar) {
        return base::InvalidArgument("a list of plain values is expected");
      }
      joined += (joined.empty() ? "" : ",") + item.text();
      texts.push_back(item.text());
    }
    if (setting.shape == Shape::kOne) texts = {joined};
  } else if (!node.entries().empty() && setting.shape == Shape::kPairs) {
    for (const ConfigEntry& pair : node.entries()) {
      if (pair.value.kind() != ConfigNode::Kind::kScalar) {
        return base::InvalidArgument("NAME: VALUE is expected");
      }
      texts.push_back(pair.key + "=" + pair.value.text());
    }
  } else {
    return base::InvalidArgument("a plain value is expected");
  }
  return texts;
}

absl::Status ApplySetting(AgentConfig* config, const Setting& setting, const ConfigNode& value) {
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, Texts(setting, value));
  for (const std::string& text : texts) {
    RETURN_IF_ERROR(base::Annotate(setting.set(config, text), setting.name));
  }
  if (setting.of_cpu) {
    ConfigSection& cpu = config->sections["cpu"];
    if (const ConfigNode* other = cpu.Find(setting.name); other != nullptr) {
      return base::InvalidArgument("\"{}\" is given twice, first at {}", setting.name,
                                   other->Place());
    }
    cpu = cpu.With(setting.name, value);
  } else {
    config->given[setting.name] = texts;
  }
  return absl::OkStatus();
}

absl::Status ApplySection(AgentConfig* config, const ConfigEntry& section) {
  if (section.value.kind() != ConfigNode::Kind::kMap) {
    return base::InvalidArgument("{}: {}: KEY: VALUE lines are expected", section.value.Place(),
                                 section.key);
  }
  if (section.key != "cpu") {
    config->sections[section.key] = section.value;
    return absl::OkStatus();
  }
  for (const ConfigEntry& entry : section.value.entries()) {
    const Setting* setting = FindSetting(entry.key);
    if (setting == nullptr || !setting->of_cpu) {
      return base::InvalidArgument("{}: unknown key \"{}\" in cpu; did you mean \"{}\"?",
                                   entry.value.Place(), entry.key,
                                   NearestKey(*config, entry.key, true));
    }
    RETURN_IF_ERROR(
        base::Annotate(ApplySetting(config, *setting, entry.value), entry.value.Place()));
  }
  return absl::OkStatus();
}

absl::Status ApplyFile(AgentConfig* config, const std::string& path) {
  ASSIGN_OR_RETURN(const ConfigNode root, ReadConfigFile(path));
  if (!root.present()) return absl::OkStatus();  // only comments
  if (root.kind() != ConfigNode::Kind::kMap) {
    return base::InvalidArgument("{}: KEY: VALUE lines are expected", path);
  }
  for (const ConfigEntry& entry : root.entries()) {
    if (std::ranges::find(config->known_modules, entry.key) != config->known_modules.end()) {
      RETURN_IF_ERROR(ApplySection(config, entry));
      continue;
    }
    const Setting* setting = FindSetting(entry.key);
    if (setting == nullptr) {
      return base::InvalidArgument("{}: unknown key \"{}\"; did you mean \"{}\"?",
                                   entry.value.Place(), entry.key,
                                   NearestKey(*config, entry.key, false));
    }
    RETURN_IF_ERROR(
        base::Annotate(ApplySetting(config, *setting, entry.value), entry.value.Place()));
  }
  return absl::OkStatus();
}

// --- flags ---------------------------------------------------------------------------------------

using FlagTexts = std::map<std::string, std::vector<std::string>>;

// Fills `texts` with what was given. A message (help, version) ends the program.
absl::StatusOr<std::string> ReadFlags(int argc, const char* const* argv,
                                      std::span<const KnownModule> modules, FlagTexts* texts) {
  CLI::App app("Samples every process of this machine and sends profiles to a firewatch-server.",
               "firewatch-agent");
  app.set_version_flag("--version", "firewatch-agent " FIREWATCH_VERSION "\n");
  std::string footer = "Modules:";
  for (const KnownModule& module : modules) {
    footer += fmt::format("{} {}{}", &module == modules.data() ? "" : ",", module.name,
                          module.on_by_default ? " (on)" : " (off)");
  }
  app.footer(footer + "\nSIGHUP reads the file again.");
  for (const Setting& setting : kSettings) {
    const std::string flag = std::string("--") + setting.name;
    std::vector<std::string>& target = (*texts)[setting.name];
    if (setting.shape == Shape::kSwitch) {
      app.add_flag_callback(flag, [&target] { target = {"true"}; }, setting.help);
      continue;
    }
    CLI::Option* option = app.add_option(flag, target, setting.help)->type_name(setting.value);
    const bool repeats = setting.shape == Shape::kList || setting.shape == Shape::kPairs;
    option->expected(1)->multi_option_policy(repeats ? CLI::MultiOptionPolicy::TakeAll
                                                     : CLI::MultiOptionPolicy::TakeLast);
  }
  app.add_option("--config", (*texts)[std::string(kFileKey)], "YAML file; flags win over it")
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

absl::Status ApplyFlags(AgentConfig* config, const FlagTexts& flags) {
  for (const Setting& setting : kSettings) {
    const std::vector<std::string>& texts = flags.at(setting.name);
    if (texts.empty()) continue;
    Clear(config, setting.name);
    const std::string flag = fmt::format("--{}", setting.name);
    std::vector<ConfigNode> nodes;
    for (const std::string& text : texts) {
      RETURN_IF_ERROR(base::Annotate(setting.set(config, text), flag));
      nodes.push_back(ConfigNode::Scalar(text, flag));
    }
    if (setting.of_cpu) {
      ConfigNode value = setting.shape == Shape::kList ? ConfigNode::List(std::move(nodes), flag)
                                                       : std::move(nodes.back());
      ConfigSection& cpu = config->sections["cpu"];
      cpu = cpu.With(setting.name, std::move(value));
    } else {
      config->given[setting.name] = texts;
    }
  }
  return absl::OkStatus();
}

// --- defaults of this machine --------------------------------------------------------------------

std::string HostName() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

// Without root the system's directories are closed.
std::string DefaultDirectory(const char* for_root, const char* variable, const char* below_home) {
  if (::geteuid() == 0) return for_root;
  if (const char* base = std::getenv(variable); base != nullptr && base[0] == '/') {
    return std::string(base) + "/firewatch";
  }
  const char* home = std::getenv("HOME");
  return fmt::format("{}/{}/firewatch", home == nullptr ? "/tmp" : home, below_home);
}

AgentConfig Defaults() {
  AgentConfig config;
  config.node = HostName();
  config.spool_directory =
      DefaultDirectory("/var/lib/firewatch/agent", "XDG_STATE_HOME", ".local/state");
  config.cache_directory = DefaultDirectory("/var/cache/firewatch", "XDG_CACHE_HOME", ".cache");
  return config;
}

}  // namespace

absl::StatusOr<AgentConfig> ParseAgentConfig(int argc, const char* const* argv,
                                             std::span<const KnownModule> modules) {
  AgentConfig config = Defaults();
  for (const KnownModule& module : modules) {
    config.known_modules.push_back(module.name);
    if (module.on_by_default) config.modules.push_back(module.name);
  }
  FlagTexts flags;
  ASSIGN_OR_RETURN(config.message, ReadFlags(argc, argv, modules, &flags));
  if (!config.message.empty()) return config;
  if (const auto& path = flags[std::string(kFileKey)]; !path.empty()) {
    config.config_path = path.back();
    RETURN_IF_ERROR(ApplyFile(&config, config.config_path));
  }
  RETURN_IF_ERROR(ApplyFlags(&config, flags));
  return config;
}

}  // namespace firewatch::agent
