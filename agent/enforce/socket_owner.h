// SPDX-License-Identifier: Apache-2.0
// Which process of this machine listens on, or has bound, the port that a packet was meant for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "bpf/include/firewall.h"

namespace firewatch::agent {

struct SocketOwner {
  int pid = 0;
  std::string comm;
};

// One thread. Answers come from /proc of the caller's network namespace; what was found, or not, is
// believed for five seconds, and descriptors of all processes are read no more often than that.
class SocketOwners {
 public:
  explicit SocketOwners(std::string proc_root = "/proc") : proc_root_(std::move(proc_root)) {}
  // TCP and UDP; nothing for others, and where no socket of this machine has the port.
  std::optional<SocketOwner> Find(uint8_t protocol, uint16_t port, uint64_t now_ns);

 private:
  std::optional<uint64_t> InodeOf(uint8_t protocol, uint16_t port) const;
  void ReadDescriptors();

  struct Answer {
    uint64_t time_ns = 0;
    std::optional<SocketOwner> owner;
  };
  const std::string proc_root_;
  std::map<std::pair<uint8_t, uint16_t>, Answer> answers_;
  std::map<uint64_t, int> pids_;  // socket inode -> process
  uint64_t pids_time_ns_ = 0;
};

}  // namespace firewatch::agent
