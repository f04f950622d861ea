// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/ptracer.h"

#include <errno.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include <fstream>
#include <optional>
#include <semaphore>
#include <string>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using Look = absl::FunctionRef<void(const user_regs_struct&)>;

constexpr uint64_t kSpinNs = 50'000;  // a running thread stops within some 10 us
constexpr long kPauseNs = 100'000;

void Pause() {
  const timespec pause{.tv_sec = 0, .tv_nsec = kPauseNs};
  ::nanosleep(&pause, nullptr);
}

// Waits until the tracee stands still; the signal that its release must deliver (0: none).
absl::StatusOr<int> AwaitStop(pid_t tid, uint64_t deadline_ns) {
  const base::SystemClock clock;
  const uint64_t start = clock.MonotonicNs();
  for (;;) {
    int status = 0;
    // Polled: waitpid has no timeout, and a tracee that never stops must not keep us.
    const pid_t got = ::waitpid(tid, &status, __WALL | WNOHANG);
    if (got < 0 && errno != EINTR) return base::ErrnoStatus(errno, fmt::format("wait for {}", tid));
    if (got == tid) {
      if (!WIFSTOPPED(status)) return base::NotFound("thread {} ended", tid);
      // Without an event it is about to receive a signal, which the release hands to it.
      const bool signal_arrives = (status >> 16) == 0;
      return signal_arrives ? WSTOPSIG(status) : 0;
    }
    const uint64_t now = clock.MonotonicNs();
    if (now >= deadline_ns) return base::Unavailable("thread {} did not stop in time", tid);
    if (now - start > kSpinNs) Pause();
  }
}

// Gone, or a zombie: what has ended, too, is refused with EPERM.
bool HasEnded(pid_t tid) {
  std::ifstream file(fmt::format("/proc/{}/stat", tid));
  std::string line;
  if (!std::getline(file, line)) return true;
  const size_t state = line.rfind(") ");
  return state != std::string::npos && (line[state + 2] == 'Z' || line[state + 2] == 'X');
}

absl::Status AttachError(int error, pid_t tid) {
  if (error == EPERM && HasEnded(tid)) return base::NotFound("thread {} ended", tid);
  if (error == EPERM) {
    return base::PermissionDenied(
        "thread {} may not be traced: it belongs to another user, is protected, or a debugger "
        "has it",
        tid);
  }
  return base::ErrnoStatus(error, fmt::format("trace thread {}", tid));
}

// Runs in the tracer thread. `*keep` false: the tracee did not stop, this thread must end.
absl::StatusOr<ThreadStop> StopAndLook(pid_t tid, std::chrono::milliseconds timeout, Look look,
                                       bool* keep) {
  const base::SystemClock clock;
  const uint64_t start = clock.MonotonicNs();
  if (::ptrace(PTRACE_SEIZE, tid, nullptr, nullptr) != 0) return AttachError(errno, tid);
  *keep = false;
  if (::ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0) return AttachError(errno, tid);
  const uint64_t timeout_ns =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(timeout).count());
  const absl::StatusOr<int> signal = AwaitStop(tid, start + timeout_ns);
  if (!signal.ok()) {
    *keep = absl::IsNotFound(signal.status());  // nothing is left to detach from
    return signal.status();
  }
  const uint64_t stopped = clock.MonotonicNs();
  user_regs_struct registers{};
  const bool have_registers = ::ptrace(PTRACE_GETREGS, tid, nullptr, &registers) == 0;
  const int error = errno;
  if (have_registers) look(registers);
  const auto deliver = reinterpret_cast<void*>(static_cast<intptr_t>(*signal));
  // Taken before: the tracee runs from within the call, and on a busy machine in our place, so that
  // the call returns to us milliseconds later.
  const uint64_t released = clock.MonotonicNs();
  const bool detached = ::ptrace(PTRACE_DETACH, tid, nullptr, deliver) == 0;
  // It fails only when the tracee was killed meanwhile; ending this thread is right then, too.
  *keep = detached;
  if (!have_registers) return base::ErrnoStatus(error, fmt::format("read registers of {}", tid));
  return ThreadStop{.wait_ns = stopped - start, .stopped_ns = released - stopped};
}

}  // namespace

// The tracer thread with what it is asked to do. A request is handed over by `asked`, its result by
// `answered`; between the two the fields below belong to the thread.
class Ptracer::Worker {
 public:
  Worker() : thread_([this] { Run(); }) {}
  ~Worker() {
    if (alive_) {
      request_.reset();
      asked_.release();
    }
    thread_.join();
  }

  absl::StatusOr<ThreadStop> Do(pid_t tid, std::chrono::milliseconds timeout, Look look) {
    request_.emplace(Request{tid, timeout, look});
    asked_.release();
    answered_.acquire();
    return std::move(result_);
  }
  bool alive() const { return alive_; }

 private:
  struct Request {
    pid_t tid;
    std::chrono::milliseconds timeout;
    Look look;
  };

  void Run() {
    // Signals of the process are for its other threads.
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
    bool keep = true;
    while (keep) {
      asked_.acquire();
      if (!request_) return;
      result_ = StopAndLook(request_->tid, request_->timeout, request_->look, &keep);
      alive_ = keep;
      answered_.release();
    }
  }

  std::binary_semaphore asked_{0};
  std::binary_semaphore answered_{0};
  std::optional<Request> request_;  // none: end
  absl::StatusOr<ThreadStop> result_ = ThreadStop{};
  bool alive_ = true;
  std::thread thread_;  // last: it uses the others
};

Ptracer::Ptracer() = default;
Ptracer::~Ptracer() = default;

absl::StatusOr<ThreadStop> Ptracer::WhileStopped(pid_t tid, std::chrono::milliseconds timeout,
                                                 Look look) {
  if (!worker_) worker_ = std::make_unique<Worker>();
  absl::StatusOr<ThreadStop> stop = worker_->Do(tid, timeout, look);
  if (!worker_->alive()) worker_.reset();  // joins: afterwards nothing is traced any more
  return stop;
}

}  // namespace firewatch::agent
