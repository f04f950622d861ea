// SPDX-License-Identifier: Apache-2.0
// Debug information of the files that samples met, given to the server: once per build id and run
// of the agent asked for, and sent only when nobody has sent it before, which is once per fleet
// (two nodes that ask within the same moment may both send; the server keeps one). Off unless a
// server is named.
//
//   Offer -> waiting, by build id -> the one with the most samples: ask the server -> has it: done
//     -> find the file and its debug file, a copy without code by the sandboxed helper, one zstd
//     frame -> PUT                                        (own thread, nice, one after the other)
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/metrics.h"
#include "symbolizer/debug_copies.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

struct DebugInfoUploaderOptions {
  std::string server;  // HTTP, "host:port" or "http://host:port"
  symbolizer::DebugCopiesOptions copies;
  // Build ids that wait, and those that came out; what comes beyond is counted and left out.
  size_t max_waiting = 1024;
  size_t max_done = 65'536;
  uint64_t max_bytes_per_second = uint64_t{4} << 20;  // compressed
  // Of helper and compression together.
  symbolizer::CpuBudgetOptions cpu = {.share = 0.004, .burst_seconds = 20};
  // Before it sends it waits for a random time up to this and asks again: nodes of a fleet meet the
  // same new file in the same second.
  int spread_ms = 10'000;
  int backoff_min_ms = 1'000;  // while the server is away; doubled, jitter ±50 %
  int backoff_max_ms = 300'000;
};

class DebugInfoUploader {
 public:
  // InvalidArgument: `server` is no address. `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<DebugInfoUploader>> Start(DebugInfoUploaderOptions options,
                                                                  base::MetricsRegistry& metrics);
  // Ends what is under way, within a second or so.
  virtual ~DebugInfoUploader() = default;

  // Any thread; never waits. Again: more samples, a newer process to find the file by.
  virtual void Offer(const symbolizer::FileUse& use) = 0;

  // True when nothing waits or is under way; at most that long.
  virtual bool WaitIdle(int timeout_ms) = 0;
};

}  // namespace firewatch::agent
