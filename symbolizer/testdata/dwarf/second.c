// SPDX-License-Identifier: Apache-2.0
// A second unit, in C, with code of its own and none that is called.
static inline __attribute__((always_inline)) int square(int x) { return x * x; }
__attribute__((noinline)) static int helper(int x) { return square(x) + square(x + 1); }
int never_called(int x) { return helper(x) + square(x); }
__asm__(".text\n.globl bare_code\nbare_code:\n nop\n ret\n");
