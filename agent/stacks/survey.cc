// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/survey.h"

#include <errno.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <memory>
#include <random>
#include <span>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "agent/stacks/gdb_judge.h"
#include "agent/stacks/host_unwinder.h"
#include "agent/stacks/libunwind_ptrace.h"
#include "agent/stacks/process_threads.h"
#include "agent/stacks/ptracer.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr std::chrono::milliseconds kStopTimeout{100};
constexpr std::chrono::seconds kTableTimeout{60};
constexpr std::chrono::seconds kJudgeTimeout{120};
// Stops of one place and one difference that the judge sees; it says the same of the others.
constexpr int kJudgedPerPlace = 3;
constexpr int kMaxPauseUs = 4000;
constexpr size_t kMaxOpenEnds = 100;
// Attempts per stop asked for: a process of short-lived children loses many.
constexpr uint32_t kAttempts = 5;

std::string_view EndName(fw_stack_end end) {
  switch (end) {
#define FW_STACK_END_NAME(constant, name) \
  case FW_STACK_END_##constant:           \
    return name;
    FW_STACK_ENDS(FW_STACK_END_NAME)
#undef FW_STACK_END_NAME
    case FW_STACK_END_COUNT:
      break;
  }
  return "?";
}

std::string_view BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

std::string ReadLink(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t size = ::readlink(path.c_str(), target, sizeof(target));
  return size < 0 ? "" : std::string(target, static_cast<size_t>(size));
}

// Holds back what would end us: whoever presses Ctrl-C while gdb looks must not leave a process
// stopped for good. (Against SIGKILL nothing helps.)
class EndingSignalsHeld {
 public:
  EndingSignalsHeld() {
    sigset_t ending;
    ::sigemptyset(&ending);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&ending, signal);
    ::pthread_sigmask(SIG_BLOCK, &ending, &before_);
  }
  ~EndingSignalsHeld() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  EndingSignalsHeld(const EndingSignalsHeld&) = delete;
  EndingSignalsHeld& operator=(const EndingSignalsHeld&) = delete;

 private:
  sigset_t before_;
};

// A process that is looked at, with both unwinders.
struct Subject {
  pid_t pid = 0;
  std::string exe;
  std::unique_ptr<HostUnwinder> ours;
  std::unique_ptr<LibunwindPtrace> theirs;
};

// One stop.
struct Moment {
  pid_t tid = 0;
  bool job_stopped = false;  // before we came: SIGCONT would not put that back
  HostStack ours;
  std::vector<uint64_t> theirs;  // in the form of our frames
  LibunwindEnd their_end = LibunwindEnd::kError;
  StackComparison comparison;
  bool current = true;        // the mappings are those that both unwinders know
  bool left_stopped = false;  // by SIGSTOP, for the judge
};

std::vector<uint64_t> InOurForm(const HostUnwinder& host, std::span<const WalkedFrame> frames) {
  std::vector<uint64_t> converted;
  converted.reserve(frames.size());
  for (const WalkedFrame& frame : frames) {
    converted.push_back(host.FrameOf(frame.interrupted ? frame.ip : frame.ip - 1));
  }
  return converted;
}

class Survey {
 public:
  Survey(const SurveyOptions& options, symbolizer::Symbolizer& symbolizer)
      : options_(options), symbolizer_(symbolizer), random_(options.seed) {}

  absl::StatusOr<SurveyReport> Run();

 private:
  using Place = std::tuple<pid_t, uint64_t, StackDifference>;

  absl::StatusOr<Subject*> SubjectOf(pid_t pid);
  absl::Status StopOnce(ThreadId thread);
  void LookAt(Subject& subject, const user_regs_struct& registers, Moment* moment);
  Place PlaceOf(const Subject& subject, const Moment& moment) const;
  Verdict Judge(const Subject& subject, const Moment& moment);
  void Count(Subject& subject, const Moment& moment, Verdict verdict);
  void CountDifference(Subject& subject, const Moment& moment, Verdict verdict);
  std::string FrameText(Subject& subject, std::span<const uint64_t> frames, size_t index);
  std::string Fold(Subject& subject, const Moment& moment);
  void Finish();

  const SurveyOptions options_;
  symbolizer::Symbolizer& symbolizer_;
  std::mt19937_64 random_;
  Ptracer ptracer_;
  absl::flat_hash_map<pid_t, Subject> subjects_;
  absl::flat_hash_map<Place, std::vector<Verdict>> judged_;
  std::vector<uint64_t> pauses_ns_;
  SurveyReport report_;
};

absl::StatusOr<Subject*> Survey::SubjectOf(pid_t pid) {
  if (const auto found = subjects_.find(pid); found != subjects_.end()) return &found->second;
  Subject subject;
  subject.pid = pid;
  subject.exe = ReadLink(fmt::format("/proc/{}/exe", pid));
  ASSIGN_OR_RETURN(subject.ours, HostUnwinder::Create(pid, symbolizer_));
  ASSIGN_OR_RETURN(subject.theirs, LibunwindPtrace::Create(pid));
  RETURN_IF_ERROR(subject.ours->Update(kTableTimeout));
  return &(subjects_[pid] = std::move(subject));
}

