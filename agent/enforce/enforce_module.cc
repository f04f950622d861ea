// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/enforce_module.h"

#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "agent/enforce/rules_file.h"
#include "base/status.h"

namespace firewatch::agent {

struct EnforceModule::Shared {
  mutable base::Mutex mutex;
  std::shared_ptr<Enforcer> enforcer ABSL_GUARDED_BY(mutex);

  std::shared_ptr<Enforcer> Get() const ABSL_LOCKS_EXCLUDED(mutex) {
    const base::MutexLock lock(mutex);
    return enforcer;
  }
};

namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;

struct InterfaceConfig {
  std::string interface, rules_path;
  RuleSet rules;
  LoadOptions options;
};
struct EnforceConfig {
  std::string pin_directory = EnforcerOptions().pin_directory;
  uint32_t loads_per_second = EnforcerOptions().loads_per_second;
  std::vector<InterfaceConfig> interfaces;
};

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error) ||
      std::filesystem::file_size(path, error) > kMaxFileBytes) {
    return base::InvalidArgument("{}: is no file of at most {} MiB", path, kMaxFileBytes >> 20);
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return base::InvalidArgument("{}: cannot be read", path);
  return std::move(text).str();
}

absl::Status ReadInterface(const ConfigNode& node, EnforceConfig* config) {
  InterfaceConfig out;
  ConfigReader reader(node, "enforce.interfaces");
  reader.Text("name", &out.interface);
  reader.Text("rules", &out.rules_path);
  reader.Bool("dry_run", &out.options.dry_run);
  reader.Bool("allow_default_route", &out.options.allow_default_route);
  reader.Bool("replace", &out.options.replace);
  constexpr std::array<std::string_view, 4> kModes = {"auto", "native", "generic", "tc"};
  std::string mode = "auto";
  reader.OneOf("mode", kModes, &mode);
  if (out.interface.empty()) reader.Fail("name", "an interface must be named");
  if (out.rules_path.empty()) reader.Fail("rules", "a file of rules must be named");
  RETURN_IF_ERROR(reader.Finish());
  ASSIGN_OR_RETURN(out.options.mode, ParseAttachMode(mode));
  out.options.source = out.rules_path;
  ASSIGN_OR_RETURN(const std::string text, ReadFile(out.rules_path));
  // Lists stand beside the rules that name them.
  const std::filesystem::path folder = std::filesystem::path(out.rules_path).parent_path();
  ASSIGN_OR_RETURN(out.rules, ParseRules(text, out.rules_path, [&folder](const std::string& list) {
                     return ReadFile((folder / list).string());
                   }));
  config->interfaces.push_back(std::move(out));
  return absl::OkStatus();
}

absl::StatusOr<EnforceConfig> ReadConfig(const ConfigSection& section) {
  EnforceConfig out;
  ConfigReader reader(section, "enforce");
  reader.Text("pin_directory", &out.pin_directory);
  reader.Integer("loads_per_second", 0u, 10'000u, &out.loads_per_second);
  reader.Node("interfaces", [&out](const ConfigNode& node) -> absl::Status {
    if (node.kind() != ConfigNode::Kind::kList) {
      return base::InvalidArgument("enforce.interfaces is a list");
    }
    for (const ConfigNode& item : node.items()) RETURN_IF_ERROR(ReadInterface(item, &out));
    return absl::OkStatus();
  });
  RETURN_IF_ERROR(reader.Finish());
  return out;
}

absl::Status LoadAll(const EnforceConfig& config, Enforcer& enforcer) {
  for (const InterfaceConfig& interface : config.interfaces) {
    RETURN_IF_ERROR(
        enforcer.LoadWhenThere(interface.interface, interface.rules, interface.options));
  }
  return absl::OkStatus();
}

using Series = base::MetricsRegistry::Series;

// One series per interface, rule and what was done.
Series RuleSeries(const std::shared_ptr<Enforcer>& enforcer, bool bytes) {
  Series out;
  if (enforcer == nullptr) return out;
  for (const FirewallState& state : enforcer->States()) {
    for (const LoadedRule& rule : state.rules) {
      const fw_rule_counts& counts = rule.counts;
      const std::pair<const char*, uint64_t> kinds[] = {
          {"matched", bytes ? counts.bytes : counts.packets},
          {"dropped", bytes ? counts.dropped_bytes : counts.dropped_packets},
          {"would_drop", bytes ? counts.would_drop_bytes : counts.would_drop_packets}};
      for (const auto& [kind, value] : kinds) {
        out.emplace_back(
            base::MetricLabels{
                {"interface", state.interface}, {"rule", rule.name}, {"result", kind}},
            static_cast<double>(value));
      }
    }
  }
  return out;
}

Series OutcomeSeries(const std::shared_ptr<Enforcer>& enforcer) {
  static constexpr const char* kNames[] = {
#define FW_NAME(constant, name, text) name,
      FW_FIREWALL_COUNTS(FW_NAME)
#undef FW_NAME
  };
  Series out;
  if (enforcer == nullptr) return out;
  for (const FirewallState& state : enforcer->States()) {
    for (size_t i = 0; i < FW_FIREWALL_COUNT; ++i) {
      if (i == FW_FIREWALL_SEEN_BYTES) continue;
      out.emplace_back(base::MetricLabels{{"interface", state.interface}, {"outcome", kNames[i]}},
                       static_cast<double>(state.counts[i]));
    }
  }
  return out;
}

}  // namespace

EnforceModule::EnforceModule() : shared_(std::make_shared<Shared>()) {}
EnforceModule::~EnforceModule() = default;

std::shared_ptr<Enforcer> EnforceModule::Running() const { return shared_->Get(); }

