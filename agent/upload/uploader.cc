// SPDX-License-Identifier: Apache-2.0
// Submit puts a window on disk, one thread sends: always the oldest, one at a time, removed when
// the server has acknowledged it. The sender sleeps until there is something to do; after a failure
// it sleeps for a random time around a doubling backoff, so that a thousand agents do not come back
// to a restarted server at once.
#include "agent/upload/uploader.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "agent/core/losses.h"
#include "agent/upload/ingest_client.h"
#include "agent/upload/spool.h"
#include "base/logging.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// When the disk is full: 80 s of windows, and no more than UploaderOptions::memory_max_bytes.
constexpr size_t kMaxMemoryWindows = 8;
// Room for the framing of gRPC below the limit on messages.
constexpr size_t kMaxWindowBytes = static_cast<size_t>(kMaxMessageBytes) - 4096;

struct MemoryWindow {
  uint64_t sequence = 0;
  std::string payload;
};

class SpoolingUploader final : public Uploader {
 public:
  SpoolingUploader(UploaderOptions options, std::unique_ptr<Spool> spool,
                   base::MetricsRegistry& metrics);
  ~SpoolingUploader() override;

  absl::Status Submit(ingest::UploadWindowRequest window) override ABSL_LOCKS_EXCLUDED(mutex_);
  bool Flush(int timeout_ms) override ABSL_LOCKS_EXCLUDED(mutex_);
  UploaderStatus Status() const override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Work {
    uint64_t sequence = 0;
    bool in_memory = false;
  };

