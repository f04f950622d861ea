// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/name_table.h"

#include "symbolizer/room.h"

namespace firewatch::symbolizer {

NameTableBuilder::NameTableBuilder() : ids_(0, Hash{&names_}, Equal{&names_}) {
  ReserveRoom(&names_);
  names_.emplace_back("");
  ids_.insert(0);
}

uint32_t NameTableBuilder::Intern(std::string_view name) {
  name = name.substr(0, kMaxNameBytes);
  const auto known = ids_.find(name);
  if (known != ids_.end()) return *known;
  const auto id = static_cast<uint32_t>(names_.size());
  names_.push_back(name);
  ids_.insert(id);
  return id;
}

uint32_t NameTableBuilder::InternCopy(std::string_view name) {
  name = name.substr(0, kMaxNameBytes);
  const auto known = ids_.find(name);
  if (known != ids_.end()) return *known;
  const auto copy = copies_.Add({reinterpret_cast<const uint8_t*>(name.data()), name.size()});
  return Intern({reinterpret_cast<const char*>(copy.data()), copy.size()});
}

}  // namespace firewatch::symbolizer
