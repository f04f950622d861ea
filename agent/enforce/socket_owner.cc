// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/socket_owner.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

namespace firewatch::agent {
namespace {

constexpr uint64_t kBelieveNs = 5'000'000'000;
constexpr size_t kMaxAnswers = 4096;
constexpr std::string_view kSocket = "socket:[";

template <typename T>
bool Parse(std::string_view text, T* out, int base = 10) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::optional<uint64_t> SocketOwners::InodeOf(uint8_t protocol, uint16_t port) const {
  const std::string_view name = protocol == 6 ? "tcp" : "udp";
  for (const std::string_view suffix : {"", "6"}) {
    std::ifstream file(fmt::format("{}/thread-self/net/{}{}", proc_root_, name, suffix));
    std::string line;
    std::getline(file, line);  // the head of the table
    std::optional<uint64_t> any;
    while (std::getline(file, line)) {
      std::istringstream fields(line);
      std::string number, local, remote, state, queues, timer, retransmits, uid, timeout, inode;
      if (!(fields >> number >> local >> remote >> state >> queues >> timer >> retransmits >> uid >>
            timeout >> inode)) {
        continue;
      }
      uint16_t local_port = 0;
      uint64_t value = 0;
      const size_t colon = local.rfind(':');
      if (colon == std::string::npos ||
          !Parse(std::string_view(local).substr(colon + 1), &local_port, 16) ||
          local_port != port || !Parse(std::string_view(inode), &value) || value == 0) {
        continue;
      }
      // A listener before its connections; unconnected UDP is state 07.
      if (state == "0A" || state == "07") return value;
      any = value;
    }
    if (any) return any;
  }
  return std::nullopt;
}

void SocketOwners::ReadDescriptors() {
  pids_.clear();
  std::error_code error;
  for (const auto& process : std::filesystem::directory_iterator(proc_root_, error)) {
    int pid = 0;
    if (!Parse(std::string_view(process.path().filename().native()), &pid)) continue;
    std::error_code gone;
    for (const auto& fd : std::filesystem::directory_iterator(process.path() / "fd", gone)) {
      const std::string target = std::filesystem::read_symlink(fd.path(), gone);
      uint64_t inode = 0;
      if (target.starts_with(kSocket) &&
          Parse(std::string_view(target).substr(kSocket.size(), target.size() - kSocket.size() - 1),
                &inode)) {
        pids_.try_emplace(inode, pid);
      }
    }
  }
}

std::optional<SocketOwner> SocketOwners::Find(uint8_t protocol, uint16_t port, uint64_t now_ns) {
  if (protocol != 6 && protocol != 17) return std::nullopt;
  if (answers_.size() > kMaxAnswers) answers_.clear();
  const auto [found, added] = answers_.try_emplace({protocol, port});
  if (!added && now_ns - found->second.time_ns < kBelieveNs) return found->second.owner;
  found->second = {.time_ns = now_ns};
  const auto inode = InodeOf(protocol, port);
  if (!inode) return std::nullopt;
  if (pids_time_ns_ == 0 || now_ns - pids_time_ns_ >= kBelieveNs) {
    ReadDescriptors();
    pids_time_ns_ = now_ns;
  }
  const auto pid = pids_.find(*inode);
  if (pid == pids_.end()) return std::nullopt;
  SocketOwner owner{.pid = pid->second};
  std::ifstream comm(fmt::format("{}/{}/comm", proc_root_, owner.pid));
  std::getline(comm, owner.comm);
  found->second.owner = owner;
  return owner;
}

}  // namespace firewatch::agent
