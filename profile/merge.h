// SPDX-License-Identifier: Apache-2.0
// Merges profiles of any origin into one, by identity of location (profile.h): totals are exact,
// nothing is cut.
#pragma once

#include "absl/status/status.h"
#include "profile/builder.h"
#include "profile/profile.h"

namespace firewatch::profile {

// One thread. Add any number, then Finish.
class ProfileMerger {
 public:
  ProfileMerger();
  // The first profile decides the sample types. InvalidArgument when a later one has others.
  // Period: the larger; start: the earliest; duration: the sum (as `go tool pprof` does).
  absl::Status Add(const Profile& profile);
  Profile Finish();

 private:
  ProfileBuilder builder_;
  bool first_ = true;
  absl::flat_hash_map<base::Hash128, LocationId> location_of_identity_;
};

}  // namespace firewatch::profile
