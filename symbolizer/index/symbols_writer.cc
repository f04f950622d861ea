// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/symbols_writer.h"

#include <algorithm>
#include <cstring>

#include "symbolizer/index/index_writer.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/name_parts.h"

namespace firewatch::symbolizer {
namespace {

uint8_t FlagsOf(const InputSymbol& symbol) {
  unsigned flags = 0;
  if (!symbol.sized) flags |= kUnsized;
  if (symbol.plt) return static_cast<uint8_t>(flags | kPlt);
  const NameParts parts = SplitName(symbol.name);
  if (parts.cold) flags |= kColdPart;
  if (parts.variant) flags |= kVariant;
  return static_cast<uint8_t>(flags);
}

bool IsMangled(std::string_view name) { return name.starts_with("_Z") || name.starts_with("_R"); }

// Whether two names of one body tell of two functions. Of plain names nothing can be told: C
// libraries are full of aliases (read, __read).
bool TellsOfFolding(std::string_view a, std::string_view b) {
  return IsMangled(a) && IsMangled(b) && !SameFunction(a, b);
}

class Columns {
 public:
  explicit Columns(size_t size) { bytes_.reserve(size); }
  template <typename T>
  void Put(const T& value) {
    PutBytes(&value, sizeof(value));
  }
  void PutBytes(const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

uint8_t NameWidth(const SymbolColumns& columns) {
  uint32_t largest = 0;
  for (const auto& range : columns.ranges) largest = std::max(largest, range.name);
  return largest < (1U << 16) ? 2 : largest < (1U << 24) ? 3 : 4;
}

}  // namespace

SymbolColumns CollectSymbols(const IndexSource& source, const std::vector<SymbolRange>& ranges,
                             NameTableBuilder& names) {
  SymbolColumns columns;
  columns.ranges.reserve(ranges.size());
  const bool grouped = std::any_of(source.symbols.begin(), source.symbols.end(),
                                   [](const InputSymbol& symbol) { return symbol.group != 0; });
  if (grouped) {
    for (const std::string& group : source.groups) {
      columns.groups.push_back(names.InternCopy(group));
    }
  }
  std::vector<bool> seen(source.symbols.size());
  for (const SymbolRange& range : ranges) {
    const InputSymbol& symbol = source.symbols[range.symbol];
    const auto number = static_cast<uint32_t>(columns.ranges.size());
    unsigned flags = FlagsOf(symbol);
    if (seen[range.symbol]) flags |= kContinued;
    seen[range.symbol] = true;
    const uint32_t name = names.Intern(symbol.name);
    const size_t first_alias = columns.aliases.size();
    for (const uint32_t other : AliasesOf(source.symbols, range.symbol)) {
      const uint32_t alias = names.Intern(source.symbols[other].name);
      const auto known = std::any_of(
          columns.aliases.begin() + static_cast<std::ptrdiff_t>(first_alias), columns.aliases.end(),
          [&](const SymbolsAlias& entry) { return entry.name == alias; });
      if (alias == name || known) continue;
      columns.aliases.push_back({.range = number, .name = alias});
      flags |= kAliased;
      if (TellsOfFolding(symbol.name, source.symbols[other].name)) flags |= kFolded;
    }
    const uint16_t group = symbol.group < columns.groups.size() ? symbol.group : uint16_t{0};
    columns.ranges.push_back({.start = range.start,
                              .size = range.end - range.start,
                              .name = name,
                              .group = group,
                              .flags = static_cast<uint8_t>(flags)});
  }
  return columns;
}

std::vector<std::byte> WriteSymbols(const SymbolColumns& columns) {
  std::vector<SymbolsChunk> chunks;
  std::vector<SymbolsLarge> large;
  for (uint32_t i = 0; i < columns.ranges.size(); ++i) {
    const auto& range = columns.ranges[i];
    if (chunks.empty() || range.start - chunks.back().base > UINT32_MAX) {
      chunks.push_back({.base = range.start, .first_range = i, .reserved = 0});
    }
    if (range.size >= kLargeSize) large.push_back({.size = range.size, .range = i, .reserved = 0});
  }
  SymbolsHeader header{};
  header.range_count = static_cast<uint32_t>(columns.ranges.size());
  header.chunk_count = static_cast<uint32_t>(chunks.size());
  header.large_count = static_cast<uint32_t>(large.size());
  header.alias_count = static_cast<uint32_t>(columns.aliases.size());
  header.group_count = static_cast<uint16_t>(columns.groups.size());
  header.name_width = NameWidth(columns);

  Columns out(sizeof(header) + columns.ranges.size() * 12 + columns.aliases.size() * 8);
  out.Put(header);
  for (const SymbolsChunk& chunk : chunks) out.Put(chunk);
  size_t chunk = 0;
  for (uint32_t i = 0; i < columns.ranges.size(); ++i) {
    while (chunk + 1 < chunks.size() && chunks[chunk + 1].first_range <= i) ++chunk;
    out.Put(static_cast<uint32_t>(columns.ranges[i].start - chunks[chunk].base));
  }
  for (const auto& range : columns.ranges) {
    out.Put(static_cast<uint16_t>(std::min<uint64_t>(range.size, kLargeSize)));
  }
  // Little endian: the low bytes come first.
  for (const auto& range : columns.ranges) out.PutBytes(&range.name, header.name_width);
  for (const auto& range : columns.ranges) out.Put(range.flags);
  if (header.group_count > 0) {
    for (const auto& range : columns.ranges) out.Put(range.group);
  }
  for (const uint32_t group : columns.groups) out.Put(group);
  for (const SymbolsLarge& entry : large) out.Put(entry);
  for (const SymbolsAlias& alias : columns.aliases) out.Put(alias);
  return out.Take();
}

}  // namespace firewatch::symbolizer
