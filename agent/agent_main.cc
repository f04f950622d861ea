// SPDX-License-Identifier: Apache-2.0
#include "agent/agent_main.h"

#include <fmt/format.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/core/bpf_info.h"
#include "agent/core/config.h"
#include "agent/core/memory.h"
#include "agent/core/module_host.h"
#include "agent/core/process_directory.h"
#include "agent/core/process_table.h"
#include "agent/core/write_token.h"
#include "agent/cpu/features.h"
#include "agent/debug_info_uploader.h"
#include "agent/health.h"
#include "agent/self_metrics.h"
#include "agent/upload/uploader.h"
#include "agent/window_request.h"
#include "base/clock.h"
#include "base/logging.h"
#include "base/metrics.h"
#include "base/status.h"
#include "symbolizer/symbolizer.h"
#include "transport/address.h"
#include "transport/http_server.h"

namespace firewatch::agent {
namespace {

// How often modules are looked after. A look costs 0.1 to 0.2 ms, most of it cold caches.
constexpr uint64_t kTickNs = 2'000'000'000;
constexpr uint64_t kCalmTickNs = 5'000'000'000;

// What the handlers tell the loop. The descriptor is set before they are installed.
std::atomic<int> g_signal_event{-1};
std::atomic<bool> g_stop{false};
std::atomic<bool> g_reload{false};

void OnSignal(int number) {
  const int saved_errno = errno;
  (number == SIGHUP ? g_reload : g_stop) = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(g_signal_event.load(), &one, sizeof(one));
  errno = saved_errno;
}

absl::StatusOr<base::UniqueFd> ListenToSignals() {
  base::UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return base::ErrnoStatus(errno, "eventfd");
  g_signal_event = event.get();
  struct sigaction action{};
  action.sa_handler = OnSignal;
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) ::sigaction(number, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return event;
}

// One line per thing that is missing, in the words of `firewatch doctor`.
void LogMissingFeatures() {
  for (const Feature& feature : ProbeFeatures()) {
    if (feature.available || feature.need == FeatureNeed::kInfo) continue;
    spdlog::warn("{}: {}{}{}", feature.name, feature.detail, feature.remedy.empty() ? "" : "; ",
                 feature.remedy);
  }
}

ModuleSettings SettingsOf(const AgentConfig& config) {
  return {.enabled = config.modules,
          .sections = config.sections,
          .budget = config.budget_percent / 100,
          .explicit_budget = config.explicit_budget,
          .memory_bytes = config.memory_limit_bytes};
}

LabelOptions LabelsOf(const AgentConfig& config) {
  return {.node = config.node, .service = config.service, .extra = config.labels, .state_root = ""};
}

// What the command line and the file say, and said at the start.
class Reloader {
 public:
  Reloader(int argc, char** argv, std::vector<KnownModule> known, const AgentConfig& config,
           base::MetricsRegistry& metrics)
      : argc_(argc),
        argv_(argv),
        known_(std::move(known)),
        given_(config.given),
        done_(metrics.AddCounter("firewatch_agent_config_reloads_total",
                                 "Times that SIGHUP had the configuration read again.",
                                 {{"result", "done"}})),
        refused_(metrics.AddCounter("firewatch_agent_config_reloads_total",
                                    "Times that SIGHUP had the configuration read again.",
                                    {{"result", "refused"}})) {}

  // A file that is wrong anywhere changes nothing.
  void Reload(ModuleHost& host) {
    auto config = ParseAgentConfig(argc_, argv_, known_);
    absl::Status status = config.status();
    if (config.ok()) status = host.CheckConfig(SettingsOf(*config));
    if (!status.ok()) {
      refused_.Add();
      spdlog::error("reload refused, the running configuration stays: {}", base::Message(status));
      return;
    }
    for (const auto& [key, texts] : config->given) NoteIfFixed(key, texts);
    for (const auto& [key, texts] : given_) {
      if (!config->given.contains(key)) NoteIfFixed(key, {});
    }
    base::SetupLogging(config->log_level);
    status = host.Reload(SettingsOf(*config));
    if (status.ok()) {
      done_.Add();
      spdlog::info("configuration reloaded");
    } else {
      refused_.Add();
      spdlog::error("reload refused in part: {}", base::Message(status));
    }
  }

 private:
  void NoteIfFixed(const std::string& key, const std::vector<std::string>& texts) const {
    if (key == "modules" || key == "budget" || key == "log-level") return;
    const auto before = given_.find(key);
    if (before == given_.end() ? texts.empty() : before->second == texts) return;
    spdlog::warn("\"{}\" is changed in the configuration: that needs a restart", key);
  }

