// SPDX-License-Identifier: Apache-2.0
#include "transport/http_message.h"

#include <time.h>

#include <algorithm>
#include <array>

#include "base/status.h"
#include "transport/gzip.h"
#include "transport/json_writer.h"

namespace firewatch::transport {
namespace {

constexpr size_t kMinCompressedBytes = 1024;  // below it the headers outweigh the gain
// Level 3 makes JSON flame graphs about 10 % larger than level 6 at a third of its CPU time
// (zlib's own table of speeds); on loopback CPU is what is scarce.
constexpr int kGzipLevel = 3;

std::string_view ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 416:
      return "Range Not Satisfiable";
    case 422:
      return "Unprocessable Content";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 507:
      return "Insufficient Storage";
    default:
      return "Status";
  }
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

bool HasHeader(const HttpResponse& response, std::string_view name) {
  return std::any_of(response.headers.begin(), response.headers.end(),
                     [&](const auto& header) { return EqualsIgnoringCase(header.first, name); });
}

bool HasNoBodyByNature(int status) { return status == 204 || status == 304; }

void AppendHeader(std::string_view name, std::string_view value, std::string& head) {
  head.append(name).append(": ");
  for (const char c : value) head.push_back(c == '\r' || c == '\n' || c == '\0' ? ' ' : c);
  head.append("\r\n");
}

// "Sun, 06 Nov 1994 08:49:37 GMT". strftime would follow the locale.
std::string HttpDate() {
  constexpr std::array<std::string_view, 7> kDays = {"Sun", "Mon", "Tue", "Wed",
                                                     "Thu", "Fri", "Sat"};
  constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t now = ::time(nullptr);
  tm utc{};
  ::gmtime_r(&now, &utc);
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
                     kDays[static_cast<size_t>(utc.tm_wday)], utc.tm_mday,
                     kMonths[static_cast<size_t>(utc.tm_mon)], utc.tm_year + 1900, utc.tm_hour,
                     utc.tm_min, utc.tm_sec);
}

}  // namespace

std::optional<std::string_view> HttpRequest::Query(std::string_view name) const {
  const auto found = std::find_if(query.begin(), query.end(),
                                  [&](const auto& parameter) { return parameter.first == name; });
  if (found == query.end()) return std::nullopt;
  return found->second;
}

std::string_view HttpRequest::Header(std::string_view name) const {
  const auto found = std::find_if(headers.begin(), headers.end(),
                                  [&](const auto& header) { return header.first == name; });
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

HttpResponse ErrorResponse(int status, std::string_view message) {
  JsonWriter json;
  json.BeginObject().Key("error").Value(message).EndObject();
  return {.status = status,
          .content_type = "application/json",
          .body = std::move(json).Take(),
          .headers = {{"Cache-Control", "no-store"}}};
}

void CompressIfWanted(const HttpRequest& request, HttpResponse& response) {
  if (response.body.size() <= kMinCompressedBytes || HasHeader(response, "Content-Encoding") ||
      !IsCompressible(response.content_type)) {
    return;
  }
  if (!HasHeader(response, "Vary")) {  // also when this client takes none
    response.headers.emplace_back("Vary", "Accept-Encoding");
  }
  if (!AcceptsGzip(request.Header("accept-encoding"))) return;
  response.body = Gzip(response.body, kGzipLevel);
  response.headers.emplace_back("Content-Encoding", "gzip");
}

WireResponse RenderResponse(HttpResponse response, bool is_head, bool keep_alive) {
  WireResponse wire{.status = response.status,
                    .keep_alive = keep_alive,
                    .head = {},
                    .body = {},
                    .hold_ms = response.hold_ms};
  wire.head = fmt::format("HTTP/1.1 {} {}\r\n", response.status, ReasonOf(response.status));
  AppendHeader("Date", HttpDate(), wire.head);
  if (!HasNoBodyByNature(response.status)) {
    AppendHeader("Content-Type", response.content_type, wire.head);
    AppendHeader("Content-Length", std::to_string(response.body.size()), wire.head);
    if (!is_head) wire.body = std::move(response.body);
  }
  AppendHeader("Connection", keep_alive ? "keep-alive" : "close", wire.head);
  AppendHeader("X-Content-Type-Options", "nosniff", wire.head);
  AppendHeader("Referrer-Policy", "no-referrer", wire.head);
  for (const auto& [name, value] : response.headers) AppendHeader(name, value, wire.head);
  wire.head.append("\r\n");
  return wire;
}

}  // namespace firewatch::transport
