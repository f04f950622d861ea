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

#include "base/check.h"
#include "base/hash.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/index/text.h"

namespace firewatch::symbolizer {
namespace {

void FixSums(std::string* bytes) {
  IndexHeader header;
  std::memcpy(&header, bytes->data(), sizeof(header));
  const std::string_view body = std::string_view(*bytes).substr(sizeof(header));
  header.version = kIndexVersion;
  std::memcpy(header.magic, kIndexMagic, sizeof(header.magic));
  header.symbol_count = std::min<uint64_t>(header.symbol_count, body.size() / kIndexBytesPerSymbol);
  const size_t tables = header.symbol_count * kIndexBytesPerSymbol;
  header.pool_bytes = body.size() - tables;
  header.tables_xxh3 = base::Hash64(body.substr(0, tables));
  header.pool_xxh3 = base::Hash64(body.substr(tables));
  header.header_xxh3 = base::Hash64(
      std::string_view(reinterpret_cast<const char*>(&header), offsetof(IndexHeader, header_xxh3)));
  std::memcpy(bytes->data(), &header, sizeof(header));
}

void CheckEntry(const SymbolIndex& index, uint64_t offset) {
  const auto entry = index.Find(offset);
  if (!entry) return;
  CHECK(offset >= entry->start && offset - entry->start < entry->size_bytes);
  CHECK(IsPrintableUtf8(entry->name) && IsPrintableUtf8(entry->system_name));
  CHECK(IsPrintableUtf8(entry->group));
}

}  // namespace
}  // namespace firewatch::symbolizer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  if (size < sizeof(IndexHeader)) return 0;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  FixSums(&bytes);
  const auto index = SymbolIndex::Parse(std::as_bytes(std::span<const char>(bytes)));
  if (!index.ok()) return 0;
  for (uint64_t i = 0; i < index->symbol_count(); ++i) {
    uint64_t start;
    std::memcpy(&start, bytes.data() + sizeof(IndexHeader) + i * sizeof(start), sizeof(start));
    CHECK(index->Find(start));
    CheckEntry(*index, start);
    CheckEntry(*index, start - 1);
  }
  CHECK(!index->Find(index->end()));
  return 0;
}
