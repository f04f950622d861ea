// SPDX-License-Identifier: Apache-2.0
#include "cli/record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/core/process_table.h"
#include "agent/cpu/profiler.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "bpf/include/losses.h"
#include "cli/cache_directory.h"
#include "cli/child.h"
#include "cli/progress.h"
#include "profile/flame_tree.h"
#include "profile/folded_codec.h"
#include "profile/merge.h"
#include "profile/pprof_codec.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::cli {
namespace {

// Kept for the output: events of threads may take every other descriptor (RLIMIT_NOFILE), and then
// all that was recorded would be lost.
base::UniqueFd g_spare_fd;

// Debug information is read at some 200 MB a second: enough for most programs.
constexpr int kFinalLinesMs = 10'000;
constexpr size_t kMaxBareFiles = 20;

// Set by the signal handler: Ctrl-C ends the recording and keeps what was collected.
volatile sig_atomic_t g_interrupted = 0;

void OnInterrupt(int) { g_interrupted = 1; }

// SIGINT and SIGTERM set the flag while this object lives; a second Ctrl-C ends the process.
class InterruptScope {
 public:
  InterruptScope() {
    g_interrupted = 0;
    struct sigaction action{};
    action.sa_handler = OnInterrupt;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(SIGINT, &action, &old_int_);
    ::sigaction(SIGTERM, &action, &old_term_);
  }
  ~InterruptScope() {
    ::sigaction(SIGINT, &old_int_, nullptr);
    ::sigaction(SIGTERM, &old_term_, nullptr);
  }
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  struct sigaction old_int_{};
  struct sigaction old_term_{};
};

bool AnyAlive(const std::vector<uint32_t>& pids) {
  for (uint32_t pid : pids) {
    if (::kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM) return true;
  }
  return false;
}

absl::Status WriteFile(const std::string& path, std::string_view bytes) {
  g_spare_fd.Reset();
  std::FILE* file = path == "-" ? stdout : std::fopen(path.c_str(), "wb");
  if (file == nullptr) return base::ErrnoStatus(errno, fmt::format("write {}", path));
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  const bool closed = (path == "-" ? std::fflush(file) : std::fclose(file)) == 0;
  if (!written || !closed) return base::ErrnoStatus(errno, fmt::format("write {}", path));
  return absl::OkStatus();
}

// What was collected, and what went missing on the way.
struct Recording {
  profile::ProfileMerger merger;
  uint64_t samples = 0;
  std::map<std::string, uint64_t> losses;
  // Frames without a name, times samples: of files by path and reason, and all by reason.
  std::map<std::string, uint64_t> bare_files;
  std::map<std::string, uint64_t> bare_reasons;
  absl::Status error;

