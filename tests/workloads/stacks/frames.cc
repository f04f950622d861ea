// SPDX-License-Identifier: Apache-2.0
// Frames of odd shapes: sizes known at run time only, realigned, guarded, very many, jumped over,
// and not on the stack at all.
#include <alloca.h>
#include <setjmp.h>

#include <coroutine>
#include <cstring>
#include <exception>

#include "tests/workloads/stacks/stacks.h"

// ---- alloca: the CFA hangs on rbp, at no constant distance from rsp
// ------------------------------

FRAME alloca_leaf() {
  SpinUs(1000);
  KEEP_FRAME;
}
FRAME alloca_step(int depth) {
  const size_t size = static_cast<size_t>(Opaque(depth)) * 37 + 5;
  void* memory = alloca(size);
  std::memset(memory, depth, size);
  Use(memory);
  if (depth > 1) {
    alloca_step(depth - 1);
  } else {
    alloca_leaf();
  }
  Use(memory);
}
FRAME alloca_root() {
  alloca_step(5);
  KEEP_FRAME;
}
bool RunAlloca() {
  while (TimeLeft()) alloca_root();
  return true;
}

// ---- protector: a canary, and its check before the return
// ----------------------------------------

FRAME protector_leaf(const char* text) {
  Use(text);
  SpinUs(1000);
  KEEP_FRAME;
}
FRAME protector_step(int depth) {
  char text[64];
  std::memset(text, depth, sizeof(text));
  Use(text);
  if (depth > 1) {
    protector_step(depth - 1);
  } else {
    protector_leaf(text);
  }
  Use(text);
}
FRAME protector_root() {
  protector_step(4);
  KEEP_FRAME;
}
bool RunProtector() {
  while (TimeLeft()) protector_root();
  return true;
}

// ---- recursion: 900 frames of four sizes
// ---------------------------------------------------------

template <size_t kBytes>
inline __attribute__((always_inline)) void WithLocals(int depth, void (*next)(int)) {
  char locals[kBytes];
  std::memset(locals, depth, sizeof(locals));
  Use(locals);
  next(depth - 1);
  Use(locals);
}
FRAME recursion_leaf() {
  SpinUs(2000);
  KEEP_FRAME;
}
FRAME recursion_next(int depth);
FRAME recursion_small(int depth) { WithLocals<8>(depth, recursion_next); }
FRAME recursion_medium(int depth) { WithLocals<200>(depth, recursion_next); }
FRAME recursion_large(int depth) { WithLocals<3000>(depth, recursion_next); }
// From 514: 128 frames of its own alone, 386 pairs, and one at the bottom: 901 frames.
FRAME recursion_next(int depth) {
  if (depth <= 0) {
    recursion_leaf();
  } else if (depth % 4 == 0) {
    recursion_next(depth - 1);
  } else if (depth % 4 == 1) {
    recursion_small(depth);
  } else if (depth % 4 == 2) {
    recursion_medium(depth);
  } else {
    recursion_large(depth);
  }
  KEEP_FRAME;
}
FRAME recursion_root() {
  recursion_next(Opaque(514));
  KEEP_FRAME;
}
bool RunRecursion() {
  while (TimeLeft()) recursion_root();
  return true;
}

// ---- realign: the CFA is kept in another register (DRAP) or in memory
// ----------------------------

FRAME realign_leaf(const void* vector) {
  Use(vector);
  SpinUs(1000);
  KEEP_FRAME;
}
FRAME realign_fixed(int depth) {
  alignas(64) char vector[128];
  std::memset(vector, depth, sizeof(vector));
  Use(vector);
  realign_leaf(vector);
  Use(vector);
}
// Arguments on the stack and a size known at run time only: needs all of rsp, rbp and a third.
FRAME realign_dynamic(int depth, int a, int b, int c, int d, int e, int f, int g, int h) {
  alignas(128) char vector[256];
  const size_t size = static_cast<size_t>(Opaque(depth)) * 51 + 3;
  void* memory = alloca(size);
  std::memset(memory, a + b + c + d, size);
  std::memset(vector, e + f + g + h, sizeof(vector));
  Use(memory);
  Use(vector);
  if (depth > 1) {
    realign_dynamic(depth - 1, b, c, d, e, f, g, h, a);
  } else {
    realign_fixed(depth);
  }
  Use(memory);
  Use(vector);
}
FRAME realign_root() {
  realign_dynamic(3, 1, 2, 3, 4, 5, 6, 7, 8);
  KEEP_FRAME;
}
bool RunRealign() {
  while (TimeLeft()) realign_root();
  return true;
}

// ---- longjmp: frames that never return
// -----------------------------------------------------------

namespace {
jmp_buf jump;
}
FRAME longjmp_leaf() {
  SpinUs(500);
  longjmp(jump, 1);
}
FRAME longjmp_step(int depth) {
  if (depth > 1) {
    longjmp_step(depth - 1);
  } else {
    longjmp_leaf();
  }
  KEEP_FRAME;
}
FRAME longjmp_after() {
  SpinUs(500);
  KEEP_FRAME;
}
FRAME longjmp_root() {
  if (setjmp(jump) == 0) {
    longjmp_step(6);
  } else {
    longjmp_after();
  }
  KEEP_FRAME;
}
bool RunLongjmp() {
  while (TimeLeft()) longjmp_root();
  return true;
}

// ---- coroutine: frames on the heap, resumed from a loop
// ------------------------------------------

namespace {

struct Task {
  struct promise_type {
    Task get_return_object() {
      return Task{std::coroutine_handle<promise_type>::from_promise(*this)};
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
  std::coroutine_handle<promise_type> handle;
};

}  // namespace

FRAME coroutine_leaf() {
  SpinUs(500);
  KEEP_FRAME;
}
namespace {
Task coroutine_inner() {
  for (;;) {
    coroutine_leaf();
    co_await std::suspend_always{};
  }
}
Task coroutine_outer() {
  Task inner = coroutine_inner();
  for (int i = 0; i < 10; ++i) {
    inner.handle.resume();
    co_await std::suspend_always{};
  }
  inner.handle.destroy();
}
}  // namespace
FRAME coroutine_resume(void* address) {
  std::coroutine_handle<>::from_address(address).resume();
  KEEP_FRAME;
}
FRAME coroutine_root() {
  Task task = coroutine_outer();
  while (!task.handle.done()) coroutine_resume(task.handle.address());
  task.handle.destroy();
}
bool RunCoroutine() {
  while (TimeLeft()) coroutine_root();
  return true;
}
