// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "agent/enforce/prefix.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto set = firewatch::agent::ParsePrefixList(
      std::string_view(reinterpret_cast<const char*>(data), size), "list");
  if (!set.ok()) return 0;
  // What was read can be written and read again.
  for (const auto& prefix : set->prefixes4()) {
    firewatch::agent::PrefixSet again;
    if (!again.Add(firewatch::agent::FormatPrefix(prefix)).ok()) __builtin_trap();
  }
  for (const auto& prefix : set->prefixes6()) {
    firewatch::agent::PrefixSet again;
    if (!again.Add(firewatch::agent::FormatPrefix(prefix)).ok()) __builtin_trap();
  }
  return 0;
}