  void Run();
  absl::Status SendOne(const Work& work);
  absl::StatusOr<ingest::UploadWindowRequest> Load(const Work& work);
  void Finish(const Work& work);
  void NoteResult(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  std::optional<Work> NextWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BackOff() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status KeepInMemory(uint64_t sequence, std::string payload, const absl::Status& why)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void MoveMemoryToDisk() ABSL_LOCKS_EXCLUDED(mutex_);

  const UploaderOptions options_;
  const std::unique_ptr<Spool> spool_;
  const std::unique_ptr<IngestClient> client_;

  mutable base::Mutex mutex_;
  base::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool hurry_ ABSL_GUARDED_BY(mutex_) = false;    // Flush waits: try now, whatever the backoff says
  uint64_t sending_ ABSL_GUARDED_BY(mutex_) = 0;  // the window that a call is under way for
  // The last window, as long as it was not tried: on disk it is already, but need not be read.
  std::optional<ingest::UploadWindowRequest> fresh_ ABSL_GUARDED_BY(mutex_);
  std::deque<MemoryWindow> memory_ ABSL_GUARDED_BY(mutex_);
  size_t memory_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string last_error_ ABSL_GUARDED_BY(mutex_);
  std::string disk_error_ ABSL_GUARDED_BY(mutex_);
  int backoff_ms_ ABSL_GUARDED_BY(mutex_) = 0;  // 0: the last call succeeded
  std::minstd_rand random_ ABSL_GUARDED_BY(mutex_);

  base::Counter& uploaded_;
  base::Counter& uploaded_bytes_;
  base::Counter& failures_;
  base::Counter& refused_;
  base::Counter& dropped_;
  base::Counter& damaged_;

  std::thread sender_;  // last: runs on everything above
};

SpoolingUploader::SpoolingUploader(UploaderOptions options, std::unique_ptr<Spool> spool,
                                   base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      spool_(std::move(spool)),
      client_(IngestClient::Create(
          {.server = options_.server, .rpc_timeout_ms = options_.rpc_timeout_ms})),
      random_(std::random_device{}()),
      uploaded_(metrics.AddCounter("firewatch_agent_uploaded_windows_total",
                                   "Windows that the server has acknowledged.")),
      uploaded_bytes_(metrics.AddCounter("firewatch_agent_uploaded_bytes_total",
                                         "Bytes of those windows, compressed as they were sent.")),
      failures_(metrics.AddCounter("firewatch_agent_upload_failures_total",
                                   "Calls to the server that failed and are repeated.")),
      refused_(LossCounter(metrics, FW_LOSS_UPLOAD_REFUSED)),
      dropped_(LossCounter(metrics, FW_LOSS_SPOOL_DROPPED)),
      damaged_(LossCounter(metrics, FW_LOSS_SPOOL_DAMAGED)),
      sender_([this] { Run(); }) {}

SpoolingUploader::~SpoolingUploader() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  client_->Cancel();
  sender_.join();
  MoveMemoryToDisk();
  base::MutexLock lock(mutex_);
  dropped_.Add(memory_.size());
}

absl::Status SpoolingUploader::Submit(ingest::UploadWindowRequest window) {
  auto sequence = spool_->TakeSequence();
  if (!sequence.ok()) {
    dropped_.Add();
    const absl::Status status =
        base::Annotate(sequence.status(), "window dropped, it got no sequence number");
    base::MutexLock lock(mutex_);
    disk_error_ = base::Message(status);
    return status;
  }
  window.set_agent_id(spool_->agent_id());
  window.set_sequence(*sequence);
  window.set_protocol_version(kProtocolVersion);
  std::string payload = window.SerializeAsString();
  if (payload.empty() || payload.size() > kMaxWindowBytes) {
    refused_.Add();
    return base::ResourceExhausted("window dropped: {} bytes do not fit into one message",
                                   window.ByteSizeLong());
  }
  MoveMemoryToDisk();
  const absl::Status stored = spool_->Put(*sequence, payload);
  if (!stored.ok()) return KeepInMemory(*sequence, std::move(payload), stored);
  {
    base::MutexLock lock(mutex_);
    disk_error_.clear();
    // While the server is away there is a window before it.
    if (spool_->Oldest() == *sequence) fresh_ = std::move(window);
  }
  changed_.NotifyAll();
  return absl::OkStatus();
}

absl::Status SpoolingUploader::KeepInMemory(uint64_t sequence, std::string payload,
                                            const absl::Status& why) {
  absl::Status result;
  {
    base::MutexLock lock(mutex_);
    const bool fits = memory_.size() < kMaxMemoryWindows &&
                      memory_bytes_ + payload.size() <= options_.memory_max_bytes;
    result = base::Annotate(why, fits ? "window kept in memory only" : "window dropped");
    disk_error_ = base::Message(result);
    if (fits) {
      memory_bytes_ += payload.size();
      memory_.push_back({sequence, std::move(payload)});
    } else {
      dropped_.Add();
    }
  }
  spdlog::warn("spool: {}", base::Message(result));
  changed_.NotifyAll();
  return result;
}

// As soon as the disk takes them again, newest first: the oldest may be on its way to the server.
void SpoolingUploader::MoveMemoryToDisk() {
  for (;;) {
    MemoryWindow window;
    {
      base::MutexLock lock(mutex_);
      if (memory_.empty() || memory_.back().sequence == sending_) return;
      window = memory_.back();
    }
    if (!spool_->Put(window.sequence, window.payload).ok()) return;
    base::MutexLock lock(mutex_);
    if (memory_.empty() || memory_.back().sequence != window.sequence) {
      // Sent and acknowledged from memory meanwhile.
      spool_->Remove(window.sequence);
      return;
    }
    memory_bytes_ -= memory_.back().payload.size();
    memory_.pop_back();
  }
}

std::optional<SpoolingUploader::Work> SpoolingUploader::NextWork() const {
  const std::optional<uint64_t> oldest = spool_->Oldest();
  if (!memory_.empty() && (!oldest || memory_.front().sequence < *oldest)) {
    return Work{.sequence = memory_.front().sequence, .in_memory = true};
  }
  if (!oldest) return std::nullopt;
  return Work{.sequence = *oldest, .in_memory = false};
}

void SpoolingUploader::Run() {
  for (;;) {
    std::optional<Work> work;
    {
      base::MutexLock lock(mutex_);
      while (!stopping_ && !NextWork()) changed_.Wait(mutex_);
      if (!stopping_ && backoff_ms_ > 0) BackOff();
      if (stopping_) return;
      work = NextWork();  // what was oldest before the pause may have been dropped
      if (!work) continue;
      sending_ = work->sequence;
    }
    NoteResult(SendOne(*work));
    changed_.NotifyAll();  // Flush looks again
  }
}

// Waits 50 % to 150 % of the backoff, or until the end or a Flush.
void SpoolingUploader::BackOff() {
  const double factor = std::uniform_real_distribution<double>(0.5, 1.5)(random_);
  const auto pause =
      std::chrono::milliseconds(static_cast<int64_t>(static_cast<double>(backoff_ms_) * factor));
  const SteadyTime until = std::chrono::steady_clock::now() + pause;
  while (!stopping_ && !hurry_) {
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero()) break;
    changed_.WaitFor(mutex_, left);
  }
  hurry_ = false;
}