  void Take(agent::ClosedWindow window) {
    samples += window.samples;
    for (const auto& [name, count] : window.losses) losses[name] += count;
    for (const agent::BinaryGaps& gaps : window.binaries) {
      if (gaps.bare_frames == 0) continue;
      bare_files[fmt::format("{}: {}", gaps.path, symbolizer::NameReasonText(gaps.no_names))] +=
          gaps.bare_frames;
    }
    for (const auto& [reason, count] : window.bare_frames) {
      bare_reasons[std::string(symbolizer::NameReasonText(reason))] += count;
    }
    for (const agent::WindowGroup& group : window.groups) {
      if (absl::Status status = merger.Add(group.profile); !status.ok()) error = status;
    }
  }
};

// "samples dropped: the ring buffer to user space was full", from the list of losses.
std::string_view LossText(std::string_view loss) {
#define FW_LOSS_TEXT(constant, name, text) \
  if (loss == name) return text;
  FW_LOSSES(FW_LOSS_TEXT)
#undef FW_LOSS_TEXT
  return loss;
}

// Those with the most frames, a comment each: "420 frames without a name: /opt/db: stripped".
std::vector<std::string> BareFileTexts(const Recording& recording) {
  std::vector<std::pair<uint64_t, std::string>> files;
  for (const auto& [text, count] : recording.bare_files) files.emplace_back(count, text);
  std::sort(files.rbegin(), files.rend());
  if (files.size() > kMaxBareFiles) files.resize(kMaxBareFiles);
  std::vector<std::string> texts;
  for (const auto& [count, text] : files) {
    texts.push_back(fmt::format("{} frames without a name: {}", count, text));
  }
  return texts;
}

// A profile says by itself what it was taken with (`go tool pprof -comments`).
void AddComments(const agent::Profiler& profiler, const Recording& recording,
                 profile::Profile* profile) {
  profile->comments.push_back(
      fmt::format("sampler: {}", agent::SourceKindName(profiler.source().kind())));
  const std::string pauses = agent::DescribePauses(profiler.source().Pauses());
  if (!pauses.empty()) profile->comments.push_back("paused: " + pauses);
  for (std::string& text : BareFileTexts(recording)) profile->comments.push_back(std::move(text));
}

absl::Status WriteProfile(const profile::Profile& profile, const RecordOptions& options) {
  if (options.folded) return WriteFile(options.output, profile::WriteFolded(profile, 0));
  ASSIGN_OR_RETURN(const std::string bytes,
                   profile::WritePprof(profile, profile::Compression::kGzip));
  return WriteFile(options.output, bytes);
}

void PrintSummary(const profile::Profile& profile, const Recording& recording,
                  const agent::Profiler& profiler, const RecordOptions& options) {
  const uint32_t hz = profiler.source().hz();
  fmt::print(stderr, "{} samples at {} Hz, {:.2f} s of CPU, {} stacks -> {}\n", recording.samples,
             hz, static_cast<double>(recording.samples) / hz,
             profile.stacks.empty() ? 0 : profile.stacks.size() - 1, options.output);
  if (const std::string text = profiler.FallbackText(); !text.empty()) {
    fmt::print(stderr, "  {}\n", text);
  }
  if (const std::string text = agent::DescribePauses(profiler.source().Pauses()); !text.empty()) {
    fmt::print(stderr, "  paused: {}\n", text);
  }
  for (const auto& [name, count] : recording.losses) {
    fmt::print(stderr, "  {} {}\n", count, LossText(name));
  }
  for (const auto& [reason, count] : recording.bare_reasons) {
    fmt::print(stderr, "  {} frames without a name: {}\n", count, reason);
  }
  if (recording.samples == 0) {
    fmt::print(stderr, "  No sample: what was watched used no CPU in this time.\n");
  } else if (!options.folded && options.output != "-") {
    for (const profile::FunctionTotals& row : profile::TopFunctions(profile, 0, 5)) {
      fmt::print(stderr, "  {:5.1f} %  {}\n",
                 100.0 * static_cast<double>(row.self) / static_cast<double>(recording.samples),
                 row.name);
    }
    fmt::print(stderr, "look:  go tool pprof -http=: {}\n", options.output);
  }
}

// The recording's end: time over, Ctrl-C, or what was watched has ended.
class EndCondition {
 public:
  EndCondition(const RecordOptions& options, std::optional<Child>& child)
      : options_(options), child_(child), start_(std::chrono::steady_clock::now()) {}

  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  bool Reached() {
    if (g_interrupted != 0) return true;
    if (options_.seconds > 0 && Seconds() >= options_.seconds) return true;
    if (child_.has_value()) return child_->Ended().has_value();
    return !options_.pids.empty() && !AnyAlive(options_.pids);
  }

