// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace firewatch::cli {

std::string ProgressLine(double seconds, double seconds_total, uint64_t samples, uint64_t lost) {
  constexpr int kWidth = 24;
  std::string out;
  if (seconds_total > 0) {
    const double share = std::clamp(seconds / seconds_total, 0.0, 1.0);
    const auto full = static_cast<size_t>(std::lround(share * kWidth));
    out = fmt::format("[{}{}] {:5.1f}/{:g} s", std::string(full, '#'),
                      std::string(kWidth - full, '.'), seconds, seconds_total);
  } else {
    out = fmt::format("{} {:.1f} s", "|/-\\"[static_cast<size_t>(seconds * 5) % 4], seconds);
  }
  return out + fmt::format("  {} samples  {} lost", samples, lost);
}

Progress::Progress(bool quiet) : enabled_(!quiet && ::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (shown_) std::fputc('\n', stderr);
}

void Progress::Show(double seconds, double seconds_total, uint64_t samples, uint64_t lost) {
  if (!enabled_) return;
  shown_ = true;
  // Back to the first column, the line, then clear what an earlier, longer line left behind.
  std::fprintf(stderr, "\r%s\x1b[K", ProgressLine(seconds, seconds_total, samples, lost).c_str());
}

}  // namespace firewatch::cli
