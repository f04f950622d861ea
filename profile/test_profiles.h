// SPDX-License-Identifier: Apache-2.0
// Profiles for tests, and a text form in which two profiles can be compared whatever their ids.
#pragma once

#include <string>

#include "profile/profile.h"

namespace firewatch::profile {

// Native frames (one with inlined lines), a kernel frame, vdso, [anon], a bare address; labels.
Profile SmallTestProfile();

// Everything that the profile says, one sorted line per sample, names spelled out.
std::string DescribeForTest(const Profile& profile);

}  // namespace firewatch::profile
