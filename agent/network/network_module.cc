// SPDX-License-Identifier: Apache-2.0
#include "agent/network/network_module.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <utility>

#include "agent/network/connections_uploader.h"
#include "agent/network/kernel_names.h"
#include "base/status.h"
#include "transport/json_writer.h"

namespace firewatch::agent {
namespace {

constexpr std::string_view kPath = "/api/v1/connections";

bool IsNameOf(std::string_view path, const fw_net_process& captured) {
  const std::string_view name = captured.exe_name;
  const std::string_view last = path.substr(path.rfind('/') + 1);
  // The kernel side keeps the first bytes of a long name.
  return last == name || (name.size() + 1 >= sizeof(captured.exe_name) && last.starts_with(name));
}

// The path where the directory knows one that ends in the name the kernel gave; else that name.
std::string ExeOf(const fw_net_process& captured, const std::string& path) {
  const std::string_view name = captured.exe_name;
  return name.empty() || IsNameOf(path, captured) ? path : std::string(name);
}

NetworkProcess Describe(ProcessDirectory& processes, const fw_net_process& captured) {
  NetworkProcess process;
  process.pid = captured.pid;
  process.comm = captured.comm;
  const auto info = processes.Find(
      Pid{captured.pid}, {.time_ns = 0, .comm = captured.comm, .cgroup_id = captured.cgroup_id});
  process.exe = ExeOf(captured, info ? info->exe_path : "");
  if (!info) {
    if (!process.exe.empty()) {
      process.labels = processes.LabelsOf(process.exe, process.comm, captured.cgroup_id);
    }
    return process;
  }
  if (process.comm.empty()) process.comm = info->comm;
  // Where the program is another by now, its service is, too; of a container it is the container's.
  const bool same = info->exe_path.empty() || process.exe == info->exe_path;
  const std::string_view container = info->labels->Get("container_id");
  if (same || !container.empty()) process.service = info->labels->Get("service");
  process.container_id = info->labels->Get("container_id");
  const bool labelled =
      captured.exe_name[0] == '\0' || IsNameOf(info->labels->Get("exe"), captured);
  process.labels =
      labelled ? info->labels
               : processes.LabelsOf(process.exe, process.comm,
                                    captured.cgroup_id != 0 ? captured.cgroup_id : info->cgroup_id);
  return process;
}

absl::Status AddNamespace(const std::string& text, std::vector<uint32_t>* out) {
  uint32_t inode = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), inode);
  if (error != std::errc() || end != text.data() + text.size() || inode == 0) {
    return base::InvalidArgument("{} is not an inode number (ls -i /proc/PID/ns/net)", text);
  }
  if (out->size() >= 8) return base::InvalidArgument("at most 8 can be named");
  out->push_back(inode);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NetworkConfig> ParseNetworkConfig(const ConfigSection& section) {
  NetworkConfig config;
  NetworkMonitorOptions& monitor = config.monitor;
  ConfigReader reader(section, "network");
  reader.Duration("interval", 100, 600'000, &monitor.report_interval_ms);
  reader.Duration("window", 1'000, 1'800'000, &monitor.window_ms);
  reader.Integer("max-connections", 1'024u, 4'194'304u, &monitor.probe.max_sockets);
  reader.Integer("events-per-second", 0u, 1'000'000u, &monitor.probe.events_per_second);
  reader.Integer("follow-per-second", 0u, 1'000'000u, &monitor.probe.follow_per_second);
  reader.Bool("drops", &monitor.drops);
  static constexpr std::string_view kHooks[] = {"tracepoint", "kprobe"};
  std::string hook(kHooks[0]);
  reader.OneOf("retransmits-by", kHooks, &hook);
  monitor.probe.retransmits_by_kprobe = hook == kHooks[1];
  reader.Texts("network-namespaces", [&](const std::string& text) {
    return AddNamespace(text, &monitor.probe.network_namespaces);
  });
  reader.Bool("connections-need-token", &config.connections_need_token);
  uint64_t programs = config.metrics.top_programs;
  uint64_t peers = config.metrics.top_peers;
  reader.Integer("top-programs", 0, 10'000, &programs);
  reader.Integer("top-peers", 0, 10'000, &peers);
  RETURN_IF_ERROR(reader.Finish());
  config.metrics.top_programs = programs;
  config.metrics.top_peers = peers;
  monitor.table.max_tracked = monitor.probe.max_sockets;
  return config;
}

ModuleNeeds NetworkModule::Needs() const {
  ModuleNeeds needs{.bpf_object = "bpf/network.bpf.c", .needs = {}};
  const auto names = KernelNames::Load();
  needs.needs.push_back({.name = "type information",
                         .available = names.ok(),
                         .detail = names.ok() ? "/sys/kernel/btf/vmlinux"
                                              : std::string(base::Message(names.status())),
                         .remedy = "a kernel with CONFIG_DEBUG_INFO_BTF"});
  if (!names.ok()) return needs;
  struct Hook {
    const char* name;
    bool required;
    uint32_t arguments;  // fewer: a part of the signal is missing
    const char* remedy;
  };
  for (const Hook& hook :
       {Hook{"inet_sock_set_state", true, 3, ""}, Hook{"tcp_destroy_sock", true, 1, ""},
        Hook{"tcp_retransmit_skb", false, 2, ""}, Hook{"tcp_retransmit_synack", false, 2, ""},
        Hook{"tcp_receive_reset", false, 1, ""},
        Hook{"tcp_send_reset", false, 3, "reasons of resets: Linux 6.10"},
        Hook{"kfree_skb", false, 4, "reasons of drops: Linux 5.17, their processes: 6.11"}}) {
    const auto arguments = (*names)->TracepointArguments(hook.name);
    needs.needs.push_back(
        {.name = fmt::format("tracepoint {}", hook.name),
         .required = hook.required,
         .available = arguments.value_or(0) >= hook.arguments,
         .detail = arguments ? fmt::format("{} arguments", *arguments) : "not in this kernel",
         .remedy = hook.remedy});
  }
  return needs;
}

absl::Status NetworkModule::CheckConfig(const ConfigSection& section) const {
  return ParseNetworkConfig(section).status();
}

absl::Status NetworkModule::Start(const ConfigSection& section, ModuleContext& context) {
  ASSIGN_OR_RETURN(NetworkConfig config, ParseNetworkConfig(section));
  auto metrics = NetworkMetrics::Register(config.metrics, context.metrics);
  const auto uploader = std::make_shared<ConnectionsUploader>(
      ConnectionsUploaderOptions{.node = context.node,
                                 .upload = context.upload,
                                 .nobody = context.processes.LabelsOf("", "", 0),
                                 .others = context.processes.LabelsOf("", "other", 0)},
      context.clock, context.metrics);
  ASSIGN_OR_RETURN(monitor_,
                   NetworkMonitor::Start(
                       std::move(config.monitor), context.clock, metrics,
                       [&context](const fw_net_process& captured) {
                         return Describe(context.processes, captured);
                       },
                       [&context](const std::function<void()>& body) {
                         ::prctl(PR_SET_NAME, "network");
                         const ThreadMeter::Scope scope(context.threads);
                         body();
                       },
                       [uploader](NetworkMonitor& monitor) {
                         uploader->Send([&monitor](const auto& take) { monitor.TakeRecent(take); });
                       }));
  metrics_ = std::move(metrics);
  connections_need_token_ = config.connections_need_token;
  return absl::OkStatus();
}

absl::Status NetworkModule::Reconfigure(const ConfigSection& section) {
  RETURN_IF_ERROR(CheckConfig(section));
  return base::MakeStatus(absl::StatusCode::kUnimplemented,
                          "the TCP probe takes new settings by a new start");
}

void NetworkModule::Stop() {
  if (monitor_ != nullptr) bpf_run_ns_before_ += monitor_->bpf_run_ns();
  monitor_.reset();
}

absl::Status NetworkModule::CheckHealth() {
  return monitor_ == nullptr ? absl::OkStatus() : monitor_->health();
}

ModuleUsage NetworkModule::Usage() const {
  ModuleUsage usage{.bpf_run_ns = bpf_run_ns_before_};
  if (monitor_ == nullptr) return usage;
  usage.bpf_run_ns += monitor_->bpf_run_ns();
  usage.kernel_events = monitor_->kernel_events();
  usage.map_bytes = monitor_->map_bytes();
  usage.heap_bytes = monitor_->heap_bytes();
  return usage;
}

void NetworkModule::SetDetail(int level) {
  if (monitor_ != nullptr) monitor_->SetDetail(level);
}

ModuleReport NetworkModule::Report() const {
  if (monitor_ == nullptr) return {.state = ModuleState::kOff, .why = "not started"};
  const std::vector<std::string> missing = monitor_->missing();
  ModuleReport report;
  if (!missing.empty()) {
    report.state = ModuleState::kDegraded;
    report.why = missing.front();
    if (missing.size() > 1) report.why += fmt::format(" (and {} more)", missing.size() - 1);
  }
  if (std::string storm = monitor_->storm(); !storm.empty()) {
    report.state = ModuleState::kDegraded;
    report.why = std::move(storm);
  }
  transport::JsonWriter json;
  json.BeginObject();
  json.StringArray("missing", missing);
  json.Key("programs").BeginArray();
  for (const BpfProgramStats& program : monitor_->ProgramStats()) {
    json.BeginObject().Key("name").Value(program.name);
    json.Key("verified_instructions").Value(program.verified_instructions);
    json.Key("runs").Value(program.run_count).Key("ns").Value(program.run_time_ns).EndObject();
  }
  report.details_json = std::move(json.EndArray().EndObject()).Take();
  return report;
}

bool NetworkModule::NeedsToken(const transport::HttpRequest& request) const {
  return connections_need_token_ && request.path == kPath;
}

std::optional<transport::HttpResponse> NetworkModule::Handle(
    const transport::HttpRequest& request) {
  if (request.path != kPath || monitor_ == nullptr) return std::nullopt;
  if (request.method != "GET" && request.method != "HEAD") {
    return transport::ErrorResponse(405, "only GET");
  }
  return monitor_->Connections(request);
}

}  // namespace firewatch::agent
