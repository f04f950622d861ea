// SPDX-License-Identifier: Apache-2.0
// Any bytes as a jitdump: whole, and growing as a runtime writes it.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/check.h"
#include "symbolizer/process/jitdump.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const SpanByteSource file(bytes);
  JitDump whole(512), growing(512);
  const bool sound = whole.Update(file).ok();
  for (size_t at = 0; at < size; at += 23) {
    if (!growing.Update(SpanByteSource(bytes.first(at))).ok()) break;
  }
  CHECK(growing.Update(file).ok() == sound);
  CHECK(whole.ranges() <= 512 && whole.records() == growing.records());
  CHECK(whole.ranges() == growing.ranges() && whole.malformed() == growing.malformed());
  // Every word of the file as an address: those of its code are among them.
  for (size_t at = 0; at + 8 <= size; at += 4) {
    uint64_t address = 0;
    std::memcpy(&address, data + at, sizeof(address));
    JitSymbol symbol, other;
    CHECK(whole.Find(file, address, &symbol) == growing.Find(file, address, &other));
    CHECK(symbol.name == other.name && symbol.line == other.line && symbol.file == other.file);
    CHECK(symbol.name.size() <= JitDump::kMaxNameBytes);
  }
  return 0;
}
