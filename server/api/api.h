// SPDX-License-Identifier: Apache-2.0
// Every path of the server, from a request to an answer, without a socket. Read routes in api.cc.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "base/metrics.h"
#include "server/api/context.h"
#include "server/api/health.h"
#include "transport/http_server.h"
#include "web/assets.h"

namespace firewatch::server {

// Any thread. `registry` must outlive it, as must all that the context refers to.
class Api {
 public:
  // `page`: web::Assets(), or another table in tests.
  Api(ApiContext context, base::MetricsRegistry& registry, std::span<const web::Asset> page,
      HealthOptions health = {});

  transport::HttpResponse Handle(const transport::HttpRequest& request);

  // For metrics: one per line of the table of routes, and the last for every other path.
  enum Route {
    kProfile,
    kTop,
    kSeries,
    kLabels,
    kLabelValues,
    kStatus,
    kPprof,
    kUnnamed,
    kConnections,
    kDebugInfoList,
    kDebugInfo,
    kMetrics,
    kHealth,
    kStatic,
    kRouteCount
  };

 private:
  struct Counters {
    base::Counter* requests = nullptr;
    base::Counter* client_errors = nullptr;
    base::Counter* server_errors = nullptr;
  };

  transport::HttpResponse Answer(Route route, const transport::HttpRequest& request);
  transport::HttpResponse AnswerHealth();
  transport::HttpResponse AnswerMetrics() const;
  transport::HttpResponse AnswerStatic(const transport::HttpRequest& request) const;

  const ApiContext context_;
  base::MetricsRegistry& registry_;
  const std::span<const web::Asset> page_;
  HealthMonitor health_;
  std::array<Counters, kRouteCount> counters_;
};

}  // namespace firewatch::server
