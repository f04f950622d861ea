// SPDX-License-Identifier: Apache-2.0
// What threads are called, for sources whose samples do not say it: from events, else from /proc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "agent/core/events.h"

namespace firewatch::agent {

// One home thread. At most kMaxThreads are remembered; past that all are forgotten and met again.
class ThreadNames {
 public:
  static constexpr size_t kMaxThreads = 32'768;

  explicit ThreadNames(std::string proc_root = "/proc") : proc_root_(std::move(proc_root)) {}

  void Apply(const ProcessEvent& event);
  // "" when nobody knows it. Valid until the next call.
  std::string_view Of(Pid pid, uint32_t tid);

 private:
  const std::string proc_root_;
  absl::flat_hash_map<uint32_t, std::string> names_;  // by tid
};

}  // namespace firewatch::agent
