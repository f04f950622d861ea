// SPDX-License-Identifier: Apache-2.0
// Work for the helper: starts it at the first job, keeps a few jobs in its socket so that it never
// waits for us, restarts it when it dies and tells which file it died of (answers come in order, so
// it is the oldest one unanswered). The helper is ended after half a minute without work.
//
// Lines take seconds where all else takes milliseconds, and the helper does one thing after
// another: who cannot wait has a queue for kBuildLines alone, which is a second helper process.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/helper/helper_process.h"
#include "symbolizer/helper/protocol.h"
#include "symbolizer/object_files.h"

namespace firewatch::symbolizer {

struct HelperJob {
  HelperOperation operation = HelperOperation::kIdentify;
  uint64_t ticket = 0;     // the caller's
  bool for_table = false;  // the question is on the way to an unwind table: it goes first
  base::UniqueFd elf;      // O_RDONLY
  base::UniqueFd output;   // all but kIdentify: empty file
  // kBuild, kBuildLines (kIdentify: `debug` instead of `elf`), all as in protocol.h.
  base::UniqueFd debug;
  base::UniqueFd alt;
  base::UniqueFd dwp;
  base::UniqueFd scratch;
  // kBuildLines: opens a .dwo for the helper, called within Poll. The names are a stranger's:
  // process/debug_files.h. May be empty.
  DwoOpener open_dwo;
};

struct HelperResult {
  HelperJob job;  // descriptors come back
  HelperAnswer answer;
  // Not "": no answer. `helper_died`: of this file; else there is no helper to be had.
  std::string failure;
  bool helper_died = false;
  bool over_budget = false;  // it died of a limit of time
};

struct HelperQueueOptions {
  std::string helper_path;
  uint32_t max_cpu_seconds = 60;
  uint64_t max_bytes = uint64_t{1} << 30;  // private memory of the helper
};

// One home thread. `clock` and `metrics` must outlive it.
class HelperQueue {
 public:
  // Bounds open descriptors: two per waiting job, six when it is for lines.
  static constexpr size_t kMaxOutstanding = 256;

  HelperQueue(HelperQueueOptions options, const base::Clock& clock, base::MetricsRegistry& metrics);

  // CPU time of all its helpers so far.
  uint64_t cpu_ns() const { return ended_cpu_ns_ + (helper_ == nullptr ? 0 : helper_->CpuNs()); }
  bool full() const { return outstanding() >= kMaxOutstanding; }
  size_t outstanding() const { return urgent_.size() + waiting_.size() + in_flight_.size(); }

  // Does no work; Poll does. Ask full() first, except for the second half of a job that was
  // admitted already.
  void Submit(HelperJob job) { (job.for_table ? urgent_ : waiting_).push_back(std::move(job)); }

  // Sends, receives, restarts. Returns as soon as there is a result, nothing is outstanding, or
  // `timeout_ms` has passed (0: does not wait).
  std::vector<HelperResult> Poll(int timeout_ms);

 private:
  struct InFlight {
    HelperJob job;
    uint64_t sequence = 0;
    uint32_t dwo_questions = 0;
  };
  void Pump(std::vector<HelperResult>* results);
  bool StartHelper(std::vector<HelperResult>* results);
  void ReceiveHello(std::vector<HelperResult>* results);
  void SendWaiting(std::vector<HelperResult>* results);
  void ReceiveAnswers(std::vector<HelperResult>* results);
  // False when it was out of turn.
  bool AnswerDwo(const HelperDwoQuestion& question);
  void CheckTime(std::vector<HelperResult>* results);
  // `why` is "" when it ended by itself.
  void OnDeath(std::string why, base::Counter& counter, std::vector<HelperResult>* results);
  void OnStartFailure(const std::string& why, std::vector<HelperResult>* results);
  bool TakeStart();
  void EndHelper();

  const HelperQueueOptions options_;
  const base::Clock& clock_;
  base::Counter& crashes_;
  base::Counter& timeouts_;
  base::Counter& start_failures_total_;

  std::unique_ptr<HelperProcess> helper_;
  uint64_t ended_cpu_ns_ = 0;
  bool greeted_ = false;          // hello received: it is inside the sandbox
  std::deque<HelperJob> urgent_;  // sent before what waits
  std::deque<HelperJob> waiting_;
  std::deque<InFlight> in_flight_;
  uint64_t next_sequence_ = 1;
  uint64_t last_event_ns_ = 0;  // start, answer, or send to an idle helper
  uint64_t retry_at_ns_ = 0;
  int start_failures_ = 0;  // in a row
  double starts_left_;      // token bucket against a fleet of hostile files
  uint64_t starts_refilled_ns_ = 0;
};

}  // namespace firewatch::symbolizer
