// SPDX-License-Identifier: Apache-2.0
// Distinct integer types for the rows of a profile's tables: a StringId cannot be taken for a
// StackId, at no run cost. Ids are dense, start at 0 and mean something only inside the Profile
// that made them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace firewatch::profile {

template <typename Tag>
class Id {
 public:
  constexpr Id() = default;
  constexpr explicit Id(uint32_t value) : value_(value) {}
  constexpr uint32_t value() const { return value_; }
  constexpr size_t index() const { return value_; }
  friend constexpr auto operator<=>(Id, Id) = default;
  template <typename H>
  friend H AbslHashValue(H state, Id id) {
    return H::combine(std::move(state), id.value_);
  }

 private:
  uint32_t value_ = 0;
};

using StringId = Id<struct StringTag>;  // 0 is always ""
using FunctionId = Id<struct FunctionTag>;
using MappingId = Id<struct MappingTag>;  // 0 is always "no mapping"
using LocationId = Id<struct LocationTag>;
using StackId = Id<struct StackTag>;        // 0 is always the empty stack
using LabelSetId = Id<struct LabelSetTag>;  // sample labels; 0 is always the empty set

}  // namespace firewatch::profile
