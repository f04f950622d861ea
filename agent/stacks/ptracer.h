// SPDX-License-Identifier: Apache-2.0
// Stops one thread of another process, lets the caller look, and lets it go on.
//
// A tracee can only be detached while it is stopped, and a thread that waits for its vfork child or
// sits in a dead file system does not stop: an owner in the caller's thread could not keep its
// promise to detach. But the kernel detaches all tracees of a thread that ends, stopped or not.
// So the tracer is a thread of its own, which ends when a stop takes too long.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <chrono>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace firewatch::agent {

// How long a thread was kept from running.
struct ThreadStop {
  uint64_t wait_ns = 0;     // from the request until it stood still; it ran for most of that
  uint64_t stopped_ns = 0;  // from then until it was let go: the pause that it noticed
};

// One caller at a time, any thread. Whatever happens (failure, timeout, destruction, the end of
// this process) no thread stays stopped or traced; a signal that arrives at the stop is passed on,
// and a thread that job control had stopped before stays so.
class Ptracer {
 public:
  Ptracer();
  Ptracer(const Ptracer&) = delete;
  Ptracer& operator=(const Ptracer&) = delete;
  ~Ptracer();

  // Stops the thread, calls `look` with its user registers in the tracer thread (only that one may
  // use ptrace on it), lets it go on and returns. `look` should be quick: nothing cuts it short.
  // NotFound: no such thread, or it ended. PermissionDenied: it may not be traced, or somebody
  // traces it already. Unavailable: it did not stop within `timeout`.
  absl::StatusOr<ThreadStop> WhileStopped(pid_t tid, std::chrono::milliseconds timeout,
                                          absl::FunctionRef<void(const user_regs_struct&)> look);

 private:
  class Worker;
  std::unique_ptr<Worker> worker_;  // made by the first stop and after each timeout
};

}  // namespace firewatch::agent
