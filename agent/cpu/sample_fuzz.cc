// SPDX-License-Identifier: Apache-2.0
// Any bytes either parse into spans inside the input or are refused.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "agent/cpu/sample.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint64_t> aligned((size + 7) / 8);
  if (size > 0) std::memcpy(aligned.data(), data, size);
  const auto bytes = std::as_bytes(std::span(aligned)).first(size);
  const auto sample = firewatch::agent::ParseSample(bytes);
  if (!sample.ok()) return 0;
  uint64_t sum = sample->comm.size();
  for (const uint64_t frame : sample->kernel_frames) sum += frame;
  for (const uint64_t frame : sample->user_frames) sum += frame;
  if (sample->bytes.size() > size) std::abort();
  // A record that parsed is a record again: what the replay writer keeps must read the same.
  const auto again = firewatch::agent::ParseSample(sample->bytes);
  if (!again.ok() || again->user_frames.size() != sample->user_frames.size()) std::abort();
  volatile uint64_t sink = sum;
  (void)sink;
  return 0;
}
