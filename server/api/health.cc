// SPDX-License-Identifier: Apache-2.0
#include "server/api/health.h"

#include <utility>

#include "base/status.h"

namespace firewatch::server {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

HealthMonitor::HealthMonitor(std::function<absl::Status()> check, HealthOptions options)
    : check_(std::move(check)), options_(options), thread_([this] { Run(); }) {}

HealthMonitor::~HealthMonitor() {
  {
    base::MutexLock lock(mutex_);
    stopping_ = true;
  }
  wanted_changed_.NotifyOne();
  thread_.join();
}

void HealthMonitor::Run() {
  while (true) {
    {
      base::MutexLock lock(mutex_);
      while (!running_ && !stopping_) wanted_changed_.Wait(mutex_);
      if (stopping_) return;
    }
    absl::Status result = check_();
    {
      base::MutexLock lock(mutex_);
      result_ = std::move(result);
      has_result_ = true;
      finished_ = steady_clock::now();
      running_ = false;
    }
    done_changed_.NotifyAll();
  }
}

absl::Status HealthMonitor::TooSlow(Time now) const {
  return base::Unavailable("the store has not answered for {} ms",
                           duration_cast<milliseconds>(now - started_).count());
}

absl::Status HealthMonitor::Check() {
  base::MutexLock lock(mutex_);
  const Time now = steady_clock::now();
  if (!running_) {
    if (has_result_ && now - finished_ < options_.cache) return result_;
    running_ = true;
    started_ = now;
    wanted_changed_.NotifyOne();
  }
  const Time deadline = started_ + options_.deadline;
  while (running_) {
    const Time current = steady_clock::now();
    if (current >= deadline) return TooSlow(current);
    done_changed_.WaitFor(mutex_, deadline - current);
  }
  return result_;
}

}  // namespace firewatch::server
