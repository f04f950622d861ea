// SPDX-License-Identifier: Apache-2.0
#include "agent/network/connections_uploader.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace firewatch::agent {
namespace {

// Servers refuse a window of more than an hour; the longest interval, reported rarely, is one.
constexpr uint64_t kLongestWindowNs = 3'500'000'000'000;

}  // namespace

ConnectionsUploader::ConnectionsUploader(ConnectionsUploaderOptions options,
                                         const base::Clock& clock, base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      clock_(clock),
      start_ns_(clock.MonotonicNs()),
      windows_(metrics.AddCounter("firewatch_network_windows_total",
                                  "Windows of connections handed to the uploader.")),
      lost_(metrics.AddCounter("firewatch_network_windows_lost_total",
                               "Windows of connections that did not reach the spool.")),
      summed_(metrics.AddCounter("firewatch_network_upload_summed_total",
                                 "Sums per process, peer and port that a window had no room for: "
                                 "they went to the server as other.")) {}

void ConnectionsUploader::Send(const TakeRecent& take_recent) {
  ConnectionsWindow window({.nobody = options_.nobody, .others = options_.others});
  take_recent([&window](const NetworkEdge& edge, const NetworkProcess& process,
                        const NetworkTotals& recent) { window.Add(edge, process, recent); });
  const int64_t end_unix_ns = clock_.Now().unix_ns;
  const uint64_t end_ns = clock_.MonotonicNs();
  // The wall clock may have been set meanwhile; at least 1 ns, as there is no empty window.
  const uint64_t length_ns = std::clamp<uint64_t>(end_ns - start_ns_, 1, kLongestWindowNs);
  start_ns_ = end_ns;
  if (window.empty()) return;
  ingest::UploadWindowRequest request;
  request.set_node(options_.node);
  request.set_start_unix_ns(end_unix_ns - static_cast<int64_t>(length_ns));
  request.set_end_unix_ns(end_unix_ns);
  summed_.Add(window.Write(&request));
  windows_.Add();
  if (const absl::Status status = options_.upload(std::move(request)); !status.ok()) {
    lost_.Add();
    spdlog::error("window of connections not spooled: {}", base::Message(status));
  }
}

}  // namespace firewatch::agent
