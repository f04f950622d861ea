// SPDX-License-Identifier: Apache-2.0
#include "server/api/api.h"

#include <string>
#include <utility>

#include "base/status.h"
#include "server/api/answers.h"
#include "server/api/connection_handlers.h"
#include "server/api/debuginfo_handlers.h"
#include "server/api/profile_handlers.h"
#include "server/api/series_handlers.h"
#include "server/api/static_files.h"
#include "server/debuginfo/upload.h"

namespace firewatch::server {
namespace {

using transport::ErrorResponse;
using transport::HttpRequest;
using transport::HttpResponse;

struct RoutePath {
  std::string_view path;
  Api::Route route;
};
constexpr std::array<RoutePath, 12> kRoutes = {{{"/api/v1/profile", Api::kProfile},
                                                {"/api/v1/top", Api::kTop},
                                                {"/api/v1/series", Api::kSeries},
                                                {"/api/v1/labels", Api::kLabels},
                                                {"/api/v1/status", Api::kStatus},
                                                {"/api/v1/pprof", Api::kPprof},
                                                {"/pprof/profile", Api::kPprof},
                                                {"/api/v1/unnamed", Api::kUnnamed},
                                                {"/api/v1/connections", Api::kConnections},
                                                {"/api/v1/debuginfo", Api::kDebugInfoList},
                                                {"/metrics", Api::kMetrics},
                                                {"/healthz", Api::kHealth}}};
constexpr std::array<std::string_view, Api::kRouteCount> kRouteNames = {
    "profile", "top",         "series",         "labels",    "label_values", "status",  "pprof",
    "unnamed", "connections", "debuginfo_list", "debuginfo", "metrics",      "healthz", "static"};

// "/api/v1/labels/NAME/values": NAME, else "".
std::string_view LabelOfPath(std::string_view path) {
  constexpr std::string_view kPrefix = "/api/v1/labels/";
  constexpr std::string_view kSuffix = "/values";
  if (!path.starts_with(kPrefix) || !path.ends_with(kSuffix)) return {};
  path.remove_prefix(kPrefix.size());
  if (path.size() <= kSuffix.size()) return {};
  path.remove_suffix(kSuffix.size());
  return path;
}

Api::Route RouteOf(std::string_view path) {
  for (const RoutePath& one : kRoutes) {
    if (one.path == path) return one.route;
  }
  if (path.starts_with(kDebugInfoPath)) return Api::kDebugInfo;
  return LabelOfPath(path).empty() ? Api::kStatic : Api::kLabelValues;
}

// pprof prints the text of an error only when it is plain and carries this header.
HttpResponse PprofError(const absl::Status& status) {
  return {.status = HttpStatusOf(status),
          .content_type = "text/plain; charset=utf-8",
          .body = std::string(base::Message(status)) + "\n",
          .headers = {{"X-Go-Pprof", "1"}, {"Cache-Control", "no-store"}}};
}

HttpResponse ToResponse(absl::StatusOr<HttpResponse> answer) {
  if (answer.ok()) return *std::move(answer);
  return ErrorResponse(HttpStatusOf(answer.status()), base::Message(answer.status()));
}

}  // namespace

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 507;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return 503;
    default:
      return 500;
  }
}

Api::Api(ApiContext context, base::MetricsRegistry& registry, std::span<const web::Asset> page,
         HealthOptions health)
    : context_(std::move(context)),
      registry_(registry),
      page_(page),
      health_([&store = context_.store] { return store.CheckHealth(); }, health) {
  for (size_t i = 0; i < kRouteCount; ++i) {
    const std::string route(kRouteNames[i]);
    counters_[i].requests = &registry.AddCounter("firewatch_api_requests_total",
                                                 "Requests by route.", {{"route", route}});
    counters_[i].client_errors =
        &registry.AddCounter("firewatch_api_errors_total", "Answers of 400 and above by route.",
                             {{"route", route}, {"class", "4xx"}});
    counters_[i].server_errors =
        &registry.AddCounter("firewatch_api_errors_total", "Answers of 400 and above by route.",
                             {{"route", route}, {"class", "5xx"}});
  }
}

HttpResponse Api::Handle(const HttpRequest& request) {
  const Route route = RouteOf(request.path);
  Counters& counters = counters_[route];
  counters.requests->Add();
  HttpResponse response;
  if (request.method == "GET" || request.method == "HEAD") {
    response = Answer(route, request);
  } else if (route == kDebugInfo && request.method == "DELETE") {
    response = Answer(route, request);
  } else {
    const bool more = route == kDebugInfo;  // PUT does not come here: it is streamed
    response = ErrorResponse(405, more ? "only GET, HEAD, PUT and DELETE are served here"
                                       : "only GET and HEAD are served here");
    response.headers.emplace_back("Allow", more ? "GET, HEAD, PUT, DELETE" : "GET, HEAD");
  }
  if (response.status >= 500) {
    counters.server_errors->Add();
  } else if (response.status >= 400) {
    counters.client_errors->Add();
  }
  return response;
}

HttpResponse Api::Answer(Route route, const HttpRequest& request) {
  switch (route) {
    case kProfile:
      return ToResponse(HandleProfile(context_, request));
    case kTop:
      return ToResponse(HandleTop(context_, request));
    case kSeries:
      return ToResponse(HandleSeries(context_, request));
    case kLabels:
      return ToResponse(HandleLabels(context_, request));
    case kLabelValues:
      return ToResponse(HandleLabelValues(context_, request, LabelOfPath(request.path)));
    case kStatus:
      return ToResponse(HandleStatus(context_, request));
    case kPprof: {
      auto answer = HandlePprof(context_, request);
      return answer.ok() ? *std::move(answer) : PprofError(answer.status());
    }
    case kUnnamed:
      return ToResponse(HandleUnnamed(context_, request));
    case kConnections:
      return ToResponse(HandleConnections(context_, request));
    case kDebugInfoList:
      return ToResponse(HandleDebugInfoList(context_, request));
    case kDebugInfo:
      return ToResponse(HandleDebugInfo(context_, request));
    case kMetrics:
      return AnswerMetrics();
    case kHealth:
      return AnswerHealth();
    default:
      return AnswerStatic(request);
  }
}

HttpResponse Api::AnswerHealth() {
  const absl::Status status = health_.Check();
  return {.status = status.ok() ? 200 : 503,
          .body = status.ok() ? "ok" : base::ToString(status) + "\n",
          .headers = {{"Cache-Control", "no-store"}}};
}

HttpResponse Api::AnswerMetrics() const {
  return {.status = 200,
          .content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = registry_.Expose()};
}

HttpResponse Api::AnswerStatic(const HttpRequest& request) const {
  if (auto file = ServeStaticFile(page_, request)) return *std::move(file);
  return ErrorResponse(404, "there is nothing at this path");
}

}  // namespace firewatch::server
