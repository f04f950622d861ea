// SPDX-License-Identifier: Apache-2.0
// Any bytes as Go's pclntab.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "symbolizer/elf/go_pclntab.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const std::span<const char> table(reinterpret_cast<const char*>(data), size);
  uint64_t start = 0;
  NeedsGoTextStart(table, &start);
  const auto functions = ReadGoFunctions(table, start);
  if (!functions.ok()) return 0;
  // A pair takes at least eight bytes.
  CHECK(functions->size() <= size / 8);
  for (const GoFunction& function : *functions) {
    CHECK(function.end > function.start);
    CHECK(!function.name.empty() && function.name.data() >= table.data());
    CHECK(function.name.data() + function.name.size() < table.data() + table.size());
  }
  return 0;
}
