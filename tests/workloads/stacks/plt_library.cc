// SPDX-License-Identifier: Apache-2.0
// libstacks_plt.so: calls 128 functions of its own through the PLT (they can be interposed, so the
// linker must), bound at their first calls (-z lazy).
#define EACH_16(X, n)                                                                             \
  X(n##0)                                                                                         \
  X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7) X(n##8) X(n##9) X(n##a) X(n##b) X(n##c) \
      X(n##d) X(n##e) X(n##f)
#define EACH_128(X)                                                                   \
  EACH_16(X, 0)                                                                       \
  EACH_16(X, 1) EACH_16(X, 2) EACH_16(X, 3) EACH_16(X, 4) EACH_16(X, 5) EACH_16(X, 6) \
      EACH_16(X, 7)

#define DEFINE(n) \
  extern "C" __attribute__((noinline)) void plt_call_##n() { asm volatile("nop" ::: "memory"); }
EACH_128(DEFINE)

#define CALL(n) plt_call_##n();
extern "C" void plt_entry(int rounds) {
  for (int i = 0; i < rounds; ++i) {
    EACH_128(CALL)
  }
  asm volatile("" ::: "memory");
}
