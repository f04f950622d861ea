// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/open_source.h"

#include <utility>

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

}  // namespace

absl::StatusOr<SourceChoice> ParseSourceChoice(std::string_view text) {
  if (text == "auto") return SourceChoice::kAuto;
  if (text == "ebpf") return SourceChoice::kEbpf;
  if (text == "perf") return SourceChoice::kPerf;
  if (text == "ptrace") return SourceChoice::kPtrace;
  return base::InvalidArgument("sampler '{}': must be auto, ebpf, perf or ptrace", text);
}

absl::StatusOr<OpenedSource> OpenSource(const SourceOptions& options, ProcessTable& table,
                                        base::MetricsRegistry& metrics) {
  if (options.choice != SourceChoice::kAuto && options.choice != SourceChoice::kEbpf) {
    return base::FailedPrecondition("this sampler is not part of this build");
  }
  return OpenEbpf(options, table, metrics);
}

}  // namespace firewatch::agent
