// SPDX-License-Identifier: Apache-2.0
// Any bytes either parse into spans inside the input or are refused.
#include <cstdlib>

#include "agent/cpu/fallback_record.h"

namespace {

void CheckInside(std::span<const std::byte> part, std::span<const std::byte> whole) {
  if (part.empty()) return;
  if (part.data() < whole.data() || part.size() > whole.size() ||
      part.data() + part.size() > whole.data() + whole.size()) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto record = firewatch::agent::ParseFallbackRecord(bytes);
  if (!record.ok()) return 0;
  CheckInside(record->call_chain, bytes);
  CheckInside(record->stack, bytes);
  // Readers take the chain as whole words, and a copy that is not full as the end of the stack.
  if (record->call_chain.size() % sizeof(uint64_t) != 0) std::abort();
  if (record->stack.empty() && record->stack_goes_on) std::abort();
  uint64_t sum = record->time_ns;
  for (const std::byte byte : record->call_chain) sum += static_cast<uint64_t>(byte);
  for (const std::byte byte : record->stack) sum += static_cast<uint64_t>(byte);
  volatile uint64_t sink = sum;
  (void)sink;
  return 0;
}
