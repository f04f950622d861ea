// SPDX-License-Identifier: Apache-2.0
// .debug_aranges: which unit has code where, as some compilers and linkers say. A hint: units may
// be missing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace firewatch::symbolizer::dwarf {

// Calls `visit` for every range of every set that can be read; `unit` is an offset in .debug_info
// that nobody has checked.
void ForEachArange(std::span<const std::byte> section,
                   const std::function<void(uint64_t start, uint64_t end, uint64_t unit)>& visit);

}  // namespace firewatch::symbolizer::dwarf
