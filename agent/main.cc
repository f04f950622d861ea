// SPDX-License-Identifier: Apache-2.0
// firewatch-agent: builds everything in the order of the drawing in ARCHITECTURE.md and waits.
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "agent/core/config.h"
#include "agent/core/process_table.h"
#include "agent/cpu/features.h"
#include "agent/cpu/profiler.h"
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
#include "transport/http_server.h"

namespace firewatch::agent {
namespace {

// The profiler that a signal stops; set before the handlers are installed.
std::atomic<Profiler*> g_profiler{nullptr};

void OnStopSignal(int) {
  if (Profiler* profiler = g_profiler.load(); profiler != nullptr) profiler->Stop();
}

void StopOnSignals(Profiler* profiler) {
  g_profiler.store(profiler);
  struct sigaction action{};
  action.sa_handler = profiler != nullptr ? OnStopSignal : SIG_DFL;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

// One line per thing that is missing, in the words of `firewatch doctor`.
void LogMissingFeatures() {
  for (const Feature& feature : ProbeFeatures()) {
    if (feature.available || feature.need == FeatureNeed::kInfo) continue;
    spdlog::warn("{}: {}{}{}", feature.name, feature.detail, feature.remedy.empty() ? "" : "; ",
                 feature.remedy);
  }
}

// Hands windows to the uploader; what does not even reach the spool is counted and said.
Collector::Sink MakeSink(Uploader& uploader, Health& health, const AgentConfig& config) {
  return [&uploader, &health, node = config.node](ClosedWindow window) {
    health.WindowClosed(window);
    health.SetSampler(window.sampler, window.sampler_note);
    auto request = MakeUploadRequest(window, node);
    absl::Status status = request.status();
    if (request.ok()) status = uploader.Submit(*std::move(request));
    if (!status.ok()) spdlog::error("window not spooled: {}", base::Message(status));
  };
}

absl::Status RunLive(const AgentConfig& config, ProcessTable& table,
                     symbolizer::Symbolizer& symbolizer, Uploader& uploader, Health& health,
                     const base::Clock& clock, base::MetricsRegistry& metrics) {
  ProfilerOptions options;
  ASSIGN_OR_RETURN(options.source, ParseSourceChoice(config.sampler));
  options.sampler.hz = config.hz;
  options.sampler.pids = config.pids;
  options.sampler.cgroups = config.cgroups;
  options.window_ms = config.window_ms;
  options.record_events_path = config.record_events_path;
  options.memory_limit_bytes = config.memory_limit_bytes;
  options.on_tables = [&health](TableReport report) { health.SetTables(std::move(report)); };
  ASSIGN_OR_RETURN(const auto profiler,
                   Profiler::Open(std::move(options), table, symbolizer, clock, metrics,
                                  MakeSink(uploader, health, config)));
  // By value: the page outlives the profiler. Our maps keep their size, all but the slabs.
  RegisterSelfMetrics(metrics,
                      [bytes = profiler->source().map_bytes(), slabs = &SlabBytesGauge(metrics)] {
                        return bytes + static_cast<uint64_t>(slabs->value());
                      });
  health.SetProgramEnds(profiler->collector().program_ends());
  StopOnSignals(profiler.get());
  spdlog::info("sampling {} CPUs at {} Hz ({}), windows of {} ms, to {}",
               profiler->source().cpu_count(), profiler->source().hz(),
               profiler->source().hardware_cycles() ? "cycles" : "cpu-clock", config.window_ms,
               config.server);
  const std::string fallback = profiler->FallbackText();
  if (!fallback.empty()) spdlog::warn("{}", fallback);
  health.SetSampler(std::string(SourceKindName(profiler->source().kind())), fallback);
  health.Started(config.window_ms);
  const absl::Status status = profiler->Run();
  StopOnSignals(nullptr);
  return status;
}

absl::Status Run(const AgentConfig& config) {
  base::MetricsRegistry metrics;
  base::SystemClock clock;
  Health health(clock);
  ASSIGN_OR_RETURN(const auto http,
                   transport::HttpServer::Start(
                       {.address = config.http, .insecure = config.insecure, .workers = 1},
                       [&](const transport::HttpRequest& request) {
                         return HandleAgentRequest(request, metrics, health);
                       },
                       metrics));
  std::unique_ptr<DebugInfoUploader> debug_info;
  if (!config.debuginfo_server.empty() && config.replay_path.empty()) {
    ASSIGN_OR_RETURN(debug_info,
                     DebugInfoUploader::Start({.server = config.debuginfo_server,
                                               .copies = {.directory = config.cache_directory}},
                                              metrics));
  }
  std::function<void(const symbolizer::FileUse&)> on_use;
  if (debug_info != nullptr) {
    on_use = [&debug_info](const symbolizer::FileUse& use) { debug_info->Offer(use); };
  }
  ASSIGN_OR_RETURN(const auto symbolizer, symbolizer::Symbolizer::Create(
                                              {.cache_directory = config.cache_directory,
                                               .lines = config.lines,
                                               // The helper's memory counts as the agent's while it
                                               // lives, and what the agent itself needs is 20 MiB.
                                               .lines_max_bytes = config.memory_limit_bytes / 8 * 5,
                                               .on_use = std::move(on_use)},
                                              metrics));
  ASSIGN_OR_RETURN(const auto uploader,
                   Uploader::Start({.server = config.server,
                                    .spool_directory = config.spool_directory,
                                    .spool_max_bytes = config.spool_max_bytes,
                                    .memory_max_bytes = config.memory_limit_bytes / 8},
                                   metrics));
  health.SetUploader(uploader.get());
  ProcessTableOptions table_options;
  table_options.node = config.node;
  table_options.service = config.service;
  table_options.extra_labels = config.labels;
  // A replay must give the same answer on every machine: no process of this one may show in it.
  if (!config.replay_path.empty()) table_options.proc_root = "/nonexistent";
  ProcessTable table(std::move(table_options), *symbolizer, metrics);

  absl::Status status;
  if (config.replay_path.empty()) {
    status = RunLive(config, table, *symbolizer, *uploader, health, clock, metrics);
  } else {
    const auto samples = RunReplay(config.replay_path, config.window_ms, WindowOptions(), table,
                                   *symbolizer, metrics, MakeSink(*uploader, health, config));
    status = samples.status();
    if (samples.ok()) spdlog::info("replayed {} samples", *samples);
  }
  // A stop gives the last window a moment to arrive; what does not stays in the spool.
  const bool flushed = uploader->Flush(config.replay_path.empty() ? 3'000 : 60'000);
  if (!flushed) {
    spdlog::warn("{} windows stay in the spool for the next start: {}",
                 uploader->Status().spooled_windows, uploader->Status().last_error);
  }
  health.SetUploader(nullptr);
  return status;
}

int Main(int argc, char** argv) {
  const absl::StatusOr<AgentConfig> config = ParseAgentConfig(argc, argv);
  if (!config.ok()) {
    fmt::print(stderr, "firewatch-agent: {}\n", base::Message(config.status()));
    return 2;
  }
  if (!config->message.empty()) {  // --help, --version
    fmt::print("{}", config->message);
    return 0;
  }
  base::SetupLogging(config->log_level);
  const absl::Status status = Run(*config);
  if (status.ok()) return 0;
  spdlog::error("{}", base::Message(status));
  if (config->replay_path.empty()) LogMissingFeatures();
  return 1;
}

}  // namespace
}  // namespace firewatch::agent

int main(int argc, char** argv) {
  // Before the first thread. gRPC polls an idle connection every five seconds, which has a thread
  // wake every second; the uploader looks before each call, and repeats one that fails.
  ::setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "0", /*overwrite=*/0);
  // Debian's Abseil looks for deadlocks at every lock that gRPC takes.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // The hidden role of every Firewatch binary that symbolizes: the sandboxed parser of ELF files.
  if (argc == 3 && std::string_view(argv[1]) == "--symbol-helper") {
    return firewatch::symbolizer::RunSymbolHelper(std::atoi(argv[2]));
  }
  return firewatch::agent::Main(argc, argv);
}
