// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/helper/helper_queue.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "base/logging.h"
#include "base/status.h"
#include "symbolizer/index/index_format.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
// Few: a table that is asked for waits for those that are on their way.
constexpr size_t kMaxInFlight = 4;
constexpr uint64_t kHelloTimeoutNs = 20 * kSecond;  // a cold start of a sanitized binary takes 2 s
constexpr uint64_t kIdleNs = 30 * kSecond;
constexpr uint64_t kRetryNs = kSecond;
constexpr uint64_t kGiveUpNs = 30 * kSecond;
constexpr int kMaxStartFailures = 3;
constexpr double kStartBurst = 8;
constexpr double kStartsPerSecond = 1;
// Wall-clock time per CPU second allowed: nice 10 beside busy cores gets a tenth.
constexpr uint64_t kWallPerCpu = 10;

// A package of a browser has some 30,000 units.
constexpr uint32_t kMaxDwoQuestions = 65'536;

bool MayAsk(const HelperJob& job) {
  return job.operation == HelperOperation::kBuildLines && job.open_dwo != nullptr;
}

// In the order of HelperFd's bits.
std::vector<int> FdsOf(const HelperJob& job, uint32_t* mask) {
  std::vector<int> fds;
  uint32_t bit = 1;
  for (const base::UniqueFd* fd :
       {&job.elf, &job.output, &job.debug, &job.alt, &job.dwp, &job.scratch}) {
    if (fd->valid()) {
      fds.push_back(fd->get());
      *mask |= bit;
    }
    bit <<= 1;
  }
  return fds;
}

bool IsSound(const HelperAnswer& answer) {
  return answer.magic == kHelperMagic && answer.id_size <= sizeof(answer.id) &&
         answer.altlink_id_size <= sizeof(answer.altlink_id) &&
         answer.segment_count <= kMaxHelperSegments && answer.lines_state < kLinesStateCount;
}

void Terminate(HelperAnswer* answer) {
  answer->reason[sizeof(answer->reason) - 1] = '\0';
  answer->debuglink[sizeof(answer->debuglink) - 1] = '\0';
  answer->altlink[sizeof(answer->altlink) - 1] = '\0';
}

base::Counter& Restarts(base::MetricsRegistry& metrics, const char* reason) {
  return metrics.AddCounter("firewatch_symbol_helper_restarts_total",
                            "Times the symbol helper had to be replaced, by reason.",
                            {{"reason", reason}});
}

}  // namespace

