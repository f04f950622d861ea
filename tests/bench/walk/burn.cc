// SPDX-License-Identifier: Apache-2.0
// The load of walk_bench: spins below `depth` frames. Built with frame pointers in every
// function, leaf too (see CMakeLists.txt); the volatile pad makes a frame 48 bytes or a little
// more, which is what real C++ has in the middle.
#include "tests/bench/walk/burn.h"

#include <cstdint>

namespace firewatch::bench {
namespace {

volatile uint64_t sink;

[[gnu::noinline]] void Spin() {
  uint64_t x = 88172645463325252ull;
  for (;;) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    sink = x;
  }
}

}  // namespace

#pragma GCC diagnostic ignored "-Winfinite-recursion"  // that is the point
[[gnu::noinline]] void Burn(int depth) {
  volatile uint64_t pad[4] = {static_cast<uint64_t>(depth)};
  if (depth <= 1) {
    Spin();
  } else {
    Burn(depth - 1);
  }
  pad[1] = pad[0];  // no tail call
}

}  // namespace firewatch::bench
