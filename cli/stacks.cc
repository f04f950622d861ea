// SPDX-License-Identifier: Apache-2.0
#include "cli/stacks.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "agent/stacks/survey.h"
#include "base/metrics.h"
#include "base/status.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::cli {
namespace {

using agent::SurveyClass;
using agent::SurveyReport;
using nlohmann::json;

double Percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? 100.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

std::string VerdictText(const SurveyClass& entry) {
  std::string text;
  for (const auto& [verdict, stops] : entry.verdicts) {
    if (verdict == agent::Verdict::kNotJudged) continue;
    text += fmt::format("{}gdb {}: {}", text.empty() ? "" : ", ", Name(verdict), stops);
  }
  return text;
}

void PrintClass(const SurveyClass& entry) {
  fmt::print("  {:>5} stops, {} frames: {} ({}), behind {} of {}\n", entry.stops, entry.frames,
             Name(entry.difference), entry.end, entry.rule, entry.binary);
  fmt::print("        after {}: ours {}, libunwind {}\n", entry.example, entry.ours, entry.theirs);
  if (const std::string verdict = VerdictText(entry); !verdict.empty()) {
    fmt::print("        {}\n", verdict);
  }
}

void PrintText(const StacksOptions& options, const SurveyReport& report) {
  fmt::print("process {}: {} stops, {} frames compared with libunwind\n", options.pid, report.stops,
             report.frames_compared);
  fmt::print(
      "  frames that agree   {:.3f} %  ({} differ{})\n",
      Percent(report.frames_agreed, report.frames_compared),
      report.frames_compared - report.frames_agreed,
      options.judge ? fmt::format(", {} of them against us by gdb", report.frames_against_us) : "");
  fmt::print("  complete stacks     {:.2f} %  (libunwind {:.2f} %)\n",
             Percent(report.our_roots, report.stops), Percent(report.their_roots, report.stops));
  for (const auto& [end, stops] : report.ends) fmt::print("    {:<20}{:>6}\n", end, stops);
  if (report.jit_stops > 0) {
    fmt::print("  {} stops compared only up to JIT code\n", report.jit_stops);
  }
  fmt::print("  pause per stop      median {:.1f} us, longest {:.1f} us (both unwinders in it)\n",
             static_cast<double>(report.pause_median_ns) / 1e3,
             static_cast<double>(report.pause_max_ns) / 1e3);
  for (const auto& [reason, stops] : report.failed) {
    fmt::print("  {} stops came to nothing: {}\n", stops, reason);
  }
  for (const auto& [path, why] : report.files_without_table) {
    fmt::print("  no table: {}: {}\n", path, why);
  }
  if (!report.open_ends.empty()) fmt::print("stacks without a proven root:\n");
  for (const auto& [place, stops] : report.open_ends) fmt::print("  {:>5} {}\n", stops, place);
  if (!report.classes.empty()) fmt::print("where they differ:\n");
  for (const SurveyClass& entry : report.classes) PrintClass(entry);
}

json ClassJson(const SurveyClass& entry) {
  json verdicts = json::object();
  for (const auto& [verdict, stops] : entry.verdicts) verdicts[std::string(Name(verdict))] = stops;
  return {{"binary", entry.binary},
          {"rule", entry.rule},
          {"difference", std::string(Name(entry.difference))},
          {"end", entry.end},
          {"after", entry.example},
          {"ours", entry.ours},
          {"theirs", entry.theirs},
          {"stops", entry.stops},
          {"frames", entry.frames},
          {"verdicts", std::move(verdicts)}};
}

void PrintJson(const StacksOptions& options, const SurveyReport& report) {
  json classes = json::array();
  for (const SurveyClass& entry : report.classes) classes.push_back(ClassJson(entry));
  const json document = {{"pid", options.pid},
                         {"stops", report.stops},
                         {"failed", report.failed},
                         {"frames_compared", report.frames_compared},
                         {"frames_agreed", report.frames_agreed},
                         {"frames_against_us", report.frames_against_us},
                         {"our_roots", report.our_roots},
                         {"their_roots", report.their_roots},
                         {"jit_stops", report.jit_stops},
                         {"ends", report.ends},
                         {"open_ends", report.open_ends},
                         {"files_without_table", report.files_without_table},
                         {"pause_median_ns", report.pause_median_ns},
                         {"pause_max_ns", report.pause_max_ns},
                         {"classes", std::move(classes)},
                         {"folded", report.folded}};
  // Names of foreign files and functions may be any bytes.
  fmt::print("{}\n", document.dump(1, ' ', false, json::error_handler_t::replace));
}

}  // namespace

int RunStacks(const StacksOptions& options) {
  base::MetricsRegistry metrics;
  auto symbolizer =
      symbolizer::Symbolizer::Create({.cache_directory = options.cache_directory}, metrics);
  if (!symbolizer.ok()) {
    fmt::print(stderr, "firewatch doctor: {}\n", base::Message(symbolizer.status()));
    return 1;
  }
  const agent::SurveyOptions survey{.pid = options.pid,
                                    .stops = options.stops,
                                    .children = options.children,
                                    .judge = options.judge,
                                    .functions = options.functions,
                                    .seed = options.seed};
  const absl::StatusOr<SurveyReport> report = agent::SurveyStacks(survey, **symbolizer);
  if (!report.ok()) {
    fmt::print(stderr, "firewatch doctor: process {}: {}\n", options.pid,
               base::Message(report.status()));
    if (absl::IsPermissionDenied(report.status())) {
      fmt::print(stderr,
                 "  Looking at stacks from outside needs the right to ptrace the process: the same "
                 "user\n  and kernel.yama.ptrace_scope=0, or root (CAP_SYS_PTRACE).\n");
    }
    return 1;
  }
  options.json ? PrintJson(options, *report) : PrintText(options, *report);
  return 0;
}

}  // namespace firewatch::cli