absl::StatusOr<ingest::UploadWindowRequest> SpoolingUploader::Load(const Work& work) {
  ingest::UploadWindowRequest window;
  if (work.in_memory) {
    base::MutexLock lock(mutex_);
    if (memory_.empty() || memory_.front().sequence != work.sequence ||
        !window.ParseFromString(memory_.front().payload)) {
      return base::NotFound("window {} has left memory", work.sequence);
    }
    return window;
  }
  {
    base::MutexLock lock(mutex_);
    if (fresh_.has_value()) {
      window = *std::move(fresh_);
      fresh_.reset();
      if (window.sequence() == work.sequence) return window;
      window.Clear();
    }
  }
  ASSIGN_OR_RETURN(const std::string payload, spool_->Read(work.sequence));
  if (!window.ParseFromString(payload)) {
    damaged_.Add();
    spool_->Remove(work.sequence);
    return base::DataLoss("window {} in the spool is no window", work.sequence);
  }
  return window;
}

// What the result of a call means for the window is decided here, what it means for the next call
// in NoteResult.
absl::Status SpoolingUploader::SendOne(const Work& work) {
  const auto window = Load(work);
  if (!window.ok()) {
    // Damaged and dropped windows are counted where they are found; the next one is due. A disk
    // that cannot be read is a failure like any other.
    const bool gone = absl::IsDataLoss(window.status()) || absl::IsNotFound(window.status());
    return gone ? absl::OkStatus() : window.status();
  }
  const absl::Status sent = client_->Upload(*window);
  if (sent.ok()) {
    uploaded_.Add();
    uploaded_bytes_.Add(window->ByteSizeLong());
    Finish(work);
  } else if (absl::IsInvalidArgument(sent)) {
    refused_.Add();
    spdlog::error("window {} dropped: {}", work.sequence, base::Message(sent));
    Finish(work);
  }
  return sent;
}

void SpoolingUploader::Finish(const Work& work) {
  if (!work.in_memory) {
    spool_->Remove(work.sequence);
    return;
  }
  base::MutexLock lock(mutex_);
  if (memory_.empty() || memory_.front().sequence != work.sequence) return;
  memory_bytes_ -= memory_.front().payload.size();
  memory_.pop_front();
}

void SpoolingUploader::NoteResult(const absl::Status& status) {
  base::MutexLock lock(mutex_);
  sending_ = 0;
  if (stopping_) return;
  const std::string text(base::Message(status));
  if (text != last_error_) {
    // Once per change, not once per attempt.
    if (status.ok()) {
      spdlog::info("uploading to {} again", options_.server);
    } else {
      spdlog::warn("{}; {} window(s) wait in the spool", text, spool_->windows());
    }
    last_error_ = text;
  }
  if (status.ok() || absl::IsInvalidArgument(status)) {
    backoff_ms_ = 0;
    return;
  }
  failures_.Add();
  if (absl::IsFailedPrecondition(status)) {
    // Versions change when somebody installs one: no need to ask often.
    backoff_ms_ = options_.backoff_max_ms;
  } else {
    backoff_ms_ = std::clamp(backoff_ms_ * 2, options_.backoff_min_ms, options_.backoff_max_ms);
  }
}

bool SpoolingUploader::Flush(int timeout_ms) {
  const SteadyTime until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  base::MutexLock lock(mutex_);
  hurry_ = true;
  changed_.NotifyAll();
  while (NextWork()) {
    const auto left = until - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero()) return false;
    changed_.WaitFor(mutex_, left);
  }
  hurry_ = false;
  return true;
}

UploaderStatus SpoolingUploader::Status() const {
  base::MutexLock lock(mutex_);
  return {
      .connected = client_->connected(),
      .last_error = last_error_.empty() ? disk_error_ : last_error_,
      .spooled_windows = spool_->windows() + memory_.size(),
      .spooled_bytes = spool_->bytes() + memory_bytes_,
      .uploaded_windows = uploaded_.value(),
      .dropped_windows = dropped_.value() + damaged_.value() + refused_.value(),
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<Uploader>> Uploader::Start(UploaderOptions options,
                                                          base::MetricsRegistry& metrics) {
  ASSIGN_OR_RETURN(auto spool,
                   Spool::Open(options.spool_directory, options.spool_max_bytes, metrics));
  if (spool->windows() > 0) {
    spdlog::info("{} window(s) of an earlier run wait in {}", spool->windows(),
                 options.spool_directory);
  }
  return std::make_unique<SpoolingUploader>(std::move(options), std::move(spool), metrics);
}

}  // namespace firewatch::agent
