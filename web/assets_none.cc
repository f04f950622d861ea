// SPDX-License-Identifier: Apache-2.0
// The table of a build without the page.
#include "web/assets.h"

namespace firewatch::web {

std::span<const Asset> Assets() { return {}; }

}  // namespace firewatch::web
