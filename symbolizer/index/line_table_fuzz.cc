// SPDX-License-Identifier: Apache-2.0
// Any bytes as a lines section: what Parse takes can be looked up without leaving it.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "base/check.h"
#include "symbolizer/index/line_table.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  // Aligned, and of its own size.
  const auto words = std::make_unique<uint64_t[]>(size / 8);
  size = size / 8 * 8;
  if (size > 0) std::memcpy(words.get(), data, size);
  auto* bytes = reinterpret_cast<std::byte*>(words.get());
  if (size >= sizeof(LinesFooter)) {
    const uint32_t version = kLinesVersion;
    std::memcpy(bytes + size - sizeof(LinesFooter), &version, sizeof(version));
  }
  const auto table = LineTable::Parse({bytes, size}, 100);
  if (!table.ok()) return 0;
  uint64_t start = 0;  // of the first area, where there is one
  LinesFooter footer;
  std::memcpy(&footer, bytes + size - sizeof(footer), sizeof(footer));
  if (footer.area_count > 0) std::memcpy(&start, bytes + footer.areas, sizeof(start));
  LineFrame frames[8];
  for (uint64_t step = 0; step < 2000; ++step) {
    const size_t count = table->Find(start + step * 7, frames);
    CHECK(count <= 8);
    for (size_t i = 0; i < count; ++i) {
      CHECK(frames[i].file < 100);
      CHECK(table->FunctionAt(frames[i].function).name < 100);
    }
  }
  return 0;
}
