// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/name_cache.h"

namespace firewatch::symbolizer {

NameCache::Names NameCache::Get(const NameTable& table, uint32_t id, NameReader& reader) {
  const auto [entry, is_new] = names_.try_emplace(id);
  Entry& names = entry->second;
  if (is_new) {
    reader.Read(table, id, &names.linkage, &names.display);
    if (names.display == names.linkage) {
      names.display = std::string();
    }
    bytes_ +=
        sizeof(Entry) + 2 * sizeof(void*) + names.linkage.capacity() + names.display.capacity();
  }
  return {.linkage = names.linkage,
          .display = names.display.empty() ? names.linkage : names.display};
}

void NameCache::Clear() {
  names_ = {};
  bytes_ = 0;
}

}  // namespace firewatch::symbolizer
