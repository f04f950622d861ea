// SPDX-License-Identifier: Apache-2.0
#include "agent/debug_info_uploader.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/clock.h"
#include "base/logging.h"
#include "base/mutex.h"
#include "base/status.h"
#include "symbolizer/debug_copy.h"
#include "transport/plain_http.h"

namespace firewatch::agent {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;
using symbolizer::BuildId;
using symbolizer::FileUse;

constexpr std::string_view kPath = "/api/v1/debuginfo/";
constexpr int kNice = 10;
// Times that one file is tried: its process is gone each time, or the server fails on it.
constexpr int kMaxAttempts = 8;
// The helper ends itself after half a minute without work, when somebody looks.
constexpr auto kHelperLinger = std::chrono::seconds(45);
constexpr auto kLookAfterHelper = std::chrono::seconds(15);
constexpr double kMaxWaitSeconds = 60;

enum class Result : uint8_t {
  kUploaded,
  kPresent,   // the server has it
  kWithout,   // stripped, and no debug file is there
  kRefused,   // by the helper or the server
  kTooLarge,  // for either end
  kGone,      // its process has ended before
  kFailed,    // no connection, or the server is in trouble: tried again
  kStopped,
};
constexpr std::array<const char*, 7> kResultNames = {"uploaded",  "present", "without", "refused",
                                                     "too_large", "gone",    "failed"};

// What the server says of a build id. Every field is checked for its type.
struct ServerEntry {
  std::string state;
  bool has_lines = false;
  bool has_debug = false;
  bool has_executable = false;
  bool has_common = false;
  bool lacks_common = false;  // it has the file, but not the common one of dwz that this refers to

  bool settled() const {
    if (lacks_common) return false;
    if (state == "building" || (state == "ready" && has_lines)) return true;
    // Somebody's file is there and is no good: ours is the same.
    return (has_debug || has_executable) && state != "ready" && state != "unknown" &&
           state != "no_symbols";
  }
  bool Has(bool executable) const { return executable ? has_executable : has_debug; }
};

absl::StatusOr<ServerEntry> ParseEntry(const std::string& body) {
  const Json json = Json::parse(body, nullptr, false);
  const auto text = [](const Json& object, const char* key) {
    const auto at = object.is_object() ? object.find(key) : object.end();
    return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
  };
  ServerEntry entry;
  if (json.is_object()) entry.state = text(json, "state");
  if (entry.state.empty()) return base::Unavailable("the answer is none of a Firewatch server");
  const auto lines = json.find("lines");
  entry.has_lines = lines != json.end() && lines->is_boolean() && lines->get<bool>();
  entry.lacks_common = !text(json, "missing_common").empty();
  const auto files = json.find("files");
  if (files == json.end() || !files->is_array()) return entry;
  for (const Json& file : *files) {
    if (!file.is_object()) continue;
    const std::string kind = text(file, "kind");
    entry.has_debug |= kind == "debug";
    entry.has_executable |= kind == "executable";
    entry.has_common |= kind == "common";
  }
  return entry;
}

uint64_t ThreadCpuNs() {
  struct timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
}

class Uploading final : public DebugInfoUploader {
 public:
  Uploading(DebugInfoUploaderOptions options, transport::PlainHttpUrl url,
            base::MetricsRegistry& metrics);
  ~Uploading() override;
  void Offer(const FileUse& use) override ABSL_LOCKS_EXCLUDED(mutex_);
  bool WaitIdle(int timeout_ms) override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until one may begin; false: stop.
  bool TakeNext(FileUse* use) ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(const FileUse& use, Result result) ABSL_LOCKS_EXCLUDED(mutex_);
  void SpendCpu();

  Result Handle(const FileUse& use);
  Result ResultOf(const absl::Status& status, const FileUse& use);
  Result FailureOf(const absl::Status& exchange, const FileUse& use);
  Result ResultOf(const transport::HttpResponse& answer, const FileUse& use);
  // Nothing: the server can use what we have.
  std::optional<Result> Ask(const FileUse& use, const BuildId& id, ServerEntry* entry);
  Result Send(const FileUse& use, symbolizer::DebugCopies::Source& source);
  // False: stop.
  bool Sleep(milliseconds time) ABSL_LOCKS_EXCLUDED(mutex_);
  int Random(int below) { return below <= 0 ? 0 : static_cast<int>(random_() % (unsigned)below); }

