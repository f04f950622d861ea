// SPDX-License-Identifier: Apache-2.0
// A thousand agents in one program: uploads windows with unique totals and says, one line per
// window, what the server acknowledged. For the crash test (what was acknowledged must be there,
// once), for garbage, and as the load of the ingest benchmark.
//
//   ingest_client --server A:P --agents 4 --windows 100 [--services N --stacks N --depth N]
//       send AGENT SEQUENCE                     before each first attempt
//       ack AGENT SEQUENCE NAME VALUE DUPLICATE MICROSECONDS
//       done windows=… attempts=… bytes=… seconds=… p50_us=… p99_us=…
//     A failed call is repeated with the same bytes until --give-up seconds have passed.
//   ingest_client --server A:P --spoil KIND     one bad window: "status=INVALID_ARGUMENT message=…"
//   ingest_client --spoil list
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "proto/ingest.grpc.pb.h"
#include "tests/tools/load.h"

namespace firewatch::tests {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Options {
  std::string server = "127.0.0.1:7070";
  std::string spoil;
  uint32_t agents = 1;
  uint64_t windows = 1;
  uint64_t first_sequence = 1;
  double give_up_seconds = 60;
  double interval_ms = 0;  // pause of one agent between two windows
  int64_t window_ms = 10'000;
  int64_t start_ms = 0;  // of the first window; 0: so that the last one ends now
  bool quiet = false;
  LoadShape shape;
};

struct Totals {
  std::mutex mutex;
  std::vector<double> latencies_us;
  std::atomic<uint64_t> attempts{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> unacknowledged{0};
};

const char* CodeName(grpc::StatusCode code) {
  static const char* const kNames[] = {"OK",
                                       "CANCELLED",
                                       "UNKNOWN",
                                       "INVALID_ARGUMENT",
                                       "DEADLINE_EXCEEDED",
                                       "NOT_FOUND",
                                       "ALREADY_EXISTS",
                                       "PERMISSION_DENIED",
                                       "RESOURCE_EXHAUSTED",
                                       "FAILED_PRECONDITION",
                                       "ABORTED",
                                       "OUT_OF_RANGE",
                                       "UNIMPLEMENTED",
                                       "INTERNAL",
                                       "UNAVAILABLE",
                                       "DATA_LOSS",
                                       "UNAUTHENTICATED"};
  const size_t index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "?";
}

std::unique_ptr<ingest::IngestService::Stub> Connect(const Options& options, int id) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(-1);
  // A server that was killed is back in about a second: look often.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt("firewatch.connection", id);  // else gRPC shares one connection between agents
  return ingest::IngestService::NewStub(
      grpc::CreateCustomChannel(options.server, grpc::InsecureChannelCredentials(), arguments));
}

int64_t UnixNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Uploads one window until it is acknowledged or refused. False when time is up or it was refused.
bool Upload(ingest::IngestService::Stub& stub, const ingest::UploadWindowRequest& window,
            SteadyClock::time_point give_up, Totals& totals, bool* duplicate) {
  for (;;) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    context.set_wait_for_ready(true);
    ingest::UploadWindowResponse response;
    ++totals.attempts;
    const grpc::Status status = stub.UploadWindow(&context, window, &response);
    if (status.ok()) {
      *duplicate = response.duplicate();
      return true;
    }
    if (status.error_code() == grpc::INVALID_ARGUMENT ||
        status.error_code() == grpc::FAILED_PRECONDITION || SteadyClock::now() > give_up) {
      std::fprintf(stderr, "refused: %s: %s\n", CodeName(status.error_code()),
                   status.error_message().c_str());
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void RunAgent(const Options& options, uint32_t agent, SteadyClock::time_point give_up,
              int64_t first_start_ns, Totals& totals) {
  const auto stub = Connect(options, static_cast<int>(agent));
  for (uint64_t i = 0; i < options.windows; ++i) {
    const uint64_t sequence = options.first_sequence + i;
    const int64_t length_ns = options.window_ms * 1'000'000;
    const ingest::UploadWindowRequest window =
        MakeWindow(options.shape, agent, sequence,
                   first_start_ns + static_cast<int64_t>(i) * length_ns, length_ns);
    if (!options.quiet) std::printf("send %u %lu\n", agent, sequence);
    const auto begin = SteadyClock::now();
    bool duplicate = false;
    if (!Upload(*stub, window, give_up, totals, &duplicate)) {
      ++totals.unacknowledged;
      continue;
    }
    const double us = std::chrono::duration<double, std::micro>(SteadyClock::now() - begin).count();
    totals.bytes += window.ByteSizeLong();
    {
      const std::lock_guard lock(totals.mutex);
      totals.latencies_us.push_back(us);
    }
    if (!options.quiet) {
      std::printf("ack %u %lu %s %lu %d %.0f\n", agent, sequence,
                  UniqueName(agent, sequence).c_str(), UniqueValue(agent, sequence),
                  duplicate ? 1 : 0, us);
    }
    if (options.interval_ms > 0) {
      std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(options.interval_ms));
    }
  }
}

int RunLoad(const Options& options) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);  // a test reads the lines while we run
  Totals totals;
  const auto begin = SteadyClock::now();
  const auto give_up = begin + std::chrono::duration_cast<SteadyClock::duration>(
                                   std::chrono::duration<double>(options.give_up_seconds));
  const int64_t first_start_ns =
      options.start_ms != 0
          ? options.start_ms * 1'000'000
          : UnixNs() - static_cast<int64_t>(options.windows) * options.window_ms * 1'000'000;
  std::vector<std::thread> threads;
  for (uint32_t agent = 0; agent < options.agents; ++agent) {
    threads.emplace_back([&, agent] { RunAgent(options, agent, give_up, first_start_ns, totals); });
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  std::sort(totals.latencies_us.begin(), totals.latencies_us.end());
  const auto percentile = [&](double p) {
    if (totals.latencies_us.empty()) return 0.0;
    const double last = static_cast<double>(totals.latencies_us.size() - 1);
    return totals.latencies_us[static_cast<size_t>(last * p)];
  };
  std::printf(
      "done windows=%zu attempts=%lu unacknowledged=%lu bytes=%lu seconds=%.3f "
      "p50_us=%.0f p99_us=%.0f\n",
      totals.latencies_us.size(), totals.attempts.load(), totals.unacknowledged.load(),
      totals.bytes.load(), seconds, percentile(0.5), percentile(0.99));
  return totals.unacknowledged == 0 ? 0 : 1;
}

int RunSpoiled(const Options& options) {
  if (options.spoil == "list") {
    std::printf("%s\n", std::string(SpoilKinds()).c_str());
    return 0;
  }
  const int64_t length_ns = options.window_ms * 1'000'000;
  ingest::UploadWindowRequest window =
      MakeWindow(options.shape, 9'999, options.first_sequence, UnixNs() - length_ns, length_ns);
  if (!Spoil(options.spoil, &window)) {
    std::fprintf(stderr, "no such kind: %s\n", options.spoil.c_str());
    return 2;
  }
  const auto stub = Connect(options, 0);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  context.set_wait_for_ready(true);
  ingest::UploadWindowResponse response;
  const grpc::Status status = stub->UploadWindow(&context, window, &response);
  std::printf("status=%s message=%s\n", CodeName(status.error_code()),
              status.error_message().c_str());
  return 0;
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Uploads windows with unique totals to a Firewatch server");
  app.add_option("--server", options.server);
  app.add_option("--spoil", options.spoil);
  app.add_option("--agents", options.agents);
  app.add_option("--windows", options.windows)->check(CLI::Range(1, 9'999));
  app.add_option("--first-sequence", options.first_sequence);
  app.add_option("--give-up", options.give_up_seconds);
  app.add_option("--interval-ms", options.interval_ms);
  app.add_option("--window-ms", options.window_ms);
  app.add_option("--start-ms", options.start_ms);
  app.add_option("--services", options.shape.services);
  app.add_option("--stacks", options.shape.stacks);
  app.add_option("--depth", options.shape.depth);
  app.add_option("--names", options.shape.names);
  app.add_option("--node", options.shape.node);
  app.add_flag("--quiet", options.quiet);
  CLI11_PARSE(app, argc, argv);
  return options.spoil.empty() ? RunLoad(options) : RunSpoiled(options);
}

}  // namespace
}  // namespace firewatch::tests

int main(int argc, char** argv) { return firewatch::tests::Main(argc, argv); }
