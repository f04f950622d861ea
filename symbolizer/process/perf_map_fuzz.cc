// SPDX-License-Identifier: Apache-2.0
// Any text as a perf map: whole, and growing as a runtime writes it.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/check.h"
#include "symbolizer/process/perf_map.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const SpanByteSource file(bytes);
  PerfMap whole(512), growing(512);
  CHECK(whole.Update(file).ok());
  for (size_t at = 0; at <= size; at += 17) {
    CHECK(growing.Update(SpanByteSource(bytes.first(at))).ok());
  }
  CHECK(growing.Update(file).ok());
  CHECK(whole.ranges() <= 512 && whole.malformed() <= whole.lines());
  CHECK(whole.lines() == growing.lines() && whole.malformed() == growing.malformed());
  CHECK(whole.ranges() == growing.ranges());
  // The addresses that the text itself tells are the ones that are known.
  std::string_view text(reinterpret_cast<const char*>(data), size);
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : text.size());
    PerfMapLine parsed;
    if (!ParsePerfMapLine(line, &parsed)) continue;
    std::string name;
    std::string other;
    for (const uint64_t address : {parsed.start, parsed.start + parsed.size - 1}) {
      CHECK(whole.Find(file, address, &name) == growing.Find(file, address, &other));
      CHECK(name == other && name.size() <= PerfMap::kMaxNameBytes);
    }
  }
  return 0;
}