  const DebugInfoUploaderOptions options_;
  const transport::PlainHttpUrl url_;
  const base::SystemClock clock_;
  std::atomic<bool> stop_{false};

  base::Mutex mutex_;
  base::CondVar changed_;
  absl::flat_hash_map<BuildId, FileUse> waiting_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<BuildId> done_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<BuildId, int> attempts_ ABSL_GUARDED_BY(mutex_);
  BuildId current_ ABSL_GUARDED_BY(mutex_);

  // Of the thread.
  static constexpr size_t kMaxCommons = 4096;
  absl::flat_hash_set<BuildId> commons_;  // common files that were sent, there, or refused
  symbolizer::DebugCopies copies_;
  symbolizer::CpuBudget budget_;
  uint64_t helper_cpu_ns_ = 0;
  uint64_t thread_cpu_ns_ = 0;
  int backoff_ms_ = 0;  // 0: the server answers
  bool server_failed_ = false;
  SteadyClock::time_point not_before_{};
  SteadyClock::time_point last_work_{};
  std::minstd_rand random_;

  std::array<base::Counter*, kResultNames.size()> results_{};
  base::Counter& bytes_;
  base::Counter& left_out_;
  base::Counter& cpu_ms_;
  base::Gauge& waiting_gauge_;
  std::thread thread_;  // last: runs on everything above
};

Uploading::Uploading(DebugInfoUploaderOptions options, transport::PlainHttpUrl url,
                     base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      url_(std::move(url)),
      copies_(options_.copies, clock_, metrics),
      budget_(options_.cpu, clock_.MonotonicNs()),
      random_(std::random_device{}()),
      bytes_(metrics.AddCounter("firewatch_debuginfo_upload_bytes_total",
                                "Bytes of debug information sent, compressed.")),
      left_out_(metrics.AddCounter("firewatch_debuginfo_uploads_left_out_total",
                                   "Offers of files that were not taken: too many wait.")),
      cpu_ms_(metrics.AddCounter("firewatch_debuginfo_upload_cpu_milliseconds_total",
                                 "CPU time of making and compressing copies, helper included.")),
      waiting_gauge_(metrics.AddGauge("firewatch_debuginfo_uploads_waiting",
                                      "Build ids that the server is to be asked for.")) {
  for (size_t i = 0; i < results_.size(); ++i) {
    results_[i] = &metrics.AddCounter("firewatch_debuginfo_uploads_total",
                                      "Build ids that were to be uploaded, by result of a try.",
                                      {{"result", kResultNames[i]}});
  }
  thread_ = std::thread([this] { Run(); });
}

Uploading::~Uploading() {
  {
    base::MutexLock lock(mutex_);
    stop_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void Uploading::Offer(const FileUse& use) {
  if (use.id.empty()) return;
  {
    base::MutexLock lock(mutex_);
    if (use.id == current_ || done_.contains(use.id)) return;
    if (const auto known = waiting_.find(use.id); known != waiting_.end()) {
      const uint64_t frames = known->second.frames + use.frames;
      known->second = use;
      known->second.frames = frames;
      return;
    }
    if (waiting_.size() >= options_.max_waiting || done_.size() >= options_.max_done) {
      return left_out_.Add();
    }
    waiting_.emplace(use.id, use);
    waiting_gauge_.Set(static_cast<double>(waiting_.size()));
  }
  changed_.NotifyAll();
}

bool Uploading::WaitIdle(int timeout_ms) {
  const auto deadline = SteadyClock::now() + milliseconds(timeout_ms);
  base::MutexLock lock(mutex_);
  while (!waiting_.empty() || !current_.empty()) {
    const auto left = deadline - SteadyClock::now();
    if (left <= std::chrono::nanoseconds::zero()) return false;
    changed_.WaitFor(mutex_, left);
  }
  return true;
}

bool Uploading::Sleep(milliseconds time) {
  const auto deadline = SteadyClock::now() + time;
  base::MutexLock lock(mutex_);
  while (!stop_) {
    const auto left = deadline - SteadyClock::now();
    if (left <= std::chrono::nanoseconds::zero()) return true;
    changed_.WaitFor(mutex_, left);
  }
  return false;
}

bool Uploading::TakeNext(FileUse* use) {
  while (true) {
    // Outside the lock: it may reap the helper, and Offer never waits.
    copies_.Idle();
    {
      base::MutexLock lock(mutex_);
      if (!stop_ && waiting_.empty()) {
        // Nothing wakes without need: only as long as the helper may live.
        if (SteadyClock::now() - last_work_ > kHelperLinger) {
          changed_.Wait(mutex_);
        } else {
          changed_.WaitFor(mutex_, kLookAfterHelper);
        }
      }
      if (stop_) return false;
      if (waiting_.empty()) continue;
      const auto now = SteadyClock::now();
      const bool allowed = budget_.Allows(clock_.MonotonicNs());
      if (allowed && now >= not_before_) {
        const auto most = std::max_element(
            waiting_.begin(), waiting_.end(),
            [](const auto& a, const auto& b) { return a.second.frames < b.second.frames; });
        *use = most->second;
        current_ = use->id;
        waiting_.erase(most);
        waiting_gauge_.Set(static_cast<double>(waiting_.size()));
        return true;
      }
    }
    const double budget_seconds = std::min(budget_.SecondsToWait(), kMaxWaitSeconds);
    const auto wait =
        std::max(std::chrono::duration_cast<milliseconds>(not_before_ - SteadyClock::now()),
                 milliseconds(static_cast<int64_t>(budget_seconds * 1000))) +
        milliseconds(1);
    // A minute at most, to look after the helper.
    if (!Sleep(std::min(wait, milliseconds(60'000)))) return false;
  }
}

void Uploading::SpendCpu() {
  const uint64_t helper = copies_.cpu_ns();
  const uint64_t own = ThreadCpuNs();
  const uint64_t used = (helper - helper_cpu_ns_) + (own - thread_cpu_ns_);
  helper_cpu_ns_ = helper;
  thread_cpu_ns_ = own;
  budget_.Spend(used);
  cpu_ms_.Add(used / 1'000'000);
}

void Uploading::Run() {
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);
  FileUse use;
  while (TakeNext(&use)) {
    server_failed_ = false;
    const Result result = Handle(use);
    SpendCpu();
    last_work_ = SteadyClock::now();
    if (result == Result::kFailed) {
      backoff_ms_ = std::clamp(backoff_ms_ * 2, options_.backoff_min_ms, options_.backoff_max_ms);
      not_before_ = last_work_ + milliseconds(backoff_ms_ / 2 + Random(backoff_ms_));
    } else {
      backoff_ms_ = 0;
    }
    Finish(use, result);
  }
}

void Uploading::Finish(const FileUse& use, Result result) {
  if (result != Result::kStopped) results_[static_cast<size_t>(result)]->Add();
  {
    base::MutexLock lock(mutex_);
    current_ = {};
    bool again = result == Result::kGone || result == Result::kFailed;
    // A server that is away is no fault of the file.
    const bool counts = result == Result::kGone || server_failed_;
    if (again && counts &&
        (attempts_.size() >= options_.max_done || ++attempts_[use.id] >= kMaxAttempts)) {
      again = false;
    }
    if (!again) {
      done_.insert(use.id);
      attempts_.erase(use.id);
    } else if (result == Result::kFailed) {
      // Behind all others. What is gone waits for a process that shows it: it is offered again.
      const auto [at, is_new] = waiting_.try_emplace(use.id, use);
      if (is_new) at->second.frames = 0;
    }
    waiting_gauge_.Set(static_cast<double>(waiting_.size()));
  }
  changed_.NotifyAll();
}

Result Uploading::ResultOf(const absl::Status& status, const FileUse& use) {
  if (stop_) return Result::kStopped;
  spdlog::debug("debug information of {}: {}", use.file.path, base::Message(status));
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return Result::kGone;
    case absl::StatusCode::kFailedPrecondition:
      return Result::kWithout;
    case absl::StatusCode::kInvalidArgument:
      return Result::kRefused;
    case absl::StatusCode::kResourceExhausted:
      return Result::kTooLarge;
    default:
      return Result::kFailed;
  }
}

Result Uploading::FailureOf(const absl::Status& exchange, const FileUse& use) {
  spdlog::debug("debug information of {}: {}", use.file.path, base::Message(exchange));
  return stop_ ? Result::kStopped : Result::kFailed;
}

Result Uploading::ResultOf(const transport::HttpResponse& answer, const FileUse& use) {
  if (answer.status == 201) return Result::kUploaded;
  spdlog::debug("debug information of {}: the server answered {}: {}", use.file.path, answer.status,
                answer.body);
  if (answer.status == 413) return Result::kTooLarge;
  if (answer.status == 400 || answer.status == 422) return Result::kRefused;
  server_failed_ = true;
  return Result::kFailed;
}

std::optional<Result> Uploading::Ask(const FileUse& use, const BuildId& id, ServerEntry* entry) {
  const auto answer =
      transport::PlainHttp(url_, {.target = std::string(kPath) + id.ToHex()}, {.cancel = &stop_});
  if (!answer.ok()) return FailureOf(answer.status(), use);
  if (answer->status != 200) {
    // A server that keeps no debug information, or an older one: another may take its place.
    if (answer->status < 500) backoff_ms_ = options_.backoff_max_ms;
    return Result::kFailed;
  }
  auto parsed = ParseEntry(answer->body);
  if (!parsed.ok()) return FailureOf(parsed.status(), use);
  *entry = *std::move(parsed);
  if (entry->settled()) return Result::kPresent;
  return std::nullopt;
}

Result Uploading::Handle(const FileUse& use) {
  ServerEntry entry;
  if (const auto settled = Ask(use, use.id, &entry)) return *settled;
  auto sources = copies_.Find(use, stop_);
  if (!sources.ok()) return ResultOf(sources.status(), use);
  if (options_.spread_ms > 0) {
    if (!Sleep(milliseconds(Random(options_.spread_ms)))) return Result::kStopped;
    if (const auto settled = Ask(use, use.id, &entry)) return *settled;
  }
  const bool any_lines =
      std::ranges::any_of(*sources, [](const auto& source) { return source.has_lines; });
  if (entry.state == "ready" && !any_lines) return Result::kPresent;
  Result result = Result::kPresent;
  for (symbolizer::DebugCopies::Source& source : *sources) {
    if (source.is_common) {
      // Another program may have brought it. One that cannot be sent keeps nothing else back, and
      // is not tried again for each program.
      ServerEntry common;
      if (commons_.contains(source.id)) continue;
      const auto known = Ask(use, source.id, &common);
      if (known == Result::kFailed || known == Result::kStopped) return *known;
      const Result sent = common.has_common ? Result::kPresent : Send(use, source);
      if (sent == Result::kStopped) return sent;
      if (commons_.size() >= kMaxCommons) commons_.clear();
      commons_.insert(source.id);
      continue;
    }
    if (entry.Has(source.is_executable)) continue;
    const Result sent = Send(use, source);
    if (sent == Result::kFailed || sent == Result::kStopped) return sent;
    if (sent == Result::kUploaded || result == Result::kPresent) result = sent;
  }
  return result;
}

Result Uploading::Send(const FileUse& use, symbolizer::DebugCopies::Source& source) {
  auto copy = copies_.Copy(source, stop_);
  if (!copy.ok()) return ResultOf(copy.status(), use);
  symbolizer::CompressedFile reader(copy->get(), {});
  const auto begin = SteadyClock::now();
  const auto produce = [&](char* buffer, size_t capacity) -> absl::StatusOr<size_t> {
    const auto due = begin + milliseconds(reader.sent_bytes() * 1000 /
                                          std::max<uint64_t>(options_.max_bytes_per_second, 1));
    const auto early = std::chrono::duration_cast<milliseconds>(due - SteadyClock::now());
    if (early > milliseconds(0) && !Sleep(early)) return absl::CancelledError("stopped");
    ASSIGN_OR_RETURN(const size_t bytes, reader.Read(buffer, capacity));
    bytes_.Add(bytes);
    return bytes;
  };
  const auto answer = transport::PlainHttp(
      url_,
      {.method = "PUT",
       .target = fmt::format("{}{}?kind={}&source=agent", kPath, source.id.ToHex(),
                             source.is_executable ? "executable" : "debug"),
       .headers = {{"Content-Encoding", "zstd"}, {"Content-Type", "application/octet-stream"}},
       .produce = produce},
      {.cancel = &stop_});
  if (!answer.ok()) return FailureOf(answer.status(), use);
  const Result result = ResultOf(*answer, use);
  if (result == Result::kUploaded) {
    spdlog::info("debug information of {} sent: {} bytes as {}", use.file.path, source.bytes,
                 reader.sent_bytes());
  }
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DebugInfoUploader>> DebugInfoUploader::Start(
    DebugInfoUploaderOptions options, base::MetricsRegistry& metrics) {
  ASSIGN_OR_RETURN(auto url, transport::ParsePlainHttpUrl(options.server));
  return std::make_unique<Uploading>(std::move(options), std::move(url), metrics);
}

}  // namespace firewatch::agent
