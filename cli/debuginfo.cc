// SPDX-License-Identifier: Apache-2.0
#include "cli/debuginfo.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/status.h"
#include "cli/debug_file.h"
#include "symbolizer/debug_copy.h"
#include "transport/http_client.h"

namespace firewatch::cli {
namespace {

using Json = nlohmann::json;

constexpr std::chrono::milliseconds kPollInterval{250};
// The server checks a file before it answers.
constexpr int kStallTimeoutMs = 120'000;

std::string BaseUrl(const std::string& server) {
  std::string url = server.find("://") == std::string::npos ? "http://" + server : server;
  while (url.ends_with('/')) url.pop_back();
  return url + "/api/v1/debuginfo";
}

std::string Megabytes(uint64_t bytes) {
  if (bytes < 1'000'000) return fmt::format("{:.1f} KB", static_cast<double>(bytes) / 1e3);
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

absl::Status ErrorOf(const transport::HttpResponse& answer) {
  const Json body = Json::parse(answer.body, nullptr, false);
  const std::string text = body.is_object() ? body.value("error", "") : "";
  if (answer.status == 404 || answer.status == 405) {
    return base::Unavailable("this server takes no debug information ({})", answer.status);
  }
  return base::Unavailable("the server answered {}: {}", answer.status, text);
}

// Every field is checked for its type: what answers may be no Firewatch server.
std::string TextOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}
uint64_t NumberOf(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_unsigned() ? it->get<uint64_t>() : 0;
}
bool IsTrue(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

absl::StatusOr<Json> GetJson(const std::string& url) {
  ASSIGN_OR_RETURN(const auto answer, transport::HttpGet(url));
  if (answer.status != 200) return ErrorOf(answer);
  Json json = Json::parse(answer.body, nullptr, false);
  if (!json.is_object()) return base::Unavailable("{}: the answer is not JSON", url);
  return json;
}

// "ready, with lines"; an error when the server could not use the file.
absl::StatusOr<std::string> Describe(const Json& entry) {
  const std::string state = TextOf(entry, "state");
  const std::string reason = TextOf(entry, "reason");
  const std::string because = reason.empty() ? "" : " (" + reason + ")";
  if (state == "ready") {
    return IsTrue(entry, "lines") ? "ready: functions, files and lines"
                                  : "ready: functions only" + because;
  }
  if (state == "building") return std::string("being read by the server");
  return base::FailedPrecondition("the server could not use it: {}{}", state, because);
}

absl::StatusOr<std::string> WaitForNames(const std::string& url, int wait_seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(wait_seconds);
  while (true) {
    ASSIGN_OR_RETURN(const Json entry, GetJson(url));
    if (TextOf(entry, "state") != "building" || std::chrono::steady_clock::now() >= deadline) {
      return Describe(entry);
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

// Prints a line about what was sent.
absl::Status Send(const DebugFile& file, const std::string& base_url) {
  symbolizer::CompressedFile reader(file.fd.get(), file.blank);
  const std::string_view kind = file.has_code ? "executable" : "debug";
  const std::string url = fmt::format("{}/{}?kind={}", base_url, file.id.ToHex(), kind);
  ASSIGN_OR_RETURN(
      const auto answer,
      transport::HttpPut(
          url, [&](char* buffer, size_t capacity) { return reader.Read(buffer, capacity); },
          "application/octet-stream",
          {.timeout_ms = 0,
           .stall_timeout_ms = kStallTimeoutMs,
           .headers = {{"Content-Encoding", "zstd"}}}));
  if (answer.status != 201) return ErrorOf(answer);
  fmt::print("{}: {} of build id {}, {} sent as {}\n", file.path, kind, file.id.ToHex(),
             Megabytes(file.bytes), Megabytes(reader.sent_bytes()));
  std::fflush(stdout);
  return absl::OkStatus();
}

bool IsKept(const symbolizer::BuildId& common, const std::string& base_url) {
  const absl::StatusOr<Json> entry = GetJson(base_url + "/" + common.ToHex());
  return entry.ok() && TextOf(*entry, "state") == "common";
}

// With the names that it shares with others before it, so that it is read once. Without them it is
// worth sending, too.
absl::Status SendWithCommon(const DebugFile& file, const std::string& base_url) {
  if (!file.altlink.empty() && !IsKept(file.altlink_id, base_url)) {
    const auto common = FindCommonFile(file);
    const absl::Status sent = common.ok() ? Send(*common, base_url) : common.status();
    if (!sent.ok()) {
      fmt::print(stderr,
                 "{}: names of inlined functions will be missing until it is uploaded: {}\n",
                 file.path, base::Message(sent));
    }
  }
  return Send(file, base_url);
}

absl::Status Upload(const std::string& path, const DebugInfoOptions& options) {
  const std::string base_url = BaseUrl(options.server);
  ASSIGN_OR_RETURN(const DebugFile file, OpenDebugFileAt(path));
  if (file.is_common) {
    RETURN_IF_ERROR(Send(file, base_url));
    fmt::print("{}: a common file of dwz: those that refer to it are read again\n", path);
    return absl::OkStatus();
  }
  if (!file.has_lines) {
    auto separate = FindSeparateDebugFile(file);
    if (separate.ok()) {
      RETURN_IF_ERROR(SendWithCommon(*separate, base_url));
    } else if (!file.has_symbols) {
      return separate.status();
    }
  }
  RETURN_IF_ERROR(SendWithCommon(file, base_url));
  ASSIGN_OR_RETURN(const std::string state,
                   WaitForNames(base_url + "/" + file.id.ToHex(), options.wait_seconds));
  fmt::print("{}: {}\n", path, state);
  return absl::OkStatus();
}

}  // namespace

int RunDebugInfoUpload(const DebugInfoOptions& options) {
  int code = 0;
  for (const std::string& path : options.files) {
    const absl::Status status = Upload(path, options);
    if (status.ok()) continue;
    fmt::print(stderr, "firewatch debuginfo upload: {}: {}\n", path, base::Message(status));
    code = 1;
  }
  return code;
}

int RunDebugInfoList(const DebugInfoOptions& options) {
  const absl::StatusOr<Json> list = GetJson(BaseUrl(options.server));
  if (!list.ok()) {
    fmt::print(stderr, "firewatch debuginfo list: {}\n", base::Message(list.status()));
    return 1;
  }
  const auto binaries = list->find("binaries");
  if (binaries == list->end() || !binaries->is_array()) {
    fmt::print(stderr, "firewatch debuginfo list: the answer is none of a Firewatch server\n");
    return 1;
  }
  fmt::print("{:<40}  {:<11} {:>10}  {}\n", "BUILD ID", "STATE", "BYTES", "BINARY");
  for (const Json& entry : *binaries) {
    if (!entry.is_object()) continue;
    uint64_t bytes = 0;
    if (const auto files = entry.find("files"); files != entry.end() && files->is_array()) {
      for (const Json& file : *files) bytes += file.is_object() ? NumberOf(file, "bytes") : 0;
    }
    const std::string state = TextOf(entry, "state");
    const std::string reason = TextOf(entry, "reason");
    fmt::print("{:<40}  {:<11} {:>10}  {}{}\n", TextOf(entry, "build_id"),
               state == "ready" && !IsTrue(entry, "lines") ? "no lines" : state, Megabytes(bytes),
               TextOf(entry, "path"), reason.empty() ? "" : "  (" + reason + ")");
  }
  fmt::print("{} of {} used\n", Megabytes(NumberOf(*list, "bytes")),
             Megabytes(NumberOf(*list, "max_bytes")));
  return 0;
}

}  // namespace firewatch::cli
