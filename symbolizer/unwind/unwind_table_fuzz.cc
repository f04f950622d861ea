// SPDX-License-Identifier: Apache-2.0
// Any bytes as an unwind table, with checksums made right so that they do not end every attempt:
// what Parse takes, Find and the loader can use without leaving it.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/hash.h"
#include "symbolizer/unwind/table_format.h"
#include "symbolizer/unwind/unwind_table.h"

namespace firewatch::symbolizer {
namespace {

void Sign(std::span<uint64_t> words, size_t size) {
  auto* bytes = reinterpret_cast<char*>(words.data());
  TableHeader header;
  std::memcpy(&header, bytes, sizeof(header));
  std::memcpy(header.magic, kTableMagic, sizeof(header.magic));
  header.version = kTableVersion;
  header.body_xxh3 = base::Hash64(std::string_view(bytes + sizeof(header), size - sizeof(header)));
  header.header_xxh3 = base::Hash64(
      std::string_view(reinterpret_cast<const char*>(&header), offsetof(TableHeader, header_xxh3)));
  std::memcpy(bytes, &header, sizeof(header));
}

}  // namespace
}  // namespace firewatch::symbolizer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  std::vector<uint64_t> words((size + 7) / 8);  // aligned as a mapped file is
  if (size > 0) std::memcpy(words.data(), data, size);
  if (size >= sizeof(TableHeader)) Sign(words, size);
  const auto table =
      UnwindTable::Parse(std::as_bytes(std::span<const uint64_t>(words)).first(size));
  if (!table.ok()) return 0;
  uint64_t sum = 0;
  for (const fw_page_entry& entry : table->directory()) {
    for (const std::byte byte : table->page(entry)) sum += static_cast<uint64_t>(byte);
  }
  const uint64_t start = uint64_t{table->first_page()} << FW_PAGE_SHIFT;
  const uint64_t end = start + (table->directory().size() << FW_PAGE_SHIFT);
  for (uint64_t offset = start; offset < end && offset - start < (1 << 17); offset += 61) {
    const UnwindTable::Rule found = table->Find(offset);
    sum += found.rule.cfa + static_cast<uint64_t>(found.slot.addend);
  }
  return sum == UINT64_MAX ? 1 : 0;
}