ModuleNeeds EnforceModule::Needs() const {
  ModuleNeeds out{.bpf_object = "bpf/enforce_xdp.bpf.c", .needs = {}};
  const int xdp = ::libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_XDP, nullptr);
  out.needs.push_back({.name = "XDP programs",
                       .available = xdp == 1,
                       .detail = xdp == 1 ? "may be loaded" : "may not be loaded",
                       .remedy = xdp == 1 ? "" : "needs root, or CAP_BPF and CAP_NET_ADMIN"});
  const int ring = ::libbpf_probe_bpf_map_type(BPF_MAP_TYPE_RINGBUF, nullptr);
  out.needs.push_back({.name = "BPF ring buffer",
                       .available = ring == 1,
                       .detail = ring == 1 ? "may be made" : "may not be made",
                       .remedy = ring == 1 ? "" : "needs Linux 5.8"});
  const int length =
      ::libbpf_probe_bpf_helper(BPF_PROG_TYPE_XDP, BPF_FUNC_xdp_get_buff_len, nullptr);
  out.needs.push_back(
      {.name = "XDP for frames of several pages",
       .required = false,
       .available = length == 1,
       .detail = length == 1 ? "there" : "needs Linux 5.18: large MTUs go generic"});
  return out;
}

absl::Status EnforceModule::CheckConfig(const ConfigSection& section) const {
  return ReadConfig(section).status();
}

absl::Status EnforceModule::Start(const ConfigSection& section, ModuleContext& context) {
  ASSIGN_OR_RETURN(const EnforceConfig config, ReadConfig(section));
  EnforcerOptions options;
  options.pin_directory = config.pin_directory;
  options.loads_per_second = config.loads_per_second;
  if (context.memory_limit_bytes > 0) {
    // Two generations are there while one takes the other's place.
    options.max_image_bytes = std::max(context.memory_limit_bytes / 2, uint64_t{4} << 20);
  }
  options.run_thread = [&context](const std::function<void()>& body) {
    const ThreadMeter::Scope scope(context.threads);
    body();
  };
  ASSIGN_OR_RETURN(std::shared_ptr<Enforcer> enforcer,
                   Enforcer::Start(std::move(options), context.clock));
  RETURN_IF_ERROR(LoadAll(config, *enforcer));
  {
    const base::MutexLock lock(shared_->mutex);
    shared_->enforcer = std::move(enforcer);
  }
  if (has_metrics_) return absl::OkStatus();
  has_metrics_ = true;
  context.metrics.AddSeries("firewatch_enforce_rule_packets_total",
                            "Packets that met a rule of the firewall, by what was done", "counter",
                            [shared = shared_] { return RuleSeries(shared->Get(), false); });
  context.metrics.AddSeries("firewatch_enforce_rule_bytes_total",
                            "Bytes of frames that met a rule of the firewall", "counter",
                            [shared = shared_] { return RuleSeries(shared->Get(), true); });
  context.metrics.AddSeries("firewatch_enforce_packets_total",
                            "Packets on interfaces with a firewall, by what became of them",
                            "counter", [shared = shared_] { return OutcomeSeries(shared->Get()); });
  context.metrics.AddSeries(
      "firewatch_enforce_refused_loads_total", "Sets of rules that came faster than they may",
      "counter", [shared = shared_] {
        const auto enforcer = shared->Get();
        Series out;
        if (enforcer != nullptr) {
          out.emplace_back(base::MetricLabels{}, static_cast<double>(enforcer->refused_loads()));
        }
        return out;
      });
  return absl::OkStatus();
}

absl::Status EnforceModule::Reconfigure(const ConfigSection& section) {
  ASSIGN_OR_RETURN(const EnforceConfig config, ReadConfig(section));
  const auto enforcer = Running();
  enforcer->SetLoadsPerSecond(config.loads_per_second);
  return LoadAll(config, *enforcer);
}

void EnforceModule::Stop() {
  std::shared_ptr<Enforcer> enforcer;
  const base::MutexLock lock(shared_->mutex);
  enforcer = std::move(shared_->enforcer);
  shared_->enforcer.reset();
}

ModuleUsage EnforceModule::Usage() const {
  ModuleUsage out;
  const auto enforcer = Running();
  if (enforcer == nullptr) return out;
  for (const FirewallState& state : enforcer->States()) {
    out.bpf_run_ns += state.run_time_ns;
    out.map_bytes += state.map_bytes + state.image_bytes;
  }
  return out;
}

ModuleReport EnforceModule::Report() const {
  ModuleReport out;
  const auto enforcer = Running();
  if (enforcer == nullptr) return {.state = ModuleState::kOff, .why = "stopped"};
  std::vector<std::string> problems = enforcer->Problems();
  nlohmann::json details = {{"interfaces", nlohmann::json::array()}};
  for (const FirewallState& state : enforcer->States()) {
    details["interfaces"].push_back({{"interface", state.interface},
                                     {"attached", state.attached},
                                     {"mode", AttachModeName(state.mode)},
                                     {"generation", state.generation},
                                     {"dry_run", state.dry_run},
                                     {"rules", state.rules.size()},
                                     {"dropped", state.counts[FW_FIREWALL_DROPPED]}});
    if (!state.attached) problems.push_back(fmt::format("{}: {}", state.interface, state.note));
  }
  if (!problems.empty()) {
    out.state = ModuleState::kDegraded;
    out.why = fmt::format("{}", fmt::join(problems, "; "));
  }
  out.details_json = details.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return out;
}

std::optional<transport::HttpResponse> EnforceModule::Handle(
    const transport::HttpRequest& request) {
  const auto enforcer = Running();
  return enforcer == nullptr ? std::nullopt : enforcer->Handle(request);
}

}  // namespace firewatch::agent
