// SPDX-License-Identifier: Apache-2.0
#include "agent/core/thread_meter.h"

#include <pthread.h>

#include <algorithm>

namespace firewatch::agent {
namespace {

uint64_t Read(clockid_t clock) {
  timespec time{};
  // Fails when the thread has ended: then its scope has counted it.
  if (::clock_gettime(clock, &time) != 0) return 0;
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

ThreadMeter::Scope::Scope(ThreadMeter& meter) : meter_(meter) {
  Thread thread;
  // A clock that other threads can read, unlike CLOCK_THREAD_CPUTIME_ID.
  if (::pthread_getcpuclockid(::pthread_self(), &thread.clock) != 0) return;
  thread.start_ns = Read(thread.clock);
  base::MutexLock lock(meter_.mutex_);
  thread.id = id_ = ++meter_.last_id_;
  meter_.threads_.push_back(thread);
}

ThreadMeter::Scope::~Scope() {
  base::MutexLock lock(meter_.mutex_);
  const auto found =
      std::ranges::find_if(meter_.threads_, [this](const Thread& t) { return t.id == id_; });
  if (found == meter_.threads_.end()) return;
  meter_.ended_ns_ += Read(found->clock) - found->start_ns;
  meter_.threads_.erase(found);
}

uint64_t ThreadMeter::CpuNs() const {
  base::MutexLock lock(mutex_);
  uint64_t total = ended_ns_;
  for (const Thread& thread : threads_) {
    total += std::max(Read(thread.clock), thread.start_ns) - thread.start_ns;
  }
  return total;
}

}  // namespace firewatch::agent
