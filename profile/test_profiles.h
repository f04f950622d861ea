// SPDX-License-Identifier: Apache-2.0
// Profiles for tests, and a text form in which two profiles can be compared whatever their ids.
#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "profile/profile.h"

namespace firewatch::profile {

// Native frames (one with inlined lines), a kernel frame, vdso, [anon], a bare address; labels.
Profile SmallTestProfile();

// Few functions, binaries and labels, so that stacks and names meet often; some locations bare,
// some inlined, some kernel; recursion; values may be negative.
Profile RandomTestProfile(std::mt19937& random);

// [file build_id address kind | name system_name file start_line line:column | ...]
std::string LocationText(const Profile& profile, LocationId id);

// Values by "locations, leaf first {labels}".
std::map<std::string, std::vector<int64_t>> SamplesByText(const Profile& profile);

// Everything that the profile says, one sorted line per sample, names spelled out.
std::string DescribeForTest(const Profile& profile);

}  // namespace firewatch::profile
