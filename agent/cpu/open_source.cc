// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/open_source.h"

#include <utility>

#include "agent/cpu/fallback_sampler.h"
#include "agent/cpu/ptrace_sampler.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

absl::StatusOr<OpenedSource> OpenEbpf(const SourceOptions& options, ProcessTable& table,
                                      base::MetricsRegistry& metrics) {
  OpenedSource opened;
  ASSIGN_OR_RETURN(opened.sideband, SideBand::Open(SideBandOptions(), metrics));
  RETURN_IF_ERROR(table.PrimeFromProc());
  ASSIGN_OR_RETURN(opened.source, Sampler::Open(options.sampler, metrics));
  return opened;
}

// Opened first, primed afterwards: its rings hold what happens meanwhile.
absl::StatusOr<OpenedSource> OpenPerf(const SourceOptions& options, ProcessTable& table,
                                      symbolizer::Symbolizer& symbolizer,
                                      base::MetricsRegistry& metrics) {
  OpenedSource opened;
  ASSIGN_OR_RETURN(opened.source, FallbackSampler::Open({.sampler = options.sampler,
                                                         .stack_bytes = options.stack_bytes},
                                                        table, symbolizer, metrics));
  RETURN_IF_ERROR(table.PrimeFromProc());
  return opened;
}

absl::StatusOr<OpenedSource> OpenPtrace(const SourceOptions& options, ProcessTable& table,
                                        symbolizer::Symbolizer& symbolizer,
                                        base::MetricsRegistry& metrics) {
  OpenedSource opened;
  ASSIGN_OR_RETURN(opened.source, PtraceSampler::Open(
                                      {.sampler = options.sampler, .max_hz = options.ptrace_max_hz},
                                      table, symbolizer, metrics));
  RETURN_IF_ERROR(table.PrimeFromProc());
  return opened;
}

}  // namespace

absl::StatusOr<SourceChoice> ParseSourceChoice(std::string_view text) {
  if (text == "auto") return SourceChoice::kAuto;
  if (text == "ebpf") return SourceChoice::kEbpf;
  if (text == "perf") return SourceChoice::kPerf;
  if (text == "ptrace") return SourceChoice::kPtrace;
  return base::InvalidArgument("sampler '{}': must be auto, ebpf, perf or ptrace", text);
}

absl::StatusOr<OpenedSource> OpenSource(const SourceOptions& options, ProcessTable& table,
                                        symbolizer::Symbolizer& symbolizer,
                                        base::MetricsRegistry& metrics) {
  const auto open = [&](SourceKind kind) -> absl::StatusOr<OpenedSource> {
    switch (kind) {
      case SourceKind::kEbpf:
        return OpenEbpf(options, table, metrics);
      case SourceKind::kPerf:
        return OpenPerf(options, table, symbolizer, metrics);
      case SourceKind::kPtrace:
        break;
    }
    return OpenPtrace(options, table, symbolizer, metrics);
  };
  switch (options.choice) {
    case SourceChoice::kEbpf:
      return open(SourceKind::kEbpf);
    case SourceChoice::kPerf:
      return open(SourceKind::kPerf);
    case SourceChoice::kPtrace:
      return open(SourceKind::kPtrace);
    case SourceChoice::kAuto:
      break;
  }
  std::vector<std::string> refusals;
  absl::Status first;
  for (const SourceKind kind : {SourceKind::kEbpf, SourceKind::kPerf, SourceKind::kPtrace}) {
    auto opened = open(kind);
    if (opened.ok()) {
      opened->refusals = std::move(refusals);
      return opened;
    }
    // A wrong option is wrong for all of them.
    if (absl::IsInvalidArgument(opened.status())) return opened.status();
    if (first.ok()) first = opened.status();
    refusals.push_back(fmt::format("{}: {}", SourceKindName(kind), base::Message(opened.status())));
  }
  std::string all;
  for (const std::string& refusal : refusals) all += (all.empty() ? "" : "; ") + refusal;
  return absl::IsPermissionDenied(first) ? base::PermissionDenied("{}", all)
                                         : base::FailedPrecondition("{}", all);
}

std::string DescribeFallback(const OpenedSource& opened) {
  if (opened.source->kind() == SourceKind::kEbpf) return "";
  std::string text = fmt::format("fallback sampler {}: {}", SourceKindName(opened.source->kind()),
                                 opened.source->limits());
  for (const std::string& refusal : opened.refusals) text += fmt::format(" ({})", refusal);
  return text;
}

std::string DescribePauses(const PauseStats& pauses) {
  if (pauses.stops == 0) return "";
  return fmt::format("{} stops, {} us median, {} us at most, {:.3f} % of the CPU time watched",
                     pauses.stops, pauses.median_ns / 1000, pauses.max_ns / 1000,
                     100 * pauses.share);
}

}  // namespace firewatch::agent