Survey::Place Survey::PlaceOf(const Subject& subject, const Moment& moment) const {
  const size_t last = moment.comparison.agreed == 0 ? 0 : moment.comparison.agreed - 1;
  return {subject.pid, moment.ours.frames.at(last), moment.comparison.difference};
}

// In the tracer thread, while the subject's thread stands still.
void Survey::LookAt(Subject& subject, const user_regs_struct& registers, Moment* moment) {
  std::vector<WalkedFrame> theirs;
  moment->their_end = subject.theirs->Walk(registers, &theirs);
  moment->ours = subject.ours->Walk(registers);
  moment->theirs = InOurForm(*subject.ours, theirs);
  const auto is_jit = [&](uint64_t frame) { return subject.ours->IsAnonymous(frame); };
  moment->comparison =
      CompareStacks(moment->ours.frames, moment->theirs, FW_MAX_USER_FRAMES, is_jit);
  const bool differs = moment->comparison.difference != StackDifference::kNone;
  if (differs || moment->ours.end != FW_STACK_END_ROOT) moment->current = subject.ours->IsCurrent();
  if (!differs || !moment->current || !options_.judge || moment->job_stopped) return;
  const auto judged = judged_.find(PlaceOf(subject, *moment));
  if (judged != judged_.end() && judged->second.size() >= kJudgedPerPlace) return;
  // Taken before the thread goes back to its program: the judge sees this very moment.
  moment->left_stopped = ::kill(subject.pid, SIGSTOP) == 0;
}

Verdict Survey::Judge(const Subject& subject, const Moment& moment) {
  std::vector<Verdict>& verdicts = judged_[PlaceOf(subject, moment)];
  if (!moment.left_stopped) return verdicts.empty() ? Verdict::kNotJudged : verdicts.back();
  const auto stack = GdbStack(subject.pid, moment.tid, kJudgeTimeout);
  ::kill(subject.pid, SIGCONT);
  // A signal that was on its way makes another moment of it.
  const Verdict verdict =
      stack.ok() ? JudgeStacks(moment.ours.frames, moment.theirs, InOurForm(*subject.ours, *stack))
                 : Verdict::kNotJudged;
  if (verdict != Verdict::kNotJudged) verdicts.push_back(verdict);
  return verdicts.empty() ? verdict : verdicts.back();
}

absl::Status Survey::StopOnce(ThreadId thread) {
  ASSIGN_OR_RETURN(Subject * subject, SubjectOf(thread.pid));
  Moment moment;
  moment.tid = thread.tid;
  moment.job_stopped = thread.job_stopped;
  const EndingSignalsHeld held;
  const auto stop = ptracer_.WhileStopped(
      thread.tid, kStopTimeout,
      [&](const user_regs_struct& registers) { LookAt(*subject, registers, &moment); });
  if (!stop.ok()) {
    if (moment.left_stopped) ::kill(thread.pid, SIGCONT);
    if (absl::IsNotFound(stop.status()) && thread.pid == thread.tid) subjects_.erase(thread.pid);
    return stop.status();
  }
  pauses_ns_.push_back(stop->stopped_ns);
  if (!moment.current) {
    subject->theirs->Flush();
    RETURN_IF_ERROR(subject->ours->Update(kTableTimeout));
    return base::FailedPrecondition("the process changed its mappings");
  }
  const bool differs = moment.comparison.difference != StackDifference::kNone;
  Count(*subject, moment, differs ? Judge(*subject, moment) : Verdict::kNotJudged);
  return absl::OkStatus();
}

void Survey::Count(Subject& subject, const Moment& moment, Verdict verdict) {
  ++report_.stops;
  ++report_.ends[std::string(EndName(moment.ours.end))];
  if (moment.ours.end == FW_STACK_END_ROOT) {
    ++report_.our_roots;
  } else if (!moment.ours.frames.empty() && report_.open_ends.size() < kMaxOpenEnds) {
    ++report_.open_ends[fmt::format(
        "{} after {}", EndName(moment.ours.end),
        FrameText(subject, moment.ours.frames, moment.ours.frames.size() - 1))];
  }
  report_.their_roots += moment.their_end == LibunwindEnd::kRoot ? 1 : 0;
  report_.frames_compared += moment.comparison.compared;
  report_.frames_agreed += moment.comparison.agreed;
  if (options_.functions) ++report_.folded[Fold(subject, moment)];
  if (moment.comparison.difference != StackDifference::kNone) {
    CountDifference(subject, moment, verdict);
  } else if (moment.comparison.compared < moment.ours.frames.size()) {
    ++report_.jit_stops;
  }
}

