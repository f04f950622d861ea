// SPDX-License-Identifier: Apache-2.0
#include "agent/health.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "agent/core/write_token.h"

namespace firewatch::agent {
namespace {

// Error texts may quote what a peer sent, paths are any bytes: never throw on what is not UTF-8.
std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void AddStackEnds(const std::vector<ProgramStackEnds>& programs, nlohmann::json* out) {
  std::array<uint64_t, FW_STACK_END_COUNT> total{};
  nlohmann::json list = nlohmann::json::array();
  for (const ProgramStackEnds& program : programs) {
    nlohmann::json ends = nlohmann::json::object();
    for (size_t i = 0; i < total.size(); ++i) {
      total[i] += program.counts[i];
      if (program.counts[i] != 0) {
        ends[StackEndName(static_cast<fw_stack_end>(i))] = program.counts[i];
      }
    }
    list.push_back({{"program", program.program},
                    {"complete_stacks", CompleteShare(program.counts)},
                    {"stack_ends", std::move(ends)}});
  }
  (*out)["complete_stacks"] = CompleteShare(total);
  (*out)["programs"] = std::move(list);
}

void AddModules(const ModuleHost& host, nlohmann::json* out) {
  nlohmann::json list = nlohmann::json::array();
  for (const ModuleView& module : host.Views()) {
    nlohmann::json row = {{"name", module.name},
                          {"enabled", module.enabled},
                          {"state", ModuleStateName(module.state)},
                          {"why", module.why},
                          {"detail", module.detail_text},
                          {"level", module.governor.level},
                          {"cpu_percent", 100 * module.governor.cpu},
                          {"cpu_share_percent", 100 * module.governor.share},
                          {"memory_bytes", module.governor.memory_bytes},
                          {"memory_share_bytes", module.governor.memory_share_bytes},
                          {"steps_down", module.governor.steps_down},
                          {"steps_up", module.governor.steps_up}};
    const nlohmann::json details =
        nlohmann::json::parse(module.details_json, nullptr, /*allow_exceptions=*/false);
    if (details.is_object()) row["details"] = details;
    list.push_back(std::move(row));
  }
  (*out)["modules"] = std::move(list);
  (*out)["budget"] = {{"percent", 100 * host.budget()},
                      {"used_percent", 100 * host.used()},
                      {"agent_percent", 100 * host.used_by_agent()}};
}

nlohmann::json ToJson(const TableReport& report) {
  nlohmann::json tables = nlohmann::json::array();
  for (const TableListing::Row& row : report.listing.rows) {
    tables.push_back({{"path", row.path},
                      {"build_id", row.build_id},
                      {"rows", row.rows},
                      {"bytes", row.bytes},
                      {"rules", row.rules},
                      {"last_used_s", row.last_used_s},
                      {"uses", row.uses},
                      {"state", row.state},
                      {"reason", row.reason}});
  }
  nlohmann::json maps = nlohmann::json::object();
  for (const auto& [name, bytes] : report.maps) maps[name] = bytes;
  return {{"now_s", report.now_s},
          {"tables", std::move(tables)},
          {"rows_loaded", report.listing.rows_loaded},
          {"table_bytes", report.listing.table_bytes},
          {"slab_bytes", report.listing.slab_bytes},
          {"slabs", report.listing.slabs},
          {"evictions", report.listing.evictions},
          {"map_bytes", std::move(maps)},
          {"rss_anon_bytes", report.rss_anon_bytes},
          {"memory_limit_bytes", report.memory_limit_bytes}};
}

}  // namespace

void Health::Started(uint64_t window_ms) {
  base::MutexLock lock(mutex_);
  window_ms_ = window_ms;
  last_window_ns_ = clock_.MonotonicNs();
}

void Health::SetSampler(std::string kind, std::string note) {
  base::MutexLock lock(mutex_);
  sampler_ = std::move(kind);
  sampler_note_ = std::move(note);
}

void Health::SetHost(const ModuleHost* host) {
  base::MutexLock lock(mutex_);
  host_ = host;
}

std::string Health::HealthText() const {
  base::MutexLock lock(mutex_);
  std::string text = sampler_note_.empty() ? "ok\n" : fmt::format("ok\n{}\n", sampler_note_);
  if (host_ == nullptr) return text;
  for (const ModuleView& module : host_->Views()) {
    // The note has said it already, and more of it.
    const bool noted = !sampler_note_.empty() && sampler_note_.starts_with(module.why);
    if (!module.enabled || module.state == ModuleState::kActive || noted) continue;
    text += fmt::format("module {} is {}: {}\n", module.name, ModuleStateName(module.state),
                        module.why);
  }
  return text;
}

void Health::SetWriteToken(std::string token, std::string path) {
  base::MutexLock lock(mutex_);
  write_token_ = std::move(token);
  write_token_path_ = std::move(path);
}

std::optional<transport::HttpResponse> Health::AskModules(
    const transport::HttpRequest& request) const {
  const ModuleHost* host = nullptr;
  {
    base::MutexLock lock(mutex_);
    host = host_;
    const bool changes = request.method != "GET" && request.method != "HEAD";
    const bool guarded = changes && request.path.starts_with("/api/");
    if (host != nullptr && (guarded || host->NeedsToken(request)) &&
        !BearsToken(request.Header("authorization"), write_token_)) {
      transport::HttpResponse refused = transport::ErrorResponse(
          401, fmt::format("this needs the token in {}", write_token_path_));
      refused.headers.emplace_back("WWW-Authenticate", "Bearer");
      return refused;
    }
  }
  // The page ends before the host does.
  return host == nullptr ? std::nullopt : host->Handle(request);
}

void Health::WindowClosed(const ClosedWindow& window) {
  base::MutexLock lock(mutex_);
  last_window_ns_ = clock_.MonotonicNs();
  ++windows_;
  samples_ += window.samples;
}

void Health::SetProgramEnds(std::shared_ptr<const StackEndsByProgram> ends) {
  base::MutexLock lock(mutex_);
  program_ends_ = std::move(ends);
}

void Health::SetTables(TableReport report) {
  base::MutexLock lock(mutex_);
  tables_ = std::move(report);
}

void Health::SetUploader(const Uploader* uploader) {
  base::MutexLock lock(mutex_);
  uploader_ = uploader;
}

std::string Health::Problem() const {
  base::MutexLock lock(mutex_);
  if (host_ != nullptr) {
    for (const ModuleView& module : host_->Views()) {
      if (module.name != "cpu" || module.state != ModuleState::kOff) continue;
      if (!module.enabled || module.governed_off) return "";
      if (window_ms_ != 0 || !module.why.empty()) {
        return fmt::format("module cpu is off: {}", module.why);
      }
    }
  }
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
  if (program_ends_ != nullptr) AddStackEnds(program_ends_->Programs(), &out);
  if (!sampler_.empty()) out["sampler"] = {{"kind", sampler_}, {"note", sampler_note_}};
  if (host_ != nullptr) AddModules(*host_, &out);
  if (uploader_ != nullptr) {
    const UploaderStatus upload = uploader_->Status();
    out["upload"] = {{"connected", upload.connected},
                     {"last_error", upload.last_error},
                     {"spooled_windows", upload.spooled_windows},
                     {"spooled_bytes", upload.spooled_bytes},
                     {"uploaded_windows", upload.uploaded_windows},
                     {"dropped_windows", upload.dropped_windows}};
  }
  return Dump(out);
}

std::string Health::TablesJson() const {
  base::MutexLock lock(mutex_);
  return tables_.has_value() ? Dump(ToJson(*tables_)) : "";
}

transport::HttpResponse HandleAgentRequest(const transport::HttpRequest& request,
                                           const base::MetricsRegistry& metrics,
                                           const Health& health) {
  if (auto answer = health.AskModules(request)) return *std::move(answer);
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
    response.body = health.HealthText();
    return response;
  }
  if (request.path == "/status") {
    response.content_type = "application/json";
    response.body = health.StatusJson();
    return response;
  }
  if (request.path == "/tables") {
    response.content_type = "application/json";
    response.body = health.TablesJson();
    if (!response.body.empty()) return response;
    return transport::ErrorResponse(404, "this agent has not unwound by tables so far");
  }
  return transport::ErrorResponse(404, "there is /metrics, /healthz, /status and /tables");
}

}  // namespace firewatch::agent