  const int argc_;
  char** const argv_;
  const std::vector<KnownModule> known_;
  const std::map<std::string, std::vector<std::string>> given_;
  base::Counter& done_;
  base::Counter& refused_;
};

// Hands windows to the uploader; what does not even reach the spool is counted and said.
void Deliver(ClosedWindow window, const AgentConfig& config, Health& health,
             std::span<const ModuleView> modules, const CpuModuleOptions::Upload& upload) {
  health.WindowClosed(window);
  health.SetSampler(window.sampler, window.sampler_note);
  auto request = MakeUploadRequest(window, config.node);
  absl::Status status = request.status();
  if (request.ok()) {
    AddModules(modules, &*request);
    status = upload(*std::move(request));
  }
  if (!status.ok()) spdlog::error("window not spooled: {}", base::Message(status));
}

// Until a signal says stop.
void Watch(const base::UniqueFd& signals, ModuleHost& host, Reloader& reloader,
           const base::Clock& clock) {
  uint64_t next_ns = clock.MonotonicNs() + kTickNs;
  while (!g_stop) {
    if (g_reload.exchange(false)) reloader.Reload(host);
    const uint64_t now_ns = clock.MonotonicNs();
    if (now_ns >= next_ns) {
      host.Tick();
      next_ns = now_ns + (host.calm() ? kCalmTickNs : kTickNs);
    }
    pollfd wait{.fd = signals.get(), .events = POLLIN, .revents = 0};
    const uint64_t left_ms = (next_ns - std::min(next_ns, clock.MonotonicNs())) / 1'000'000 + 1;
    if (::poll(&wait, 1, static_cast<int>(left_ms)) > 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(signals.get(), &count, sizeof(count));
    }
  }
}

absl::Status RunReplayed(const AgentConfig& config, Uploader& uploader, Health& health,
                         base::MetricsRegistry& metrics) {
  ASSIGN_OR_RETURN(
      const auto symbolizer,
      symbolizer::Symbolizer::Create(
          {.cache_directory = config.cache_directory, .lines = config.lines}, metrics));
  ProcessTableOptions options;
  options.node = config.node;
  options.service = config.service;
  options.extra_labels = config.labels;
  // A replay must give the same answer on every machine: no process of this one may show in it.
  options.proc_root = "/nonexistent";
  ProcessTable table(std::move(options), *symbolizer, metrics);
  ASSIGN_OR_RETURN(const uint64_t samples,
                   RunReplay(config.replay_path, config.window_ms, WindowOptions(), table,
                             *symbolizer, metrics, [&](ClosedWindow window) {
                               Deliver(std::move(window), config, health, {},
                                       [&uploader](ingest::UploadWindowRequest request) {
                                         return uploader.Submit(std::move(request));
                                       });
                             }));
  spdlog::info("replayed {} samples", samples);
  return absl::OkStatus();
}

absl::Status Run(const AgentConfig& config, const MakeModulesFunction& make_modules,
                 const std::function<Reloader(base::MetricsRegistry&)>& make_reloader) {
  const bool live = config.replay_path.empty();
  base::UniqueFd signals;  // a replay may be ended at any moment
  if (live) {
    ASSIGN_OR_RETURN(signals, ListenToSignals());
  }
  base::MetricsRegistry metrics;
  base::SystemClock clock;
  Health health(clock);
  std::unique_ptr<DebugInfoUploader> debug_info;
  if (!config.debuginfo_server.empty() && live) {
    ASSIGN_OR_RETURN(debug_info,
                     DebugInfoUploader::Start({.server = config.debuginfo_server,
                                               .copies = {.directory = config.cache_directory}},
                                              metrics));
  }
  ASSIGN_OR_RETURN(const auto uploader,
                   Uploader::Start({.server = config.server,
                                    .spool_directory = config.spool_directory,
                                    .spool_max_bytes = config.spool_max_bytes,
                                    .memory_max_bytes = config.memory_limit_bytes / 8},
                                   metrics));
  ProcessDirectory processes({.labels = LabelsOf(config)}, clock, metrics);

  ModuleHost* host_of_windows = nullptr;  // set before a module runs
  ModuleParts parts;
  parts.cpu.service = config.service;
  parts.cpu.labels = config.labels;
  parts.cpu.cache_directory = config.cache_directory;
  parts.cpu.lines = config.lines;
  parts.cpu.memory_limit_bytes = config.memory_limit_bytes;
  parts.cpu.on_window = [&](ClosedWindow window, const CpuModuleOptions::Upload& upload) {
    Deliver(std::move(window), config, health, host_of_windows->Views(), upload);
  };
  if (debug_info != nullptr) {
    parts.cpu.on_file_use = [&debug_info](const symbolizer::FileUse& use) {
      debug_info->Offer(use);
    };
  }
  parts.cpu.on_tables = [&health](TableReport report) { health.SetTables(std::move(report)); };
  parts.cpu.on_started = [&health](const CpuConfig& cpu, Profiler& profiler) {
    health.SetProgramEnds(profiler.collector().program_ends());
    health.SetSampler(std::string(SourceKindName(profiler.source().kind())),
                      profiler.FallbackText());
    health.Started(cpu.window_ms);
  };
  ModuleHost host({.governor = {.budget = config.budget_percent / 100,
                                .cpus = std::max(std::thread::hardware_concurrency(), 1u),
                                .memory_bytes = config.memory_limit_bytes},
                   .node = config.node,
                   .state_root = config.spool_directory,
                   .upload =
                       [&uploader](ingest::UploadWindowRequest request) {
                         return uploader->Submit(std::move(request));
                       },
                   .enable_bpf_stats = [] { return EnableBpfStats(); },
                   .process_cpu_ns = [] { return ProcessCpuNs(); },
                   .heap_bytes = [] { return RssAnonBytes(); }},
                  make_modules(std::move(parts)), processes, clock, metrics);
  host_of_windows = &host;
  if (live) health.SetHost(&host);
  health.SetUploader(uploader.get());
  Reloader reloader = make_reloader(metrics);
  ASSIGN_OR_RETURN(const auto http,
                   transport::HttpServer::Start(
                       {.address = config.http, .insecure = config.insecure, .workers = 1},
                       [&](const transport::HttpRequest& request) {
                         return HandleAgentRequest(request, metrics, health);
                       },
                       metrics));
  std::string token;
  std::string token_path;
  const absl::Cleanup remove_token = [&] { RemoveWriteToken(token_path, token); };
  if (const auto address = transport::ParseHostPort(http->address()); address.ok() && live) {
    token_path = WriteTokenPath(address->port.value_or(0));
    auto created = CreateWriteToken(token_path);
    if (!created.ok())
      spdlog::warn("nothing can be changed by HTTP: {}", base::Message(created.status()));
    token = created.ok() ? *std::move(created) : "";
    health.SetWriteToken(token, token_path);
  }
  absl::Status status;
  if (live) {
    RegisterSelfMetrics(metrics, [&host] { return host.MapBytes(); });
    status = host.Start(SettingsOf(config));
    if (status.ok()) {
      spdlog::info("sending to {}", config.server);
      Watch(signals, host, reloader, clock);
    }
    host.Stop();
    // Whoever asks again does not want to wait for the server.
    for (const int number : {SIGTERM, SIGINT}) ::signal(number, SIG_DFL);
  } else {
    status = RunReplayed(config, *uploader, health, metrics);
  }
  // A stop gives the last window a moment to arrive; what does not stays in the spool.
  const bool flushed = uploader->Flush(live ? 3'000 : 60'000);
  if (!flushed) {
    spdlog::warn("{} windows stay in the spool for the next start: {}",
                 uploader->Status().spooled_windows, uploader->Status().last_error);
  }
  health.SetUploader(nullptr);
  health.SetHost(nullptr);
  return status;
}

int RunAgent(int argc, char** argv, const MakeModulesFunction& make_modules) {
  std::vector<KnownModule> known;
  const ModuleList modules = make_modules({});
  for (const auto& module : modules) {
    known.push_back({std::string(module->name()), module->OnByDefault()});
  }
  const absl::StatusOr<AgentConfig> config = ParseAgentConfig(argc, argv, known);
  absl::Status status = config.status();
  if (config.ok() && config->message.empty()) {
    for (const auto& module : modules) {
      const auto section = config->sections.find(std::string(module->name()));
      if (section == config->sections.end() || !status.ok()) continue;
      status = module->CheckConfig(section->second);
    }
  }
  if (!status.ok()) {
    fmt::print(stderr, "firewatch-agent: {}\n", base::Message(status));
    return 2;
  }
  if (!config->message.empty()) {  // --help, --version
    fmt::print("{}", config->message);
    return 0;
  }
  base::SetupLogging(config->log_level);
  status = Run(*config, make_modules, [&](base::MetricsRegistry& metrics) {
    return Reloader(argc, argv, known, *config, metrics);
  });
  if (status.ok()) return 0;
  spdlog::error("{}", base::Message(status));
  if (config->replay_path.empty()) LogMissingFeatures();
  return 1;
}

}  // namespace

int AgentMain(int argc, char** argv, const MakeModulesFunction& make_modules) {
  // Heaps of threads are not given back to each other: with one for all, what one has freed serves
  // the next.
  ::mallopt(M_ARENA_MAX, 1);
  // The hidden role of every Firewatch binary that symbolizes: the sandboxed parser of ELF files.
  if (argc == 3 && std::string_view(argv[1]) == "--symbol-helper") {
    return symbolizer::RunSymbolHelper(std::atoi(argv[2]));
  }
  return RunAgent(argc, argv, make_modules);
}

}  // namespace firewatch::agent
