// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/swap_queue.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <chrono>

#include "base/status.h"

namespace firewatch::agent {

SwapQueue::~SwapQueue() {
  {
    const base::MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<uint64_t> SwapQueue::Swap(uint32_t key, int inner_fd) {
  bpf_map_info info{};
  uint32_t size = sizeof(info);
  if (::bpf_obj_get_info_by_fd(inner_fd, &info, &size) != 0) {
    return base::ErrnoStatus(errno, "ask for the map of the rules");
  }
  uint64_t number = 0;
  {
    const base::MutexLock lock(mutex_);
    while (under_way_.size() >= kThreads) changed_.Wait(mutex_);
    number = ++last_number_;
    under_way_.insert(number);
    jobs_.push_back({number, key, inner_fd});
    // Those that are idle may be on their way to other jobs.
    if (idle_threads_ < jobs_.size() && threads_.size() < kThreads) {
      threads_.emplace_back([this] { Work(); });
    }
  }
  changed_.NotifyAll();
  for (;;) {
    uint32_t id = 0;
    if (::bpf_map_lookup_elem(outer_fd_, &key, &id) == 0 && id == info.id) return number;
    const base::MutexLock lock(mutex_);
    if (const auto failed = failed_.extract(number)) {
      return base::ErrnoStatus(failed.mapped(), "put the rules in force");
    }
    // Nothing tells when: the kernel has it before its call returns.
    changed_.WaitFor(mutex_, std::chrono::microseconds(50));
  }
}

uint64_t SwapQueue::DoneThrough() const {
  const base::MutexLock lock(mutex_);
  return under_way_.empty() ? last_number_ : *under_way_.begin() - 1;
}

void SwapQueue::WaitForAll() {
  const base::MutexLock lock(mutex_);
  while (!under_way_.empty()) changed_.Wait(mutex_);
}

void SwapQueue::Work() {
  for (;;) {
    Job job{};
    {
      const base::MutexLock lock(mutex_);
      ++idle_threads_;
      while (jobs_.empty() && !stopping_) changed_.Wait(mutex_);
      --idle_threads_;
      if (jobs_.empty()) return;
      job = jobs_.front();
      jobs_.pop_front();
    }
    const int error =
        ::bpf_map_update_elem(outer_fd_, &job.key, &job.inner_fd, BPF_ANY) == 0 ? 0 : errno;
    {
      const base::MutexLock lock(mutex_);
      if (error != 0) failed_.emplace(job.number, error);
      under_way_.erase(job.number);
    }
    changed_.NotifyAll();
  }
}

}  // namespace firewatch::agent
