// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/hash.h"
#include "symbolizer/index/name_table.h"

namespace firewatch::symbolizer {

NameTableBuilder::Name::Name(std::string_view name)
    : data(name.data()),
      size(static_cast<uint32_t>(std::min(name.size(), kMaxNameBytes))),
      hash(static_cast<uint32_t>(base::Hash64(name.substr(0, kMaxNameBytes)))) {}

NameTableBuilder::NameTableBuilder() {
  names_.ReserveRoom();
  names_.Add(Name(""));
}

uint32_t NameTableBuilder::Intern(std::string_view name) { return names_.Add(Name(name)); }

uint32_t NameTableBuilder::InternCopy(std::string_view name) {
  Name wanted(name);
  if (const auto known = names_.Find(wanted)) return *known;
  const auto copy = copies_.Add({reinterpret_cast<const uint8_t*>(wanted.data), wanted.size});
  wanted.data = reinterpret_cast<const char*>(copy.data());
  return names_.Add(wanted);
}

}  // namespace firewatch::symbolizer
