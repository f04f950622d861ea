// SPDX-License-Identifier: Apache-2.0
// A flame tree as columns for the browser: drawn in docs/formats.md, section "Flame tree columns".
// A node costs 9 to 16 bytes before compression; its name is sent once, however many nodes have it.
#pragma once

#include <string>

#include "profile/flame_tree.h"

namespace firewatch::profile {

std::string EncodeFlameTree(const FlameTree& tree);

}  // namespace firewatch::profile
