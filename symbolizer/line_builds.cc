// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/line_builds.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "symbolizer/process/debug_files.h"

namespace firewatch::symbolizer {
namespace {

// Files that wait; each takes some 300 bytes. What comes later is wanted again by its next window.
constexpr size_t kMaxWanted = 8192;
// Candidates for a debug file that are identified, right or wrong.
constexpr int kMaxCandidates = 16;

BuildId IdOf(const HelperAnswer& answer) {
  BuildId id;
  id.size = answer.id_size;
  std::copy(std::begin(answer.id), std::end(answer.id), id.bytes.begin());
  return id;
}

base::Counter& Files(base::MetricsRegistry& metrics, const char* result) {
  return metrics.AddCounter("firewatch_symbol_line_files_total",
                            "Files whose lines were looked for, by result.", {{"result", result}});
}

}  // namespace

NameReason ReasonOf(LinesState state) {
  switch (state) {
    case LinesState::kPresent:
      return NameReason::kNone;
    case LinesState::kNotTried:
      return NameReason::kPending;
    case LinesState::kNoDebugInfo:
      return NameReason::kNoDebugInfo;
    case LinesState::kMismatch:
      return NameReason::kDebugMismatch;
    case LinesState::kOverBudget:
      return NameReason::kOverBudget;
    case LinesState::kDamaged:
      return NameReason::kRefused;
  }
  return NameReason::kRefused;
}

// The file under way.
struct LineBuilds::Job {
  std::string key;
  FileIdentity file;
  DebugFileRoots roots;
  enum class Step { kFile, kDebug, kBuild } step = Step::kFile;
  base::UniqueFd elf;  // empty while the helper's queue has it
  base::UniqueFd debug;
  HelperAnswer facts;  // of the file
  HelperAnswer debug_facts;
  std::string debug_path;
  int place = 0;
  int candidates = 0;
  std::string mismatch;  // "" or the candidate that was of another build
};

LineBuilds::LineBuilds(LineBuildsOptions options, IndexCache& cache, const base::Clock& clock,
                       base::MetricsRegistry& metrics)
    : options_(std::move(options)),
      cache_(cache),
      clock_(clock),
      queue_({.helper_path = options_.helper_path,
              .max_cpu_seconds = options_.max_cpu_seconds,
              .max_bytes = options_.max_bytes},
             clock, metrics),
      budget_(options_.budget, clock.MonotonicNs()),
      built_(Files(metrics, "built")),
      without_(Files(metrics, "without")),
      cpu_ms_(metrics.AddCounter("firewatch_symbol_line_cpu_milliseconds_total",
                                 "CPU time of the helper that reads lines.")),
      waiting_gauge_(metrics.AddGauge("firewatch_symbol_line_files_waiting",
                                      "Files that wait for their lines.")) {}

LineBuilds::~LineBuilds() = default;

void LineBuilds::Want(const std::string& key, const FileIdentity& file, const MappingHint& hint) {
  if (done_.contains(key) || (job_ != nullptr && job_->key == key)) return;
  if (const auto known = wanted_.find(key); known != wanted_.end()) {
    known->second.file = file;
    known->second.hint = hint;
    return;
  }
  if (wanted_.size() < kMaxWanted) wanted_.emplace(key, Wanted{.file = file, .hint = hint});
}

bool LineBuilds::Drop(const std::string& key) {
  if (job_ != nullptr && job_->key == key) return false;
  wanted_.erase(key);
  done_.erase(key);
  return true;
}

void LineBuilds::AddWeight(std::string_view key, uint64_t frames) {
  if (const auto known = wanted_.find(key); known != wanted_.end()) known->second.weight += frames;
}

std::vector<LineBuilds::Outcome> LineBuilds::Poll(int timeout_ms) {
  std::vector<Outcome> outcomes;
  if (job_ == nullptr) StartNext();
  // Also without a job: it ends a helper that has nothing to do.
  for (HelperResult& result : queue_.Poll(job_ == nullptr ? 0 : timeout_ms)) {
    OnResult(std::move(result), &outcomes);
  }
  const uint64_t cpu_ns = queue_.cpu_ns();
  budget_.Spend(cpu_ns - spent_ns_);
  cpu_ms_.Add(cpu_ns / 1'000'000 - spent_ns_ / 1'000'000);
  spent_ns_ = cpu_ns;
  waiting_gauge_.Set(static_cast<double>(wanted_.size()));
  return outcomes;
}

void LineBuilds::StartNext() {
  allowed_ = budget_.Allows(clock_.MonotonicNs());
  while (allowed_ && job_ == nullptr && !wanted_.empty()) {
    const auto next = std::max_element(
        wanted_.begin(), wanted_.end(),
        [](const auto& a, const auto& b) { return a.second.weight < b.second.weight; });
    job_ = std::make_unique<Job>();
    job_->key = next->first;
    job_->file = std::move(next->second.file);
    const MappingHint hint = next->second.hint;
    wanted_.erase(next);
    job_->roots = {.pid = hint.pid, .parent_pid = hint.parent_pid, .proc_root = options_.proc_root};
    absl::StatusOr<OpenedObject> opened = OpenMappedObject(job_->file, hint, options_.proc_root);
    if (!opened.ok()) {
      // Another process may show it: its next window asks again.
      job_.reset();
      continue;
    }
    job_->elf = std::move(opened->fd);
    queue_.Submit({.operation = HelperOperation::kIdentify, .elf = std::move(job_->elf)});
  }
}

void LineBuilds::OnResult(HelperResult result, std::vector<Outcome>* outcomes) {
  if (job_ == nullptr) return;
  if (!result.failure.empty() && !result.helper_died) {
    // There is no helper to be had now: the file's next window asks again.
    job_.reset();
    return;
  }
  if (job_->step == Job::Step::kBuild) return OnBuilt(std::move(result), outcomes);
  if (result.job.elf.valid()) job_->elf = std::move(result.job.elf);
  if (result.job.debug.valid()) job_->debug = std::move(result.job.debug);
  if (!result.failure.empty()) return Fail(NameReason::kRefused, result.failure, outcomes);
  if (job_->step == Job::Step::kDebug) return OnDebugIdentified(result.answer, outcomes);
  OnFileIdentified(result.answer, outcomes);
}

void LineBuilds::OnFileIdentified(const HelperAnswer& answer, std::vector<Outcome>* outcomes) {
  if (answer.status != HelperStatus::kOk) {
    return Fail(NameReason::kRefused, answer.reason, outcomes);
  }
  const BuildId id = IdOf(answer);
  const BuildId& expected = job_->file.build_id;
  if (!expected.empty() && (answer.has_pseudo_id != 0 || id != expected)) {
    // Another file is at that place by now: its process is gone.
    job_.reset();
    return;
  }
  job_->facts = answer;
  job_->step = Job::Step::kDebug;
  TryNextDebugFile(outcomes);
}

void LineBuilds::TryNextDebugFile(std::vector<Outcome>* outcomes) {
  const DebugFileQuery query = {
      .kind = DebugFileKind::kDebug,
      .path = job_->file.path,
      .id = job_->facts.has_pseudo_id != 0 ? BuildId() : IdOf(job_->facts),
      .name = job_->facts.debuglink};
  absl::StatusOr<OpenedDebugFile> found = base::NotFound("too many candidates");
  if (++job_->candidates <= kMaxCandidates) {
    found = OpenDebugFile(query, job_->roots, job_->elf.get(), job_->place);
  }
  if (!found.ok()) {
    job_->debug.Reset();
    return Build(outcomes);
  }
  job_->place = found->place + 1;
  job_->debug_path = found->path;
  queue_.Submit({.operation = HelperOperation::kIdentify, .debug = std::move(found->fd)});
}

void LineBuilds::OnDebugIdentified(const HelperAnswer& answer, std::vector<Outcome>* outcomes) {
  const bool both_have_ids = job_->facts.has_pseudo_id == 0 && answer.has_pseudo_id == 0;
  if (answer.status != HelperStatus::kOk || (both_have_ids && IdOf(answer) != IdOf(job_->facts))) {
    if (answer.status == HelperStatus::kOk) job_->mismatch = job_->debug_path;
    job_->debug.Reset();
    return TryNextDebugFile(outcomes);
  }
  // Without two build ids the CRC tells, which the build compares.
  job_->debug_facts = answer;
  Build(outcomes);
}

void LineBuilds::Build(std::vector<Outcome>* outcomes) {
  const bool has_debug = job_->debug.valid();
  if (!has_debug && (job_->facts.flags & kHelperDwarf) == 0) {
    if (!job_->mismatch.empty()) {
      return Fail(NameReason::kDebugMismatch,
                  fmt::format("debug file mismatch: {} is of another build", job_->mismatch),
                  outcomes);
    }
    return Fail(NameReason::kNoDebugInfo, "no debug information in the file, no debug file found",
                outcomes);
  }
  const HelperAnswer& linking = has_debug ? job_->debug_facts : job_->facts;
  auto output = cache_.NewScratch();
  auto scratch = cache_.NewScratch();
  if (!output.ok() || !scratch.ok()) {
    return Fail(NameReason::kOverBudget, "no room in the symbol cache", outcomes);
  }
  HelperJob build = {.operation = HelperOperation::kBuildLines};
  build.output = *std::move(output);
  build.scratch = *std::move(scratch);
  if (linking.altlink[0] != '\0') {
    BuildId alt_id;
    alt_id.size = linking.altlink_id_size;
    std::copy(std::begin(linking.altlink_id), std::end(linking.altlink_id), alt_id.bytes.begin());
    auto alt = OpenDebugFile({.kind = DebugFileKind::kAlt,
                              .path = has_debug ? job_->debug_path : job_->file.path,
                              .id = alt_id,
                              .name = linking.altlink},
                             job_->roots, -1);
    if (alt.ok()) build.alt = std::move(alt->fd);
  }
  if (((job_->facts.flags | linking.flags) & kHelperMayBeSplit) != 0) {
    auto dwp = OpenDebugFile(
        {.kind = DebugFileKind::kDwp, .path = job_->file.path, .debug_path = job_->debug_path},
        job_->roots, -1);
    if (dwp.ok()) build.dwp = std::move(dwp->fd);
    build.open_dwo = [query = DebugFileQuery{.kind = DebugFileKind::kDwo,
                                             .path = job_->file.path,
                                             .debug_path = job_->debug_path},
                      roots = job_->roots](std::string_view name,
                                           std::string_view directory) mutable {
      query.name = name;
      query.compilation_directory = directory;
      auto found = OpenDebugFile(query, roots, -1);
      return found.ok() ? std::move(found->fd) : base::UniqueFd();
    };
  }
  build.elf = std::move(job_->elf);
  build.debug = std::move(job_->debug);
  job_->step = Job::Step::kBuild;
  queue_.Submit(std::move(build));
}

void LineBuilds::OnBuilt(HelperResult result, std::vector<Outcome>* outcomes) {
  if (!result.failure.empty()) {
    // It had answered about this file twice: what it dies of is its size.
    return Fail(NameReason::kOverBudget, result.failure, outcomes);
  }
  const HelperAnswer& answer = result.answer;
  switch (answer.status) {
    case HelperStatus::kOk:
      break;
    case HelperStatus::kOverBudget:
      return Fail(NameReason::kOverBudget, answer.reason, outcomes);
    case HelperStatus::kNotWritten:
      return Fail(NameReason::kOverBudget, answer.reason, outcomes);
    default:
      return Fail(NameReason::kRefused, answer.reason, outcomes);
  }
  End({.key = job_->key,
       .built = true,
       .output = std::move(result.job.output),
       .id = IdOf(answer),
       .no_lines = ReasonOf(static_cast<LinesState>(answer.lines_state)),
       .text = answer.reason},
      outcomes);
}

void LineBuilds::Fail(NameReason reason, std::string text, std::vector<Outcome>* outcomes) {
  End({.key = job_->key, .built = false, .no_lines = reason, .text = std::move(text)}, outcomes);
}

void LineBuilds::End(Outcome outcome, std::vector<Outcome>* outcomes) {
  (outcome.no_lines == NameReason::kNone ? built_ : without_).Add();
  done_.insert(outcome.key);
  job_.reset();
  outcomes->push_back(std::move(outcome));
}

}  // namespace firewatch::symbolizer
