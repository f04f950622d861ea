// SPDX-License-Identifier: Apache-2.0
// Control that leaves the ordinary way of call and return: exceptions, signals, vfork, threads.
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

#include "tests/workloads/stacks/stacks.h"

// ---- exception: the destructors below the catch run while the stack is being unwound
// -------------

FRAME exception_leaf() {
  SpinUs(200);
  KEEP_FRAME;
}
namespace {
struct WorksAtEnd {
  ~WorksAtEnd() { exception_leaf(); }
};
}  // namespace
FRAME exception_throw(int depth) {
  exception_leaf();
  throw depth;
}
FRAME exception_step(int depth) {
  WorksAtEnd at_end;
  if (depth > 1) {
    exception_step(depth - 1);
  } else {
    exception_throw(depth);
  }
  KEEP_FRAME;
}
FRAME exception_catch() {
  try {
    exception_step(6);
  } catch (int depth) {
    Use(&depth);
    exception_leaf();
  }
}
FRAME exception_root() {
  exception_catch();
  KEEP_FRAME;
}
bool RunException() {
  while (TimeLeft()) exception_root();
  return true;
}

// ---- signal and altstack: a handler that works, on this stack and on another
// ---------------------

FRAME signal_leaf() {
  SpinUs(2000);
  KEEP_FRAME;
}
FRAME signal_handler(int) {
  signal_leaf();
  KEEP_FRAME;
}
// No frame at all: what the signal interrupts has its return address at the stack pointer.
FRAME signal_interrupted() {
  SpinUs(1000);
  KEEP_FRAME;
}
FRAME signal_root() {
  signal_interrupted();
  KEEP_FRAME;
}
namespace {
void SpinUnderSignals(int flags) {
  struct sigaction action{};
  action.sa_handler = signal_handler;
  action.sa_flags = SA_RESTART | flags;
  sigaction(SIGALRM, &action, nullptr);
  const itimerval every_3_ms{.it_interval = {0, 3000}, .it_value = {0, 3000}};
  setitimer(ITIMER_REAL, &every_3_ms, nullptr);
  while (TimeLeft()) signal_root();
  const itimerval never{};
  setitimer(ITIMER_REAL, &never, nullptr);
}
}  // namespace
bool RunSignal() {
  SpinUnderSignals(0);
  return true;
}
bool RunAltstack() {
  static char memory[64 << 10];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof(memory);
  if (sigaltstack(&stack, nullptr) != 0) return false;
  SpinUnderSignals(SA_ONSTACK);
  return true;
}

// ---- vfork: a child that works on its parent's stack
// ---------------------------------------------

FRAME vfork_leaf() {
  SpinUs(20'000);
  KEEP_FRAME;
}
FRAME vfork_parent() {
  SpinUs(2000);
  KEEP_FRAME;
}
FRAME vfork_root() {
  const pid_t child = vfork();
  if (child == 0) {
    vfork_leaf();
    _exit(0);
  }
  vfork_parent();
  int status = 0;
  waitpid(child, &status, 0);
}
bool RunVfork() {
  while (TimeLeft()) vfork_root();
  return true;
}

// ---- threads: a pool; the root of its stacks is clone
// --------------------------------------------

namespace {
class Pool {
 public:
  explicit Pool(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      end_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  void Add(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push(std::move(task));
    }
    wake_.notify_one();
  }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return end_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop();
      lock.unlock();
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::queue<std::function<void()>> tasks_;
  bool end_ = false;
  std::vector<std::thread> threads_;
};
}  // namespace
FRAME threads_leaf() {
  SpinUs(500);
  KEEP_FRAME;
}
FRAME threads_task() {
  threads_leaf();
  KEEP_FRAME;
}
bool RunThreads() {
  Pool pool(3);
  while (TimeLeft()) {
    for (int i = 0; i < 6; ++i) pool.Add(threads_task);
    usleep(1000);
  }
  return true;
}
