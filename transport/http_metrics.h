// SPDX-License-Identifier: Apache-2.0
// The counters of the HTTP server. All servers of one process share them.
#pragma once

#include <array>
#include <string>
#include <utility>

#include "base/metrics.h"

namespace firewatch::transport {

class HttpMetrics {
 public:
  explicit HttpMetrics(base::MetricsRegistry& registry)
      : connections(registry.AddGauge("firewatch_http_connections", "Open HTTP connections.")),
        accepted(registry.AddCounter("firewatch_http_accepted_total", "Connections accepted.")),
        refused(registry.AddCounter(
            "firewatch_http_connections_refused_total",
            "Connections closed at once: the limit was reached and none was idle.")),
        evicted(registry.AddCounter("firewatch_http_connections_evicted_total",
                                    "Idle connections closed to make room for new ones.")),
        accept_errors(
            registry.AddCounter("firewatch_http_accept_errors_total", "Failed accept calls.")),
        timeouts(registry.AddCounter("firewatch_http_timeouts_total",
                                     "Connections closed because the peer was too slow.")),
        malformed(registry.AddCounter("firewatch_http_malformed_total",
                                      "Requests that are not HTTP or have a bad target.")),
        foreign_host(registry.AddCounter("firewatch_http_forbidden_total",
                                         "Requests refused by their Host or Origin.",
                                         {{"reason", "host"}})),
        foreign_origin(registry.AddCounter("firewatch_http_forbidden_total",
                                           "Requests refused by their Host or Origin.",
                                           {{"reason", "origin"}})),
        queue_full(registry.AddCounter("firewatch_http_queue_full_total",
                                       "Requests answered 503 because too many were waiting.")),
        handler_errors(registry.AddCounter("firewatch_http_handler_exceptions_total",
                                           "Requests answered 500 because a handler threw.")) {
    for (size_t i = 0; i < kCodes.size(); ++i) {
      requests_[i] = &registry.AddCounter(
          "firewatch_http_requests_total", "Answers by status code.",
          {{"code", kCodes[i] == 0 ? std::string("other") : std::to_string(kCodes[i])}});
    }
  }

  void CountAnswer(int status) {
    size_t i = 0;
    while (i + 1 < kCodes.size() && kCodes[i] != status) ++i;
    requests_[i]->Add();
  }

  base::Gauge& connections;
  base::Counter& accepted;
  base::Counter& refused;
  base::Counter& evicted;
  base::Counter& accept_errors;
  base::Counter& timeouts;
  base::Counter& malformed;
  base::Counter& foreign_host;
  base::Counter& foreign_origin;
  base::Counter& queue_full;
  base::Counter& handler_errors;

 private:
  static constexpr std::array<int, 17> kCodes = {200, 201, 202, 204, 304, 400, 403, 404, 405,
                                                 409, 413, 422, 431, 500, 503, 507, 0};
  std::array<base::Counter*, kCodes.size()> requests_{};
};

}  // namespace firewatch::transport
