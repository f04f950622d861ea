// SPDX-License-Identifier: Apache-2.0
// For tests: sockets, and everything that a probe has seen of them.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/network/connection_table.h"
#include "agent/network/probe.h"
#include "agent/network/test_namespaces.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

using base::UniqueFd;

inline sockaddr_in Ipv4(const char* address, uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  ::inet_pton(AF_INET, address, &out.sin_addr);
  return out;
}

inline UniqueFd Listen(const char* address, uint16_t port, int backlog = 4096) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in to = Ipv4(address, port);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
  EXPECT_EQ(::listen(fd.get(), backlog), 0);
  return fd;
}

inline UniqueFd Dial(const char* address, uint16_t port, int* error = nullptr) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in to = Ipv4(address, port);
  const int result = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  if (error != nullptr) *error = result == 0 ? 0 : errno;
  return fd;
}

// Everything that the probe has seen, by its own resolver: names as the kernel side captured them.
struct Seen {
  explicit Seen(Probe& from)
      : probe(from), table({}, [this](const fw_net_owner& owner) {
          NetworkProcess process;
          process.pid = owner.tgid;
          if (const auto found = probe.FindProcess(owner)) {
            process.comm = found->comm;
            process.exe = found->exe_name;
          }
          return process;
        }) {}

  void Report() {
    living.clear();
    table.BeginReport();
    ASSERT_TRUE(probe
                    .ReportLiving([&](const fw_net_record& record) {
                      living.push_back(record);
                      table.AddLiving(record);
                    })
                    .ok());
    table.EndReport();
    probe.DrainRecords([&](const fw_net_record& record) {
      records.push_back(record);
      table.AddRecord(record);
    });
    ASSERT_TRUE(probe
                    .TakeEdges([&](const fw_net_edge& edge, const fw_net_edge_counts& counts) {
                      table.AddEdge(edge, counts);
                      edges.emplace_back(edge, counts);
                    })
                    .ok());
    table.SetOverflow(probe.Overflow());
  }

  Probe& probe;
  ConnectionTable table;
  std::vector<fw_net_record> living;
  std::vector<fw_net_record> records;
  std::vector<std::pair<fw_net_edge, fw_net_edge_counts>> edges;
};

class ProbeTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: BPF and network namespaces";
    if (!a_.valid() || !b_.valid()) GTEST_SKIP() << "no network namespaces here (or no ip)";
    ASSERT_TRUE(Connect(a_, b_));
  }

  std::unique_ptr<Probe> Open(ProbeOptions options = {}) {
    options.network_namespaces = {a_.inode(), b_.inode()};
    auto probe = Probe::Open(options);
    EXPECT_TRUE(probe.ok()) << base::Message(probe.status());
    return probe.ok() ? *std::move(probe) : nullptr;
  }

  TestNamespace a_;
  TestNamespace b_;
};

}  // namespace firewatch::agent
