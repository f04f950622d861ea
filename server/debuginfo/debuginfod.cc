// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/debuginfod.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/logging.h"
#include "base/status.h"
#include "transport/http_client.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;

constexpr size_t kMaxQuiet = 65'536;
constexpr int kMaxRedirects = 5;
constexpr size_t kMaxRemembered = 65'536;

}  // namespace

std::vector<std::string> ParseDebuginfodUrls(std::string_view text) {
  std::vector<std::string> urls;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of(" \t\n"), text.size());
    std::string_view url = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    while (url.ends_with('/')) url.remove_suffix(1);
    if (url.starts_with("http://") || url.starts_with("https://")) urls.emplace_back(url);
  }
  return urls;
}

Debuginfod::Debuginfod(DebuginfodOptions options, DebugInfo& debuginfo, const base::Clock& clock,
                       base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      debuginfo_(debuginfo),
      clock_(clock),
#define FIREWATCH_DEBUGINFOD_COUNTER(result)                                                \
  metrics.AddCounter("firewatch_debuginfod_total", "Build ids by how debuginfod answered.", \
                     {{"result", result}})
      fetched_(FIREWATCH_DEBUGINFOD_COUNTER("fetched")),
      missing_(FIREWATCH_DEBUGINFOD_COUNTER("missing")),
      failed_(FIREWATCH_DEBUGINFOD_COUNTER("failed")),
      refused_(FIREWATCH_DEBUGINFOD_COUNTER("refused")),
      full_(FIREWATCH_DEBUGINFOD_COUNTER("queue_full")),
      remembered_(FIREWATCH_DEBUGINFOD_COUNTER("remembered")),
#undef FIREWATCH_DEBUGINFOD_COUNTER
      bytes_(metrics.AddCounter("firewatch_debuginfod_bytes_total", "Bytes from debuginfod.")),
      queue_(options_.max_waiting) {
  if (options_.urls.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(options_.directory, error);
  // Beyond it an old memory is worth less than its directory entries.
  size_t entries = 0;
  for (std::filesystem::directory_iterator it(options_.directory, error), end; !error && it != end;
       it.increment(error)) {
    ++entries;
  }
  if (entries > kMaxRemembered) {
    std::filesystem::remove_all(options_.directory, error);
    std::filesystem::create_directories(options_.directory, error);
  }
  thread_ = std::thread([this] { Run(); });
}

Debuginfod::~Debuginfod() {
  stop_ = true;
  queue_.Close();
  if (thread_.joinable()) thread_.join();
}

void Debuginfod::Want(const BuildId& id) {
  if (options_.urls.empty()) return;
  const int64_t now_ms = clock_.Now().unix_ms();
  base::MutexLock lock(mutex_);
  const auto it = quiet_until_.find(id);
  if (it != quiet_until_.end() && now_ms < it->second) return;
  if (quiet_until_.size() >= kMaxQuiet) quiet_until_.clear();
  if (!queue_.TryPush(BuildId(id))) {
    full_.Add();
    return;
  }
  ++pending_;
  quiet_until_[id] = INT64_MAX;  // until the thread knows better
}

bool Debuginfod::WaitIdle(int timeout_ms) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  base::MutexLock lock(mutex_);
  while (pending_ > 0) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero()) return false;
    idle_.WaitFor(mutex_, left);
  }
  return true;
}

// Home: the thread.
void Debuginfod::Run() {
  while (auto id = queue_.Pop()) {
    if (stop_) return;
    int64_t until_ms = RememberedUntil(*id);
    if (clock_.Now().unix_ms() < until_ms) {
      remembered_.Add();
    } else {
      const Outcome outcome = Fetch(*id);
      if (stop_) return;
      (outcome == Outcome::kFetched   ? fetched_
       : outcome == Outcome::kMissing ? missing_
                                      : failed_)
          .Add();
      Remember(*id, outcome);
      until_ms = clock_.Now().unix_ms() +
                 (outcome == Outcome::kFailed ? options_.failed_ms : options_.missing_ms);
    }
    base::MutexLock lock(mutex_);
    quiet_until_[*id] = until_ms;
    --pending_;
    idle_.NotifyAll();
  }
}

