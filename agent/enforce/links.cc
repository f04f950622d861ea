// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/links.h"

#include <fmt/format.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>

namespace firewatch::agent {

std::string NamespaceKey() {
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  constexpr int kNetnsCookie = 71;  // SO_NETNS_COOKIE
  if (socket.valid() && ::getsockopt(socket.get(), SOL_SOCKET, kNetnsCookie, &cookie, &size) == 0) {
    return std::to_string(cookie);
  }
  struct stat info{};
  return ::stat("/proc/thread-self/ns/net", &info) == 0 ? fmt::format("i{}", info.st_ino) : "i0";
}

base::UniqueFd OpenLinkMonitor() {
  base::UniqueFd out(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK;
  if (out.valid() &&
      ::bind(out.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    out.Reset();
  }
  return out;
}

void DrainLinkMonitor(int fd) {
  char ignored[8192];
  while (::recv(fd, ignored, sizeof(ignored), 0) > 0 || errno == ENOBUFS) {
  }
}

}  // namespace firewatch::agent
