// SPDX-License-Identifier: Apache-2.0
// Names by id, kept in memory.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "symbolizer/index/name_interner.h"

namespace firewatch::symbolizer {

class NamesForTest final : public NameInterner {
 public:
  NamesForTest() { Intern(""); }
  uint32_t Intern(std::string_view name) override {
    const auto [place, added] = ids_.try_emplace(name, static_cast<uint32_t>(names_.size()));
    if (added) names_.push_back(name);
    return place->second;
  }
  uint32_t InternCopy(std::string_view name) override {
    const auto found = ids_.find(name);
    if (found != ids_.end()) return found->second;
    copies_.emplace_back(name);
    return Intern(copies_.back());
  }
  std::string_view NameOf(uint32_t id) const { return names_[id]; }
  size_t size() const { return names_.size(); }

 private:
  std::vector<std::string_view> names_;
  std::unordered_map<std::string_view, uint32_t> ids_;
  std::deque<std::string> copies_;
};

}  // namespace firewatch::symbolizer
