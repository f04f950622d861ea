// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/name_table.h"

#include "symbolizer/room.h"

namespace firewatch::symbolizer {

NameTableBuilder::NameTableBuilder() : ids_(0, Hash(), Equal{&names_}) {
  ReserveRoom(&names_);
  Add(Want(""));
}

NameTableBuilder::Wanted NameTableBuilder::Want(std::string_view name) {
  name = name.substr(0, kMaxNameBytes);
  return {.name = name, .hash = static_cast<uint32_t>(base::Hash64(name))};
}

uint32_t NameTableBuilder::Add(const Wanted& name) {
  const auto id = static_cast<uint32_t>(names_.size());
  names_.push_back(name.name);
  ids_.insert({.id = id, .hash = name.hash});
  return id;
}

uint32_t NameTableBuilder::Intern(std::string_view name) {
  const Wanted wanted = Want(name);
  const auto known = ids_.find(wanted);
  return known != ids_.end() ? known->id : Add(wanted);
}

uint32_t NameTableBuilder::InternCopy(std::string_view name) {
  const Wanted wanted = Want(name);
  const auto known = ids_.find(wanted);
  if (known != ids_.end()) return known->id;
  const auto copy =
      copies_.Add({reinterpret_cast<const uint8_t*>(wanted.name.data()), wanted.name.size()});
  return Add(
      {.name = {reinterpret_cast<const char*>(copy.data()), copy.size()}, .hash = wanted.hash});
}

}  // namespace firewatch::symbolizer
