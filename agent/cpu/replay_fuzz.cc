// SPDX-License-Identifier: Apache-2.0
// Any bytes as a replay file: read to the end or to the first error.
#include <cstddef>
#include <cstdint>

#include "agent/cpu/replay.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::agent;
  auto reader = ReplayReader::FromBytes({reinterpret_cast<const std::byte*>(data), size});
  if (!reader.ok()) return 0;
  for (;;) {
    const auto item = (*reader)->Next();
    if (!item.ok() || std::holds_alternative<std::monostate>(*item)) return 0;
  }
}
