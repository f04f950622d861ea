// SPDX-License-Identifier: Apache-2.0
#pragma once
#define ALWAYS __attribute__((always_inline)) inline

extern volatile int sink;

namespace outer {
ALWAYS int Leaf(int x) {
  sink = x;
  return x * 3 + sink;
}
ALWAYS int Middle(int x) { return Leaf(x + 1) ^ Leaf(x + 2); }
template <typename T>
ALWAYS T Twice(T x) {
  return Middle(x) + Middle(x + 7);
}
}  // namespace outer
