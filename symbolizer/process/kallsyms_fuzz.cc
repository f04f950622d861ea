// SPDX-License-Identifier: Apache-2.0
// Any text as /proc/kallsyms, whole and in pieces, with the first line as /proc/modules.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "symbolizer/process/kallsyms.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto modules = ParseModules(text.substr(0, text.find('\n')));
  KallsymsParser whole, pieces;
  whole.Feed(text);
  whole.Finish();
  for (size_t at = 0; at < text.size(); at += 13) pieces.Feed(text.substr(at, 13));
  pieces.Finish();
  CHECK(whole.lines() == pieces.lines() && whole.malformed() == pieces.malformed());
  IndexSource source = whole.MakeSource(modules);
  CHECK(pieces.MakeSource(modules).symbols.size() == source.symbols.size());
  uint64_t free_from = 0;
  for (const SymbolRange& range : Flatten(source.symbols)) {
    CHECK(range.start >= free_from && range.end > range.start);
    CHECK(source.symbols[range.symbol].group < source.groups.size());
    free_from = range.end;
  }
  return 0;
}
