// SPDX-License-Identifier: Apache-2.0
// A library whose code at one address belongs to three functions, two of them inlined. The tests
// (symbolizer_lines_test.cc) know its lines.
#include <stdint.h>

extern const uint64_t __start_leaf_address[] __attribute__((visibility("hidden")));

static inline __attribute__((always_inline)) int InlinedLeaf(int x) {
  __asm__ volatile("1: nop\n .pushsection leaf_address, \"aw\"\n .quad 1b\n .popsection\n");
  return x * 3;
}

static inline __attribute__((always_inline)) int InlinedMiddle(int x) {
  const int leaf = InlinedLeaf(x);
  return leaf + 1;
}

__attribute__((noinline, visibility("hidden"))) int PhysicalOuter(int x) {
  const int middle = InlinedMiddle(x);
  return middle ^ 5;
}

uint64_t LeafAddress(void) { return __start_leaf_address[0]; }
