// SPDX-License-Identifier: Apache-2.0
// Merges profiles of any origin into one, by identity of location (profile.h): totals are exact,
// nothing is cut. Sums that leave int64 stop at its ends.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/hash.h"
#include "profile/builder.h"
#include "profile/profile.h"

namespace firewatch::profile {

// One thread. Add any number, then Finish once. Holds the merged profile and its indexes, nothing
// of what was added.
class ProfileMerger {
 public:
  ProfileMerger();
  // The first profile decides the sample types. InvalidArgument when a later one has others; it is
  // then left out whole. A profile without types and samples is skipped.
  // Period: the larger; start: the earliest that is known; duration: the sum (as `go tool pprof`
  // does); comments: each once, the first 1,024.
  // Of two descriptions of one location the better is kept: names beat none, then more (inlined)
  // lines beat fewer, then more known source lines; equal ones: the first.
  absl::Status Add(const Profile& profile);
  Profile Finish();

 private:
  struct Translation;  // ids of one added profile -> ids of ours

  void AddHead(const Profile& profile);
  StringId TranslateString(const Profile& profile, StringId id, Translation& translation);
  MappingId TranslateMapping(const Profile& profile, MappingId id, Translation& translation);
  void TranslateLocations(const Profile& profile, Translation& translation);
  void TranslateLocation(const Profile& profile, LocationId id, Translation& translation);
  StackId TranslateStack(const Profile& profile, StackId id, Translation& translation);
  void CopyLines(const Profile& profile, const Location& from, Translation& translation,
                 Location& to);

  // Strings, functions, stacks, label sets and samples are interned by the builder; mappings and
  // locations here, because a row may be improved after it was added.
  ProfileBuilder builder_;
  bool first_ = true;
  absl::flat_hash_map<base::Hash128, LocationId> location_of_identity_;
  std::vector<uint64_t> quality_;  // by location: what its names are worth
  // File, build id, start, offset, has an extent: mappings that differ only in their limit are one.
  using MappingKey = std::tuple<StringId, StringId, uint64_t, uint64_t, bool>;
  absl::flat_hash_map<MappingKey, MappingId> mapping_of_key_;
};

}  // namespace firewatch::profile
