// SPDX-License-Identifier: Apache-2.0
// The probe against sockets of this test's own processes in its own network namespaces; no other
// socket of the machine is looked at.
#include "agent/network/probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "agent/network/connection_table.h"
#include "agent/network/test_namespaces.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

using base::UniqueFd;

sockaddr_in Ipv4(const char* address, uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  ::inet_pton(AF_INET, address, &out.sin_addr);
  return out;
}

UniqueFd Listen(const char* address, uint16_t port, int backlog = 4096) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in to = Ipv4(address, port);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
  EXPECT_EQ(::listen(fd.get(), backlog), 0);
  return fd;
}

UniqueFd Dial(const char* address, uint16_t port, int* error = nullptr) {
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
    ASSERT_TRUE(probe.ReportLiving([&](const fw_net_record& record) {
      living.push_back(record);
      table.AddLiving(record);
    }).ok());
    table.EndReport();
    probe.DrainRecords([&](const fw_net_record& record) {
      records.push_back(record);
      table.AddRecord(record);
    });
    ASSERT_TRUE(probe.TakeEdges([&](const fw_net_edge& edge, const fw_net_edge_counts& counts) {
      table.AddEdge(edge, counts);
      edges.emplace_back(edge, counts);
    }).ok());
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

TEST_F(ProbeTest, ConnectionIsCountedOnBothSidesWithBytesAsSent) {
  const auto probe = Open();
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  UniqueFd server, accepted, client;
  b_.Enter([&] { server = Listen("10.77.0.2", 80); });
  a_.Enter([&] { client = Dial("10.77.0.2", 80); });
  accepted.Reset(::accept(server.get(), nullptr, nullptr));
  const std::string out(100'000, 'x');
  std::string in(out.size(), '\0');
  ASSERT_EQ(::write(client.get(), out.data(), 50'000), 50'000);
  ASSERT_EQ(::recv(accepted.get(), in.data(), 50'000, MSG_WAITALL), 50'000);
  ASSERT_EQ(::write(accepted.get(), out.data(), 777), 777);
  ASSERT_EQ(::recv(client.get(), in.data(), 777, MSG_WAITALL), 777);

  seen.Report();  // while it lives
  ASSERT_EQ(seen.living.size(), 3u);  // with the listener
  EXPECT_EQ(seen.table.outgoing().bytes_sent, 50'000u);
  EXPECT_EQ(seen.table.incoming().bytes_received, 50'000u);
  ASSERT_EQ(::write(client.get(), out.data(), 1'000), 1'000);
  ASSERT_EQ(::recv(accepted.get(), in.data(), 1'000, MSG_WAITALL), 1'000);
  client.Reset();
  accepted.Reset();
  ::usleep(100'000);
  seen.Report();
  const NetworkTotals& outgoing = seen.table.outgoing();
  const NetworkTotals& incoming = seen.table.incoming();
  EXPECT_EQ(outgoing.opened, 1u);
  EXPECT_EQ(outgoing.closed, 1u);
  EXPECT_EQ(incoming.opened, 1u);
  EXPECT_EQ(incoming.closed, 1u);
  EXPECT_EQ(outgoing.bytes_sent, 51'000u);
  EXPECT_EQ(outgoing.bytes_received, 777u);
  EXPECT_EQ(incoming.bytes_sent, 777u);
  EXPECT_EQ(incoming.bytes_received, 51'000u);
  EXPECT_EQ(outgoing.retransmits + outgoing.syn_retransmits, 0u);
  for (const fw_net_record& record : seen.records) {
    EXPECT_EQ(record.socket.owner.tgid, static_cast<uint32_t>(::getpid()));
  }
}

TEST_F(ProbeTest, ShortConnectionComesInTheEdgesOnce) {
  const auto probe = Open();
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  UniqueFd server;
  b_.Enter([&] { server = Listen("10.77.0.2", 81); });
  a_.Enter([&] {
    for (int i = 0; i < 20; ++i) {
      UniqueFd client = Dial("10.77.0.2", 81);
      UniqueFd accepted(::accept(server.get(), nullptr, nullptr));
      ASSERT_EQ(::write(client.get(), "hello", 5), 5);
      char in[5];
      ASSERT_EQ(::recv(accepted.get(), in, 5, MSG_WAITALL), 5);
    }
  });
  ::usleep(200'000);
  seen.Report();
  seen.Report();
  EXPECT_EQ(seen.table.outgoing().closed, 20u);
  EXPECT_EQ(seen.table.incoming().closed, 20u);
  EXPECT_EQ(seen.table.outgoing().bytes_sent, 100u);
  EXPECT_EQ(seen.table.incoming().bytes_received, 100u);
  EXPECT_EQ(seen.table.tracked(), 0u);
}

}  // namespace
}  // namespace firewatch::agent
