// SPDX-License-Identifier: Apache-2.0
// firewatch-server: builds everything in the order of the drawing in ARCHITECTURE.md and waits for
// a signal. What is built last ends first: listeners before the store that they write to.
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/logging.h"
#include "base/metrics.h"
#include "base/status.h"
#include "server/api/api.h"
#include "server/config.h"
#include "server/debuginfo/naming.h"
#include "server/debuginfo/naming_store.h"
#include "server/debuginfo/upload.h"
#include "server/ingest/grpc_server.h"
#include "server/ingest/ingest_service.h"
#include "server/store/embedded/embedded_store.h"
#include "symbolizer/symbolizer.h"
#include "transport/http_server.h"
#include "web/assets.h"

namespace firewatch::server {
namespace {

// The API takes no bodies but streamed ones; what is larger is refused by its header.
constexpr size_t kMaxBodyBytes = 64 * 1024;

// Blocked before the first thread starts, so that every thread inherits it and only sigwait sees
// the signals.
sigset_t BlockStopSignals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// RocksDB and a thousand connections need more descriptors than the usual soft limit of 1,024.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

absl::Status Run(const ServerConfig& config, const sigset_t& stop_signals) {
  base::SystemClock clock;
  base::MetricsRegistry metrics;
  // Before the store is opened: a wrong address must not cost a recovery of the log.
  RETURN_IF_ERROR(transport::CheckListenerPolicy(config.http, config.insecure));
  RETURN_IF_ERROR(transport::CheckListenerPolicy(config.grpc, config.insecure));

  ASSIGN_OR_RETURN(const std::unique_ptr<ProfileStore> store,
                   OpenEmbeddedStore({.directory = config.data_directory,
                                      .retention_hours = config.retention_hours,
                                      .retention_bytes = config.retention_bytes},
                                     clock, metrics));

  const char* debuginfod_urls = std::getenv("DEBUGINFOD_URLS");
  ASSIGN_OR_RETURN(const std::unique_ptr<Naming> naming,
                   Naming::Open({.directory = config.data_directory + "/debuginfo",
                                 .max_bytes = config.debuginfo_bytes,
                                 .max_file_bytes = config.debuginfo_file_bytes,
                                 .debuginfod_urls = ParseDebuginfodUrls(
                                     debuginfod_urls == nullptr ? "" : debuginfod_urls)},
                                clock, metrics));
  DebugInfo& debuginfo = naming->debuginfo();
  NamingStore named_store(*store, debuginfo, metrics);

  IngestService ingest(
      {.limits = {.retention_hours = config.retention_hours},
       .server_version = FIREWATCH_VERSION,
       .on_binaries = [&debuginfo](const auto& told) { debuginfo.binaries().Note(told); }},
      *store, clock, metrics);
  ASSIGN_OR_RETURN(const auto grpc,
                   StartGrpcServer({.address = config.grpc, .insecure = config.insecure}, ingest));

  Api api({.store = named_store,
           .clock = clock,
           .nodes = [&ingest] { return ingest.Nodes(); },
           .version = FIREWATCH_VERSION,
           .max_nodes = config.max_nodes,
           .debuginfo = &debuginfo},
          metrics, web::Assets());
  ASSIGN_OR_RETURN(
      const auto http,
      transport::HttpServer::Start(
          {.address = config.http,
           .insecure = config.insecure,
           .workers = static_cast<int>(config.http_workers),
           .max_body_bytes = kMaxBodyBytes,
           .allowed_hosts = config.allowed_hosts,
           .stream = {.path_prefix = std::string(kDebugInfoPath),
                      .open =
                          [&debuginfo](const transport::HttpRequest& request) {
                            return OpenUpload(debuginfo, request);
                          },
                      .max_body_bytes = config.debuginfo_file_bytes}},
          [&api](const transport::HttpRequest& request) { return api.Handle(request); }, metrics));

  fmt::print("Firewatch is ready: http://{}/ (agents: {})\n", http->address(), grpc->address());
  std::fflush(stdout);
  int signal = 0;
  ::sigwait(&stop_signals, &signal);
  spdlog::info("signal {}: stopping", signal);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const absl::StatusOr<ServerConfig> config = ParseServerConfig(argc, argv);
  if (!config.ok()) {
    fmt::print(stderr, "firewatch-server: {}\n", base::Message(config.status()));
    return 2;
  }
  if (!config->message.empty()) {  // --help, --version
    fmt::print("{}", config->message);
    return 0;
  }
  base::SetupLogging(config->log_level);
  // gRPC prints its own pages of what it then also returns (a port that is taken); ours is one
  // line.
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  const sigset_t stop_signals = BlockStopSignals();
  RaiseDescriptorLimit();
  const absl::Status status = Run(*config, stop_signals);
  if (status.ok()) return 0;
  fmt::print(stderr, "firewatch-server: {}\n", base::Message(status));
  return 1;
}

}  // namespace
}  // namespace firewatch::server

int main(int argc, char** argv) {
  // The hidden role of every Firewatch binary that symbolizes: the sandboxed parser of ELF files.
  if (argc == 3 && std::string_view(argv[1]) == "--symbol-helper") {
    return firewatch::symbolizer::RunSymbolHelper(std::atoi(argv[2]));
  }
  return firewatch::server::Main(argc, argv);
}
