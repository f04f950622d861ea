// SPDX-License-Identifier: Apache-2.0
// Folded stacks, "root;caller;leaf 42" per line: what flamegraph.pl, speedscope and inferno read.
// Semicolons and line breaks inside a name become ':' and ' '. Lines are sorted, equal stacks
// added.
#pragma once

#include <string>

#include "profile/profile.h"

namespace firewatch::profile {

std::string WriteFolded(const Profile& profile, int value_index);

}  // namespace firewatch::profile
