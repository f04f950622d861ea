/* SPDX-License-Identifier: Apache-2.0 */
/* A program whose code lies where simple arithmetic goes wrong: ordinary code, a second section of
 * code that the linker script puts into a segment of its own at another distance, a huge .bss.
 * Prints "name address" of its functions, then waits for the end of standard input. */
#include <stdio.h>

static volatile char huge[64 << 20];

#define SEPARATE __attribute__((noinline, section("far_text")))

SEPARATE int far_function(int x) { return x * 3 + huge[x]; }
__attribute__((noinline)) int near_function(int x) { return x * 5 + huge[x + 1]; }
static __attribute__((noinline)) int static_function(int x) { return x * 7 + huge[x + 2]; }

int main(int argc, char **argv) {
  (void)argv;
  printf("near_function %p\nfar_function %p\nstatic_function %p\nmain %p\n", (void *)near_function,
         (void *)far_function, (void *)static_function, (void *)main);
  fflush(stdout);
  const int sum = near_function(argc) + far_function(argc) + static_function(argc);
  while (getchar() != EOF) {
  }
  return sum == 12345;
}
