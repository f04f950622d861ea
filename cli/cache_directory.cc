// SPDX-License-Identifier: Apache-2.0
#include "cli/cache_directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

namespace firewatch::cli {

std::string DefaultCacheDirectory() {
  if (::geteuid() == 0) return "/var/cache/firewatch";
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return fmt::format("{}/firewatch", cache);
  }
  const char* home = std::getenv("HOME");
  return fmt::format("{}/.cache/firewatch", home != nullptr ? home : "/tmp");
}

}  // namespace firewatch::cli