HelperQueue::HelperQueue(HelperQueueOptions options, const base::Clock& clock,
                         base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      clock_(clock),
      crashes_(Restarts(metrics, "crash")),
      timeouts_(Restarts(metrics, "timeout")),
      start_failures_total_(Restarts(metrics, "start")),
      starts_left_(kStartBurst) {}

std::vector<HelperResult> HelperQueue::Poll(int timeout_ms) {
  std::vector<HelperResult> results;
  const uint64_t deadline =
      clock_.MonotonicNs() + static_cast<uint64_t>(std::max(timeout_ms, 0)) * 1'000'000;
  while (true) {
    Pump(&results);
    if (!results.empty() || outstanding() == 0) return results;
    const uint64_t now = clock_.MonotonicNs();
    if (now >= deadline) return results;
    // At most 50 ms, to look at timeouts and at the next permitted start.
    const auto wait_ms = static_cast<int>(std::min<uint64_t>((deadline - now) / 1'000'000 + 1, 50));
    pollfd socket = {
        .fd = helper_ == nullptr ? -1 : helper_->socket(), .events = POLLIN, .revents = 0};
    ::poll(&socket, 1, wait_ms);
  }
}

void HelperQueue::Pump(std::vector<HelperResult>* results) {
  const uint64_t now = clock_.MonotonicNs();
  if (outstanding() == 0) {
    if (helper_ != nullptr && now - last_event_ns_ > kIdleNs) EndHelper();
    return;
  }
  if (helper_ == nullptr && !StartHelper(results)) return;
  if (!greeted_) ReceiveHello(results);
  if (helper_ != nullptr && greeted_) ReceiveAnswers(results);
  if (helper_ != nullptr && greeted_) SendWaiting(results);
  if (helper_ != nullptr) CheckTime(results);
}

void HelperQueue::EndHelper() {
  helper_->End();
  ended_cpu_ns_ += helper_->CpuNs();
  helper_.reset();
}

bool HelperQueue::TakeStart() {
  const uint64_t now = clock_.MonotonicNs();
  const double seconds = static_cast<double>(now - starts_refilled_ns_) / double{kSecond};
  starts_refilled_ns_ = now;
  starts_left_ = std::min(kStartBurst, starts_left_ + seconds * kStartsPerSecond);
  if (now < retry_at_ns_ || starts_left_ < 1) return false;
  starts_left_ -= 1;
  return true;
}

bool HelperQueue::StartHelper(std::vector<HelperResult>* results) {
  if (!TakeStart()) return false;
  auto helper = HelperProcess::Start(
      options_.helper_path,
      {.max_cpu_seconds = options_.max_cpu_seconds, .max_bytes = options_.max_bytes});
  if (!helper.ok()) {
    OnStartFailure(std::string(base::Message(helper.status())), results);
    return false;
  }
  helper_ = *std::move(helper);
  greeted_ = false;
  last_event_ns_ = clock_.MonotonicNs();
  return true;
}

void HelperQueue::ReceiveHello(std::vector<HelperResult>* results) {
  HelperHello hello;
  const auto transfer = helper_->Receive(&hello);
  if (transfer == HelperProcess::Transfer::kLater) return;
  if (transfer == HelperProcess::Transfer::kDone && hello.magic == kHelperMagic) {
    greeted_ = true;
    start_failures_ = 0;
    last_event_ns_ = clock_.MonotonicNs();
    spdlog::debug("symbol helper {} runs, sandbox {:#x}", helper_->pid(), hello.sandbox);
    return;
  }
  const std::string end = helper_->End();
  EndHelper();
  OnStartFailure(fmt::format("symbol helper: {} at start", end), results);
}

void HelperQueue::OnStartFailure(const std::string& why, std::vector<HelperResult>* results) {
  start_failures_total_.Add();
  retry_at_ns_ = clock_.MonotonicNs() + kRetryNs;
  if (++start_failures_ < kMaxStartFailures) return;
  spdlog::warn("no symbol helper: {}", why);
  start_failures_ = 0;
  retry_at_ns_ = clock_.MonotonicNs() + kGiveUpNs;
  for (std::deque<HelperJob>* jobs : {&urgent_, &waiting_}) {
    for (HelperJob& job : *jobs) {
      results->push_back({.job = std::move(job), .answer = {}, .failure = why});
    }
    jobs->clear();
  }
}

void HelperQueue::SendWaiting(std::vector<HelperResult>* results) {
  while (in_flight_.size() < kMaxInFlight) {
    // While it builds lines the helper expects nothing but answers to its own questions.
    if (!in_flight_.empty() && MayAsk(in_flight_.back().job)) return;
    std::deque<HelperJob>& jobs = urgent_.empty() ? waiting_ : urgent_;
    if (jobs.empty()) return;
    HelperJob& job = jobs.front();
    HelperRequest request = {.operation = job.operation, .sequence = next_sequence_};
    request.may_ask = MayAsk(job) ? 1 : 0;
    const auto fds = FdsOf(job, &request.fds);
    const auto transfer = helper_->Send(request, fds);
    if (transfer == HelperProcess::Transfer::kLater) return;
    if (transfer == HelperProcess::Transfer::kDead) return OnDeath("", crashes_, results);
    if (in_flight_.empty()) last_event_ns_ = clock_.MonotonicNs();
    in_flight_.push_back({.job = std::move(job), .sequence = next_sequence_++});
    jobs.pop_front();
  }
}

bool HelperQueue::AnswerDwo(const HelperDwoQuestion& question) {
  InFlight& oldest = in_flight_.front();
  const auto text = [](const auto& field) {
    return std::string_view(field, ::strnlen(field, sizeof(field)));
  };
  if (question.magic != kHelperMagic || question.sequence != oldest.sequence ||
      !MayAsk(oldest.job) || ++oldest.dwo_questions > kMaxDwoQuestions) {
    return false;
  }
  const base::UniqueFd dwo = oldest.job.open_dwo(text(question.name), text(question.directory));
  const HelperRequest reply = {.operation = HelperOperation::kOpenDwo,
                               .sequence = oldest.sequence,
                               .fds = dwo.valid() ? uint32_t{kHelperElf} : 0};
  const int fd = dwo.get();
  // It waits for this and nothing else is in the socket: it cannot be full.
  return helper_->Send(reply, std::span(&fd, dwo.valid() ? 1 : 0)) ==
         HelperProcess::Transfer::kDone;
}

void HelperQueue::ReceiveAnswers(std::vector<HelperResult>* results) {
  while (!in_flight_.empty()) {
    HelperAnswer answer;
    HelperDwoQuestion question;
    bool is_question = false;
    const auto transfer = helper_->Receive(&answer, &question, &is_question);
    if (transfer == HelperProcess::Transfer::kLater) return;
    InFlight& oldest = in_flight_.front();
    if (transfer == HelperProcess::Transfer::kDead) return OnDeath("", crashes_, results);
    if (is_question) {
      if (!AnswerDwo(question)) return OnDeath("asked out of turn", crashes_, results);
      continue;
    }
    if (!IsSound(answer) || answer.sequence != oldest.sequence ||
        answer.operation != oldest.job.operation) {
      return OnDeath("gave a false answer", crashes_, results);
    }
    Terminate(&answer);
    results->push_back({.job = std::move(oldest.job), .answer = answer, .failure = ""});
    in_flight_.pop_front();
    last_event_ns_ = clock_.MonotonicNs();
  }
}

void HelperQueue::CheckTime(std::vector<HelperResult>* results) {
  const uint64_t waited = clock_.MonotonicNs() - last_event_ns_;
  if (!greeted_) {
    if (waited < kHelloTimeoutNs) return;
    EndHelper();
    return OnStartFailure("symbol helper: does not answer at start", results);
  }
  const uint64_t limit = options_.max_cpu_seconds * kWallPerCpu * kSecond;
  if (in_flight_.empty() || waited < limit) return;
  OnDeath(fmt::format("took more than {} s", limit / kSecond), timeouts_, results);
}

void HelperQueue::OnDeath(std::string why, base::Counter& counter,
                          std::vector<HelperResult>* results) {
  counter.Add();
  const std::string end = helper_->End();
  EndHelper();
  const bool over_budget = &counter == &timeouts_ || end == "killed by SIGXCPU";
  if (why.empty()) why = end;
  if (in_flight_.empty()) return;
  spdlog::info("symbol helper: {}; the next file gets a new one", why);
  results->push_back({.job = std::move(in_flight_.front().job),
                      .answer = {},
                      .failure = fmt::format("the symbol helper was lost on it: {}", why),
                      .helper_died = true,
                      .over_budget = over_budget});
  in_flight_.pop_front();
  while (!in_flight_.empty()) {
    HelperJob& job = in_flight_.back().job;
    (job.for_table ? urgent_ : waiting_).push_front(std::move(job));
    in_flight_.pop_back();
  }
}

}  // namespace firewatch::symbolizer
