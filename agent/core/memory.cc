// SPDX-License-Identifier: Apache-2.0
#include "agent/core/memory.h"

#include <charconv>
#include <fstream>
#include <string>

namespace firewatch::agent {

// A line such as "RssAnon:     1234 kB".
uint64_t StatusBytes(std::string_view field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    const std::string_view view = line;
    if (!view.starts_with(field) || view.size() <= field.size() || view[field.size()] != ':') {
      continue;
    }
    const size_t digits = view.find_first_of("0123456789", field.size());
    uint64_t kib = 0;
    if (digits != std::string_view::npos) {
      std::from_chars(view.data() + digits, view.data() + view.size(), kib);
    }
    return kib * 1024;
  }
  return 0;
}

uint64_t RssAnonBytes() { return StatusBytes("RssAnon"); }

}  // namespace firewatch::agent
