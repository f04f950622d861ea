// SPDX-License-Identifier: Apache-2.0
// Folded stacks, "root;caller;leaf 42" per line: what flamegraph.pl, speedscope and inferno read.
// Semicolons and line breaks inside a name become ':' and ' '. Lines are sorted, equal stacks
// added, stacks of value 0 left out. A sample without any frame is "(no stack)".
#pragma once

#include <cstddef>
#include <string>

#include "profile/profile.h"

namespace firewatch::profile {

// Folded text repeats every name in every stack, so a profile of 30 MB can be 30 GB of it. The
// heaviest stacks are written up to max_bytes; the rest is one line "(other)" with its exact sum.
inline constexpr size_t kMaxFoldedBytes = size_t{256} << 20;

std::string WriteFolded(const Profile& profile, int value_index,
                        size_t max_bytes = kMaxFoldedBytes);

}  // namespace firewatch::profile
