// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace firewatch::cli {

// Where this user's symbol indexes are kept, the agent's for root: /var/cache/firewatch, else
// $XDG_CACHE_HOME/firewatch or ~/.cache/firewatch.
std::string DefaultCacheDirectory();

}  // namespace firewatch::cli
