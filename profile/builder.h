// SPDX-License-Identifier: Apache-2.0
// Builds a Profile by interning: the same string, function, mapping, location, stack or label set
// always gets the same id, and samples with equal (stack, labels) are added up.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "profile/intern_index.h"
#include "profile/profile.h"

namespace firewatch::profile {

// One thread. The memory it holds is the profile's plus one index per table (12 bytes a row).
// Adding what is there already copies and allocates nothing.
class ProfileBuilder {
 public:
  explicit ProfileBuilder(std::vector<ValueType> sample_types);

  // Bytes that are not UTF-8 become U+FFFD.
  StringId AddString(std::string_view text);
  FunctionId AddFunction(const Function& function);
  FunctionId AddFunction(std::string_view name, std::string_view system_name, std::string_view file,
                         int64_t start_line = 0);
  MappingId AddMapping(const Mapping& mapping);
  LocationId AddLocation(const Location& location);
  StackId AddStack(std::span<const LocationId> leaf_first);
  LabelSetId AddLabelSet(const LabelSet& labels);
  // values.size() == sample_types.size() (CHECKed: the caller made both). Sums saturate.
  void AddSample(StackId stack, LabelSetId labels, std::span<const int64_t> values);

  // The profile under construction: set period, times, comments here.
  Profile& profile() { return profile_; }
  const Profile& profile() const { return profile_; }

  // Hands the profile out; the builder is empty afterwards and must not be used again.
  Profile Finish();

 private:
  Profile profile_;
  InternIndex strings_, functions_, mappings_, locations_, stacks_, label_sets_, samples_;
};

}  // namespace firewatch::profile
