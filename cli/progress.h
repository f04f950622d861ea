// SPDX-License-Identifier: Apache-2.0
// One line on the terminal that is drawn over itself; silent when standard error is no terminal.
#pragma once

#include <cstdint>
#include <string>

namespace firewatch::cli {

// "[#######.............]  12.0/30 s  3421 samples  0 lost"; without a known end a spinner instead
// of the bar. Pure, for tests. `seconds_total` 0: unknown.
std::string ProgressLine(double seconds, double seconds_total, uint64_t samples, uint64_t lost);

class Progress {
 public:
  explicit Progress(bool quiet);
  ~Progress();  // leaves the cursor on a fresh line
  void Show(double seconds, double seconds_total, uint64_t samples, uint64_t lost);

 private:
  const bool enabled_;
  bool shown_ = false;
};

}  // namespace firewatch::cli
