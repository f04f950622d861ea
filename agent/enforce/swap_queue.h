// SPDX-License-Identifier: Apache-2.0
// Puts maps into a map of maps without waiting until nobody uses those before.
//
// The kernel exchanges the pointer at once, and then keeps the caller until every packet that may
// have the old one is done: a grace period of RCU, 5 ms on an idle machine and 15 or 60 on a busy
// one. Loads after each other would be 70 a second. So threads of this object wait, several at a
// time, while the caller goes on as soon as the kernel says that the new map is in its place.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"

namespace firewatch::agent {

// Used by one thread at a time; has up to kThreads of its own, made when they are needed.
class SwapQueue {
 public:
  static constexpr size_t kThreads = 8;

  // `outer_fd` must stay open as long as this.
  explicit SwapQueue(int outer_fd) : outer_fd_(outer_fd) {}
  // Waits for all.
  ~SwapQueue();
  SwapQueue(const SwapQueue&) = delete;
  SwapQueue& operator=(const SwapQueue&) = delete;

  // Puts the map `inner_fd` at `key`. Returns when whoever looks from now on finds it: the number
  // of this swap, from 1 on. Waits first while kThreads swaps are under way.
  absl::StatusOr<uint64_t> Swap(uint32_t key, int inner_fd) ABSL_LOCKS_EXCLUDED(mutex_);
  // Nobody uses what the swaps up to this number have replaced.
  uint64_t DoneThrough() const ABSL_LOCKS_EXCLUDED(mutex_);
  void WaitForAll() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Job {
    uint64_t number;
    uint32_t key;
    int inner_fd;
  };
  void Work() ABSL_LOCKS_EXCLUDED(mutex_);

  const int outer_fd_;
  mutable base::Mutex mutex_;
  base::CondVar changed_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> under_way_ ABSL_GUARDED_BY(mutex_);    // with those in jobs_
  std::map<uint64_t, int> failed_ ABSL_GUARDED_BY(mutex_);  // errno, until Swap has read it
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t idle_threads_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace firewatch::agent