Debuginfod::Outcome Debuginfod::Fetch(const BuildId& id) {
  const Outcome debug = FetchKind(id, FileKind::kDebug);
  if (debug == Outcome::kFetched || stop_) return debug;
  // The executable has symbols at least, if it is not stripped, and segments in any case.
  const Outcome executable = FetchKind(id, FileKind::kExecutable);
  if (executable == Outcome::kFetched) return executable;
  return debug == Outcome::kFailed ? debug : executable;
}

Debuginfod::Outcome Debuginfod::FetchKind(const BuildId& id, FileKind kind) {
  const base::UniqueFd kept = debuginfo_.files().OpenFile(id, kind);
  if (kept.valid()) return Outcome::kMissing;  // there, and yet without lines: no more to be had
  Outcome outcome = Outcome::kMissing;
  for (const std::string& base : options_.urls) {
    const std::string url = fmt::format("{}/buildid/{}/{}", base, id.ToHex(),
                                        kind == FileKind::kDebug ? "debuginfo" : "executable");
    const Outcome one = FetchFrom(url, id, kind);
    if (one == Outcome::kFetched || stop_) return one;
    if (one == Outcome::kFailed) outcome = one;
  }
  return outcome;
}

Debuginfod::Outcome Debuginfod::FetchFrom(const std::string& url, const BuildId& id,
                                          FileKind kind) {
  auto file = debuginfo_.files().Receive();
  if (!file.ok()) {
    spdlog::warn("debuginfod: {}", base::ToString(file.status()));
    return Outcome::kFailed;
  }
  const auto answer =
      transport::HttpDownload(url,
                              [&](std::string_view piece) {
                                bytes_.Add(piece.size());
                                return (*file)->Write(piece);
                              },
                              {.connect_timeout_ms = options_.connect_timeout_ms,
                               .timeout_ms = options_.timeout_ms,
                               .stall_timeout_ms = options_.stall_timeout_ms,
                               .max_body_bytes = debuginfo_.files().options().max_file_bytes,
                               .accept_gzip = true,
                               .max_redirects = kMaxRedirects,
                               .cancel = &stop_});
  if (!answer.ok()) {
    spdlog::info("debuginfod: {}", base::ToString(answer.status()));
    return Outcome::kFailed;
  }
  if (answer->status == 404) return Outcome::kMissing;
  if (answer->status != 200) {
    spdlog::info("debuginfod: {}: status {}", url, answer->status);
    return Outcome::kFailed;
  }
  const absl::Status status = debuginfo_.Accept(**file, id, kind, FileSource::kDebuginfod);
  if (status.ok()) return Outcome::kFetched;
  refused_.Add();
  spdlog::warn("debuginfod: {}: {}", url, base::ToString(status));
  return Outcome::kFailed;
}

// The file's time is until when it holds.
int64_t Debuginfod::RememberedUntil(const BuildId& id) const {
  struct stat info{};
  const std::string path = options_.directory + "/" + id.ToHex();
  if (::stat(path.c_str(), &info) != 0) return 0;
  return info.st_mtim.tv_sec * 1000;
}

void Debuginfod::Remember(const BuildId& id, Outcome outcome) {
  const std::string path = options_.directory + "/" + id.ToHex();
  if (outcome == Outcome::kFetched) {
    ::unlink(path.c_str());
    return;
  }
  const base::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!fd.valid()) return;  // asked again after a restart, then
  const int64_t until_ms = clock_.Now().unix_ms() +
                           (outcome == Outcome::kFailed ? options_.failed_ms : options_.missing_ms);
  const timespec time = {.tv_sec = until_ms / 1000, .tv_nsec = 0};
  const timespec times[2] = {time, time};
  (void)::futimens(fd.get(), times);
}

}  // namespace firewatch::server