void Survey::CountDifference(Subject& subject, const Moment& moment, Verdict verdict) {
  const StackComparison& comparison = moment.comparison;
  const size_t last = comparison.agreed == 0 ? 0 : comparison.agreed - 1;
  const uint64_t frame = moment.ours.frames[last];
  const std::string binary(subject.ours->PathOf(frame));
  const std::string rule = subject.ours->RuleOf(frame);
  const std::string end(EndName(moment.ours.end));
  auto found = std::find_if(report_.classes.begin(), report_.classes.end(), [&](const auto& c) {
    return c.binary == binary && c.rule == rule && c.difference == comparison.difference &&
           c.end == end;
  });
  if (found == report_.classes.end()) {
    found = report_.classes.insert(found, {.binary = binary,
                                           .rule = rule,
                                           .difference = comparison.difference,
                                           .end = end,
                                           .example = FrameText(subject, moment.ours.frames, last),
                                           .ours = FrameText(subject, moment.ours.frames, last + 1),
                                           .theirs = FrameText(subject, moment.theirs, last + 1)});
  }
  const uint64_t frames = comparison.compared - comparison.agreed;
  ++found->stops;
  found->frames += frames;
  ++found->verdicts[verdict];
  if (verdict == Verdict::kAgainstUs) report_.frames_against_us += frames;
}

// "libc.so.6+0x2724a __libc_start_call_main"; "end" beyond the last frame.
std::string Survey::FrameText(Subject& subject, std::span<const uint64_t> frames, size_t index) {
  if (index >= frames.size()) return "end";
  const uint64_t frame = frames[index];
  const std::string_view path = subject.ours->PathOf(frame);
  if (path.empty()) return subject.ours->IsMapped(frame) ? "[no file]" : "[nothing mapped]";
  const std::string function = subject.ours->FunctionOf(frame);
  return fmt::format("{}+{:#x}{}{}", BaseName(path),
                     frame & ((1ull << FW_FRAME_FILE_OFFSET_BITS) - 1), function.empty() ? "" : " ",
                     function);
}

std::string Survey::Fold(Subject& subject, const Moment& moment) {
  std::string folded;
  for (size_t i = moment.ours.frames.size(); i-- > 0;) {
    const uint64_t frame = moment.ours.frames[i];
    const std::string_view path = subject.ours->PathOf(frame);
    std::string name = path == subject.exe ? subject.ours->FunctionOf(frame) : "";
    if (name.empty()) name = fmt::format("[{}]", path.empty() ? "no file" : BaseName(path));
    folded += name;
    if (i > 0) folded += ';';
  }
  return folded;
}

void Survey::Finish() {
  std::sort(report_.classes.begin(), report_.classes.end(),
            [](const auto& a, const auto& b) { return a.stops > b.stops; });
  for (const auto& [pid, subject] : subjects_) {
    for (const HostUnwinder::File& file : subject.ours->Files()) {
      if (!file.table_error.empty()) report_.files_without_table[file.path] = file.table_error;
    }
  }
  if (pauses_ns_.empty()) return;
  const auto middle = pauses_ns_.begin() + static_cast<ptrdiff_t>(pauses_ns_.size() / 2);
  std::nth_element(pauses_ns_.begin(), middle, pauses_ns_.end());
  report_.pause_median_ns = *middle;
  report_.pause_max_ns = *std::max_element(pauses_ns_.begin(), pauses_ns_.end());
}

absl::StatusOr<SurveyReport> Survey::Run() {
  if (options_.judge && !HaveGdb()) return base::NotFound("gdb is not installed");
  // Of the process itself: a child may be gone already, that is no error.
  if (const auto subject = SubjectOf(options_.pid); !subject.ok()) return subject.status();
  absl::Status last;
  for (uint32_t i = 0; i < options_.stops * kAttempts && report_.stops < options_.stops; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(random_() % kMaxPauseUs));
    const std::vector<ThreadId> threads = ListThreads(options_.pid, options_.children);
    if (threads.empty()) {
      if (::kill(options_.pid, 0) != 0) break;
      ++report_.failed["no thread that could stop"];
      continue;
    }
    const absl::Status status = StopOnce(PickThread(threads, random_));
    if (status.ok()) continue;
    last = status;
    if (absl::IsPermissionDenied(status) && report_.stops == 0) return status;
    ++report_.failed[absl::IsUnavailable(status)          ? "did not stop in time"
                     : absl::IsFailedPrecondition(status) ? "the process changed its mappings"
                     : absl::IsNotFound(status)           ? "the thread ended"
                                                          : "could not be traced"];
  }
  if (report_.stops == 0) {
    return last.ok() ? base::NotFound("process {} has no threads", options_.pid) : last;
  }
  Finish();
  return std::move(report_);
}

}  // namespace

absl::StatusOr<SurveyReport> SurveyStacks(const SurveyOptions& options,
                                          symbolizer::Symbolizer& symbolizer) {
  return Survey(options, symbolizer).Run();
}

}  // namespace firewatch::agent
