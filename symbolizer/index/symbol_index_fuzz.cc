// SPDX-License-Identifier: Apache-2.0
// Any bytes as a symbol index, with the checksums made right first: a hostile helper can do that,
// and otherwise nothing would come past them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/hash.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/index/text.h"

namespace firewatch::symbolizer {
namespace {

// Header and directory as they must be for Parse to go on; what they lead to is the fuzzer's.
void FixSums(std::string* bytes) {
  IndexHeader header;
  std::memcpy(&header, bytes->data(), sizeof(header));
  std::memcpy(header.magic, kIndexMagic, sizeof(header.magic));
  header.version = kIndexVersion;
  header.index_bytes = bytes->size();
  const size_t room =
      (bytes->size() - sizeof(header) - sizeof(uint64_t)) / sizeof(IndexSectionEntry);
  header.section_count =
      static_cast<uint16_t>(std::min<size_t>({header.section_count, room, kMaxIndexSections}));
  std::memcpy(bytes->data(), &header, sizeof(header));
  for (size_t i = 0; i < header.section_count; ++i) {
    char* at = bytes->data() + sizeof(header) + i * sizeof(IndexSectionEntry);
    IndexSectionEntry entry;
    std::memcpy(&entry, at, sizeof(entry));
    if (entry.offset <= bytes->size()) {
      entry.xxh3 = base::Hash64(std::string_view(*bytes).substr(entry.offset, entry.size));
    }
    std::memcpy(at, &entry, sizeof(entry));
  }
  const size_t sum_at = sizeof(header) + header.section_count * sizeof(IndexSectionEntry);
  const uint64_t sum = base::Hash64(std::string_view(*bytes).substr(0, sum_at));
  std::memcpy(bytes->data() + sum_at, &sum, sizeof(sum));
}

void CheckNames(const SymbolIndex& index) {
  NameReader reader;
  std::string linkage, display;
  const uint32_t count = index.names().count();
  const uint32_t step = std::max<uint32_t>(1, count / 256);
  for (uint64_t id = 0; id < count; id += step) {
    reader.Read(index.names(), static_cast<uint32_t>(id), &linkage, &display);
    CHECK(IsPrintableUtf8(linkage) && IsPrintableUtf8(display));
  }
  CHECK(!reader.Read(index.names(), count, &linkage, &display));
}

void CheckAddress(const SymbolIndex& index, uint64_t address) {
  const auto symbol = index.SymbolAt(address);
  IndexFrame frames[kMaxIndexFrames];
  const size_t depth = index.FindAddress(address, frames);
  CHECK(depth <= kMaxIndexFrames);
  for (size_t i = 0; i < depth; ++i) CHECK(frames[i].name < index.names().count());
  if (!symbol) return;
  CHECK(depth > 0);
  CHECK(address >= symbol->start && address - symbol->start < symbol->size_bytes);
  CHECK(symbol->name < index.names().count() && symbol->group < index.names().count());
  uint32_t aliases[4];
  for (size_t i = 0; i < index.AliasesOf(address, aliases); ++i) {
    CHECK(aliases[i] < index.names().count());
  }
}

// The same answers at once.
void CheckAddresses(const SymbolIndex& index, std::span<const uint64_t> addresses) {
  size_t next = 0;
  index.FindAddresses(addresses, [&](size_t number, std::span<const IndexFrame> frames) {
    CHECK(number == next++);
    IndexFrame expected[kMaxIndexFrames];
    const size_t depth = index.FindAddress(addresses[number], expected);
    CHECK(std::ranges::equal(frames, std::span(expected).first(depth)));
  });
  CHECK(next == addresses.size());
}

}  // namespace
}  // namespace firewatch::symbolizer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  if (size < sizeof(IndexHeader) + sizeof(uint64_t)) return 0;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  FixSums(&bytes);
  const auto index = SymbolIndex::Parse(std::as_bytes(std::span<const char>(bytes)));
  if (!index.ok()) return 0;
  CheckNames(*index);
  std::vector<uint64_t> addresses;
  for (uint32_t i = 0; i < index->symbol_count(); ++i) {
    const IndexSymbol symbol = index->SymbolNumber(i);
    CHECK(index->SymbolAt(symbol.start));
    CHECK(index->SymbolAt(symbol.start + symbol.size_bytes - 1));
    CheckAddress(*index, symbol.start);
    CheckAddress(*index, symbol.start - 1);
    addresses.insert(addresses.end(), {symbol.start, symbol.start - 1,
                                       symbol.start + symbol.size_bytes / 2, symbol.start * 2});
  }
  // Lines may stand where no symbol does.
  for (uint64_t address = 0; address < 0x4000; address += 0x70) addresses.push_back(address);
  CheckAddresses(*index, addresses);
  CHECK(!index->SymbolAt(index->end()));
  IndexFrame frames[4];
  for (uint64_t offset = 0; offset < 0x10000; offset += 0x400) index->FindOffset(offset, frames);
  return 0;
}
