// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/interned.h"

#include <sys/random.h>
#include <unistd.h>

#include <ctime>

namespace firewatch::symbolizer::dwarf {
namespace {

uint64_t NewMultiplier() {
  uint64_t bytes = 0;
  if (::getrandom(&bytes, sizeof(bytes), GRND_NONBLOCK) != ssize_t{sizeof(bytes)}) {
    // Early in a boot. Still nothing that a file can know.
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    bytes = (static_cast<uint64_t>(now.tv_nsec) << 32 ^ static_cast<uint64_t>(::getpid())) *
            0x9e3779b97f4a7c15;
  }
  return bytes | 1;
}

}  // namespace

const uint64_t kHashMultiplier = NewMultiplier();

}  // namespace firewatch::symbolizer::dwarf