 private:
  const RecordOptions& options_;
  std::optional<Child>& child_;
  const std::chrono::steady_clock::time_point start_;
};

absl::StatusOr<agent::ProfilerOptions> MakeProfilerOptions(const RecordOptions& options) {
  agent::ProfilerOptions out;
  ASSIGN_OR_RETURN(out.source, agent::ParseSourceChoice(options.sampler));
  out.stack_bytes = options.stack_bytes & ~7u;
  if (options.hz_given && out.source == agent::SourceChoice::kPtrace)
    out.ptrace_max_hz = options.hz;
  out.sampler.hz = options.hz;
  for (uint32_t pid : options.pids) out.sampler.pids.push_back(agent::Pid{pid});
  out.window.single_profile = true;
  out.memory_limit_bytes = options.memory_limit_bytes;
  // The tick decides when to stop; 50 ms keeps a short command's recording short.
  out.tick_ms = 50;
  if (options.lines == "on") out.final_lines_ms = kFinalLinesMs;
  return out;
}

absl::StatusOr<std::unique_ptr<symbolizer::Symbolizer>> MakeSymbolizer(
    const RecordOptions& options, base::MetricsRegistry& metrics) {
  symbolizer::SymbolizerOptions names;
  names.lines = options.lines == "on";
  // Somebody waits for this one profile.
  names.lines_budget.share = 1;
  names.cache_directory =
      options.cache_directory.empty() ? DefaultCacheDirectory() : options.cache_directory;
  auto kept = symbolizer::Symbolizer::Create(names, metrics);
  if (kept.ok() || !options.cache_directory.empty()) return kept;
  // No home to keep indexes in: a recording goes on with a temporary folder.
  names.cache_directory = "";
  return symbolizer::Symbolizer::Create(names, metrics);
}

}  // namespace

absl::StatusOr<int> RunRecord(const RecordOptions& options) {
  for (uint32_t pid : options.pids) {
    if (!AnyAlive({pid})) return base::NotFound("there is no process {}", pid);
  }
  g_spare_fd.Reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  base::MetricsRegistry metrics;
  base::SystemClock clock;
  ASSIGN_OR_RETURN(const auto symbolizer, MakeSymbolizer(options, metrics));
  agent::ProcessTable table(agent::ProcessTableOptions(), *symbolizer, metrics);

  std::optional<Child> child;
  RecordOptions watched = options;
  if (!options.command.empty()) {
    ASSIGN_OR_RETURN(Child started, Child::Start(options.command));
    watched.pids = {static_cast<uint32_t>(started.pid())};
    child.emplace(std::move(started));
  }

  Recording recording;
  ASSIGN_OR_RETURN(agent::ProfilerOptions profiler_options, MakeProfilerOptions(watched));
  std::unique_ptr<agent::Profiler> profiler;
  std::optional<EndCondition> end;
  Progress progress(options.quiet);
  profiler_options.on_tick = [&] {
    uint64_t lost = 0;
    for (uint64_t count : profiler->source().Losses()) lost += count;
    progress.Show(end->Seconds(), options.seconds, profiler->collector().samples_total(), lost);
    return !end->Reached();
  };
  ASSIGN_OR_RETURN(profiler, agent::Profiler::Open(std::move(profiler_options), table, *symbolizer,
                                                   clock, metrics, [&](agent::ClosedWindow window) {
                                                     recording.Take(std::move(window));
                                                   }));
  InterruptScope interrupts;
  if (child.has_value()) RETURN_IF_ERROR(child->Release());
  end.emplace(watched, child);
  RETURN_IF_ERROR(profiler->Run());
  RETURN_IF_ERROR(recording.error);

  profile::Profile profile = recording.merger.Finish();
  // Nothing ran: still a profile that every reader takes.
  if (profile.sample_types.empty()) {
    profile.sample_types = {{"samples", "count"}, {"cpu", "nanoseconds"}};
  }
  AddComments(*profiler, recording, &profile);
  RETURN_IF_ERROR(WriteProfile(profile, options));
  if (!options.quiet) PrintSummary(profile, recording, *profiler, options);
  if (child.has_value()) return child->Ended().value_or(0);
  return 0;
}

}  // namespace firewatch::cli
