// SPDX-License-Identifier: Apache-2.0
#include "agent/health.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

namespace firewatch::agent {

void Health::Started(uint64_t window_ms) {
  base::MutexLock lock(mutex_);
  window_ms_ = window_ms;
  last_window_ns_ = clock_.MonotonicNs();
}

void Health::WindowClosed(uint64_t samples) {
  base::MutexLock lock(mutex_);
  last_window_ns_ = clock_.MonotonicNs();
  ++windows_;
  samples_ += samples;
}

void Health::SetUploader(const Uploader* uploader) {
  base::MutexLock lock(mutex_);
  uploader_ = uploader;
}

std::string Health::Problem() const {
  base::MutexLock lock(mutex_);
  if (window_ms_ == 0) return "sampling has not started";
  const uint64_t silent_ms = (clock_.MonotonicNs() - last_window_ns_) / 1'000'000;
  // Three windows and the time that names may take.
  if (silent_ms > 3 * window_ms_ + 10'000) {
    return fmt::format("no window was closed for {} s", silent_ms / 1000);
  }
  return "";
}

std::string Health::StatusJson() const {
  base::MutexLock lock(mutex_);
  nlohmann::json out = {{"windows", windows_}, {"samples", samples_}};
  if (uploader_ != nullptr) {
    const UploaderStatus upload = uploader_->Status();
    out["upload"] = {{"connected", upload.connected},
                     {"last_error", upload.last_error},
                     {"spooled_windows", upload.spooled_windows},
                     {"spooled_bytes", upload.spooled_bytes},
                     {"uploaded_windows", upload.uploaded_windows},
                     {"dropped_windows", upload.dropped_windows}};
  }
  // Error texts may quote what a peer sent: never throw on bytes that are not UTF-8.
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

transport::HttpResponse HandleAgentRequest(const transport::HttpRequest& request,
                                           const base::MetricsRegistry& metrics,
                                           const Health& health) {
  if (request.method != "GET" && request.method != "HEAD") {
    return transport::ErrorResponse(405, "only GET and HEAD");
  }
  transport::HttpResponse response;
  if (request.path == "/metrics") {
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics.Expose();
    return response;
  }
  if (request.path == "/healthz") {
    const std::string problem = health.Problem();
    if (!problem.empty()) return transport::ErrorResponse(503, problem);
    response.body = "ok\n";
    return response;
  }
  if (request.path == "/status") {
    response.content_type = "application/json";
    response.body = health.StatusJson();
    return response;
  }
  return transport::ErrorResponse(404, "there is /metrics, /healthz and /status");
}

}  // namespace firewatch::agent
