// SPDX-License-Identifier: Apache-2.0
// The symbols section: sorted ranges as columns. Part of index_writer.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "symbolizer/index/flatten.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/name_table.h"

namespace firewatch::symbolizer {

struct IndexSource;

// What the section says, names as ids.
struct SymbolColumns {
  struct Range {
    uint64_t start = 0;
    uint64_t size = 0;
    uint32_t name = 0;
    uint16_t group = 0;
    uint8_t flags = 0;  // SymbolFlag
  };
  std::vector<Range> ranges;
  std::vector<SymbolsAlias> aliases;
  std::vector<uint32_t> groups;  // name ids; empty when no range has a group
};

// `ranges` as Flatten has made them of `source.symbols`. Interns the names in order of address, a
// function's aliases behind it: names that resemble each other get into one block.
SymbolColumns CollectSymbols(const IndexSource& source, const std::vector<SymbolRange>& ranges,
                             NameTableBuilder& names);

std::vector<std::byte> WriteSymbols(const SymbolColumns& columns);

}  // namespace firewatch::symbolizer
