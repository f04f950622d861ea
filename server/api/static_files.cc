// SPDX-License-Identifier: Apache-2.0
#include "server/api/static_files.h"

#include <algorithm>
#include <string>

#include "transport/gzip.h"

namespace firewatch::server {
namespace {

using transport::HttpRequest;
using transport::HttpResponse;

// No inline script or style, nothing from elsewhere, in nobody's frame. The page's icon is a data:
// URL, and workers come from the server like every other script.
constexpr std::string_view kContentSecurityPolicy =
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

constexpr std::string_view kPlainPage =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Firewatch</title>"
    "<h1>Firewatch</h1><p>This server was built without its page (node and npm were missing, or "
    "FIREWATCH_WEB=OFF). Its data is here:</p><ul>"
    "<li><a href=\"/api/v1/profile\">/api/v1/profile</a>: the last 15 minutes as a flame tree"
    "<li><a href=\"/api/v1/profile?format=folded\">/api/v1/profile?format=folded</a>"
    "<li><a href=\"/api/v1/top\">/api/v1/top</a>: functions by self time"
    "<li><a href=\"/api/v1/series?group_by=service\">/api/v1/series?group_by=service</a>"
    "<li><a href=\"/api/v1/labels\">/api/v1/labels</a>"
    "<li><a href=\"/api/v1/status\">/api/v1/status</a>"
    "<li><a href=\"/pprof/profile\">/pprof/profile</a>: for go tool pprof"
    "<li><a href=\"/metrics\">/metrics</a></ul></html>\n";

std::string ToString(std::span<const unsigned char> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// If-None-Match: a list of tags, weak or not, or "*".
bool NamesEtag(std::string_view if_none_match, std::string_view etag) {
  return if_none_match == "*" ||
         (!etag.empty() && if_none_match.find(etag) != std::string_view::npos);
}

HttpResponse PlainPage() {
  return {.status = 200,
          .content_type = "text/html; charset=utf-8",
          .body = std::string(kPlainPage),
          .headers = {{"Content-Security-Policy", std::string(kContentSecurityPolicy)},
                      {"Cache-Control", "no-cache"}}};
}

HttpResponse Serve(const web::Asset& asset, const HttpRequest& request) {
  HttpResponse response{.status = 200, .content_type = std::string(asset.content_type)};
  response.headers = {
      {"Content-Security-Policy", std::string(kContentSecurityPolicy)},
      {"Cache-Control", asset.immutable ? "public, max-age=31536000, immutable" : "no-cache"},
      {"ETag", std::string(asset.etag)},
      {"Vary", "Accept-Encoding"}};
  if (NamesEtag(request.Header("if-none-match"), asset.etag)) {
    response.status = 304;
    return response;
  }
  const bool gzip =
      !asset.gzip_bytes.empty() && transport::AcceptsGzip(request.Header("accept-encoding"));
  response.body = ToString(gzip ? asset.gzip_bytes : asset.bytes);
  if (gzip) response.headers.emplace_back("Content-Encoding", "gzip");
  return response;
}

}  // namespace

std::optional<HttpResponse> ServeStaticFile(std::span<const web::Asset> assets,
                                            const HttpRequest& request) {
  const std::string_view path =
      request.path == "/" ? "/index.html" : std::string_view(request.path);
  const auto asset = std::find_if(assets.begin(), assets.end(),
                                  [&](const web::Asset& one) { return one.path == path; });
  if (asset != assets.end()) return Serve(*asset, request);
  if (assets.empty() && request.path == "/") return PlainPage();
  return std::nullopt;
}

}  // namespace firewatch::server
