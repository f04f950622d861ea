// SPDX-License-Identifier: Apache-2.0
// Ten ways in which a packet or a connection fails, each made on purpose in namespaces of this
// test, and what the kernel calls it. The table of docs/network.md is this test's output.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/ip.h>
#include <sys/uio.h>

#include <array>
#include <cstring>
#include <map>
#include <string>

#include "agent/network/network_metrics.h"
#include "agent/network/test_sockets.h"

namespace firewatch::agent {
namespace {

class DropsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: BPF and network namespaces";
    if (!a_.valid() || !b_.valid()) GTEST_SKIP() << "no network namespaces here (or no ip)";
    ASSERT_TRUE(Connect(a_, b_));
    auto probe = Probe::Open({.network_namespaces = {a_.inode(), b_.inode()}});
    ASSERT_TRUE(probe.ok()) << base::Message(probe.status());
    probe_ = *std::move(probe);
    if (probe_->names().drop_reasons().empty()) {
      GTEST_SKIP() << "this kernel has no reasons of drops (Linux 5.17)";
    }
    seen_ = std::make_unique<Seen>(*probe_);
  }

  // Packets by reason and protocol since the start.
  std::map<std::string, uint64_t> Drops() {
    ::usleep(100'000);
    seen_->Report();
    std::map<std::string, uint64_t> out;
    for (const NetworkDrop& drop : seen_->table.drops()) {
      if (drop.packets == 0) continue;
      const std::string key = fmt::format("{} {}", probe_->names().DropReason(drop.reason),
                                          ProtocolName(drop.protocol));
      out[key] += drop.packets;
      if (drop.process > 1) out[key + " of a process"] += drop.packets;
    }
    for (const auto& [key, count] : out) fmt::print("{}: {}\n", key, count);
    return out;
  }

  TestNamespace a_;
  TestNamespace b_;
  std::unique_ptr<Probe> probe_;
  std::unique_ptr<Seen> seen_;
};

uint16_t Fold(uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

uint32_t Sum(const void* data, size_t size) {
  uint32_t sum = 0;
  const auto* words = static_cast<const uint8_t*>(data);
  for (size_t i = 0; i + 1 < size; i += 2)
    sum += static_cast<uint32_t>(words[i] << 8 | words[i + 1]);
  return sum;
}

// A SYN from anybody to anybody; from namespace of the calling thread.
void SendSyn(const char* from, const char* to, uint16_t port, uint8_t ttl, bool good_checksum) {
  struct {
    iphdr ip;
    tcphdr tcp;
  } packet{};
  packet.ip.version = 4;
  packet.ip.ihl = 5;
  packet.ip.ttl = ttl;
  packet.ip.protocol = IPPROTO_TCP;
  packet.ip.tot_len = htons(sizeof(packet));
  ::inet_pton(AF_INET, from, &packet.ip.saddr);
  ::inet_pton(AF_INET, to, &packet.ip.daddr);
  packet.tcp.source = htons(40'000);
  packet.tcp.dest = htons(port);
  packet.tcp.syn = 1;
  packet.tcp.doff = 5;
  packet.tcp.window = htons(1000);
  uint32_t sum = Sum(&packet.ip.saddr, 8) + IPPROTO_TCP + sizeof(tcphdr);
  sum += Sum(&packet.tcp, sizeof(packet.tcp));
  const uint16_t checksum = Fold(sum);
  packet.tcp.check = htons(static_cast<uint16_t>(good_checksum ? checksum : checksum + 1));
  const UniqueFd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  sockaddr_in address = Ipv4(to, 0);
  ASSERT_EQ(::sendto(raw.get(), &packet, sizeof(packet), 0,
                     reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
            static_cast<ssize_t>(sizeof(packet)));
}

TEST_F(DropsTest, NobodyListens) {
  int error = 0;
  a_.Enter([&] { Dial("10.77.0.2", 99, &error); });
  EXPECT_EQ(error, ECONNREFUSED);
  EXPECT_EQ(Drops()["NO_SOCKET tcp"], 1u);
  EXPECT_EQ(seen_->table.failures_by_errno().at(ECONNREFUSED), 1u);
  EXPECT_EQ(seen_->table.outgoing().failed, 1u);
  EXPECT_EQ(seen_->table.outgoing().resets_received, 1u);
  EXPECT_EQ(seen_->table.stray_resets(), 1u);  // of the other namespace
}

TEST_F(DropsTest, AcceptQueueIsFull) {
  UniqueFd server;
  std::vector<UniqueFd> clients;
  b_.Enter([&] { server = Listen("10.77.0.2", 90, 1); });
  a_.Enter([&] {
    for (int i = 0; i < 6; ++i) {
      UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const sockaddr_in to = Ipv4("10.77.0.2", 90);
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to));
      clients.push_back(std::move(fd));
    }
  });
  ::usleep(1'500'000);  // SYNs are sent again
  Drops();
  EXPECT_GE(seen_->table.listen_drops(), 4u);
  const std::string kernel =
      b_.Output("nstat -asz TcpExtListenDrops | awk \"/Drops/ {print \\$2}\"");
  seen_->Report();
  EXPECT_EQ(seen_->table.listen_drops(), std::strtoull(kernel.c_str(), nullptr, 10));
  EXPECT_GE(seen_->table.outgoing().syn_retransmits, 4u);
  seen_->table.ForEachListener([](const NetworkListener& listener) {
    EXPECT_EQ(listener.record.socket.backlog_limit, 1u);
    EXPECT_EQ(listener.record.socket.backlog, 2u);
  });
}

TEST_F(DropsTest, ChecksumIsBad) {
  UniqueFd server;
  b_.Enter([&] { server = Listen("10.77.0.2", 91); });
  a_.Enter([] { SendSyn("10.77.0.1", "10.77.0.2", 91, 64, false); });
  EXPECT_EQ(Drops()["TCP_CSUM tcp"], 1u);
}

TEST_F(DropsTest, ReversePathFilter) {
  ASSERT_TRUE(b_.Run("sysctl -w net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.v0.rp_filter=1"));
  a_.Enter([] { SendSyn("192.0.2.1", "10.77.0.2", 92, 64, true); });
  EXPECT_EQ(Drops()["IP_RPFILTER tcp"], 1u);
}

TEST_F(DropsTest, TimeToLiveIsOver) {
  ASSERT_TRUE(
      b_.Run("sysctl -w net.ipv4.ip_forward=1 && "
             "ip route add 10.79.0.0/24 via 10.77.0.1"));
  ASSERT_TRUE(a_.Run("ip route add 10.79.0.0/24 via 10.77.0.2"));
  a_.Enter([] { SendSyn("10.77.0.1", "10.79.0.9", 93, 1, true); });
  // Linux has no reason of its own for it: the packet is refused as one with a bad header.
  EXPECT_EQ(Drops()["IP_INHDR tcp"], 1u);
}

TEST_F(DropsTest, SocketFilterSaysNo) {
  UniqueFd receiver, sender;
  b_.Enter([&] {
    receiver.Reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = Ipv4("10.77.0.2", 94);
    ASSERT_EQ(::bind(receiver.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    sock_filter nothing = {.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = 0};
    const sock_fprog program = {.len = 1, .filter = &nothing};
    ASSERT_EQ(::setsockopt(receiver.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)),
              0);
  });
  a_.Enter([&] {
    sender.Reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = Ipv4("10.77.0.2", 94);
    ::sendto(sender.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  });
  EXPECT_EQ(Drops()["SOCKET_FILTER udp"], 1u);
}

TEST_F(DropsTest, DataForAClosedSocket) {
  UniqueFd server, client;
  b_.Enter([&] { server = Listen("10.77.0.2", 95); });
  a_.Enter([&] { client = Dial("10.77.0.2", 95); });
  UniqueFd accepted(::accept(server.get(), nullptr, nullptr));
  accepted.Reset();
  ::usleep(50'000);
  ASSERT_EQ(::write(client.get(), "late", 4), 4);
  Drops();
  // A closed socket in its last wait has no reason of its own here: it is told where it happened.
  uint64_t named = 0;
  for (const NetworkDrop& drop : seen_->table.drops()) {
    if (drop.packets == 0 || drop.protocol != IPPROTO_TCP) continue;
    const std::string reason = probe_->names().DropReason(drop.reason);
    const std::string where = drop.location != 0 ? KernelNames::Function(drop.location) : "";
    fmt::print("{} {}\n", reason, where);
    EXPECT_TRUE(reason == "TCP_ABORT_ON_DATA" || reason == "NO_SOCKET" || reason == "TCP_CLOSE" ||
                (reason == "NOT_SPECIFIED" && where.starts_with("tcp_v4_rcv")))
        << reason << " " << where;
    ++named;
  }
  EXPECT_EQ(named, 1u);
  EXPECT_EQ(seen_->table.incoming().resets_sent + seen_->table.stray_resets(), 1u);
  client.Reset();
  ::usleep(50'000);
  seen_->Report();
  EXPECT_EQ(seen_->table.outgoing().resets_received, 1u);
}

TEST_F(DropsTest, NoRoute) {
  UniqueFd server, client;
  b_.Enter([&] { server = Listen("10.77.0.2", 96); });
  a_.Enter([&] { client = Dial("10.77.0.2", 96); });
  ASSERT_TRUE(a_.Run("ip route del 10.77.0.0/24"));
  ASSERT_EQ(::write(client.get(), "lost", 4), 4);
  const auto drops = Drops();
  EXPECT_GE(drops.at("IP_OUTNOROUTES tcp"), 1u);
  EXPECT_GE(drops.at("IP_OUTNOROUTES tcp of a process"), 1u);
}

TEST_F(DropsTest, NetfilterRule) {
  if (!b_.Run("nft add table ip t && "
              "nft add chain ip t in \"{ type filter hook input priority 0 ; }\" && "
              "nft add rule ip t in tcp dport 97 drop")) {
    GTEST_SKIP() << "no nft here";
  }
  a_.Enter([] { SendSyn("10.77.0.1", "10.77.0.2", 97, 64, true); });
  EXPECT_EQ(Drops()["NETFILTER_DROP tcp"], 1u);
}

TEST_F(DropsTest, ReceiveBufferIsFull) {
  UniqueFd receiver, sender;
  b_.Enter([&] {
    receiver.Reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int small = 1;
    ::setsockopt(receiver.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    const sockaddr_in to = Ipv4("10.77.0.2", 98);
    ASSERT_EQ(::bind(receiver.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
  });
  a_.Enter([&] {
    sender.Reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to = Ipv4("10.77.0.2", 98);
    const std::string data(1'000, 'x');
    for (int i = 0; i < 20; ++i) {
      ::sendto(sender.get(), data.data(), data.size(), 0, reinterpret_cast<const sockaddr*>(&to),
               sizeof(to));
    }
  });
  EXPECT_GE(Drops()["SOCKET_RCVBUFF udp"], 1u);
}

TEST_F(DropsTest, ConnectThatTimesOutIsNamed) {
  if (!b_.Run("nft add table ip t && "
              "nft add chain ip t in \"{ type filter hook input priority 0 ; }\" && "
              "nft add rule ip t in tcp dport 100 drop")) {
    GTEST_SKIP() << "no nft here";
  }
  a_.Enter([] {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int ms = 300;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
    const sockaddr_in to = Ipv4("10.77.0.2", 100);
    EXPECT_NE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    EXPECT_EQ(errno, ETIMEDOUT);
  });
  Drops();
  EXPECT_EQ(seen_->table.failures_by_errno().at(ETIMEDOUT), 1u);
}

TEST_F(DropsTest, ResetByUnreadDataIsOfWhoClosed) {
  UniqueFd server, client;
  b_.Enter([&] { server = Listen("10.77.0.2", 101); });
  a_.Enter([&] { client = Dial("10.77.0.2", 101); });
  UniqueFd accepted(::accept(server.get(), nullptr, nullptr));
  ASSERT_EQ(::write(client.get(), "unread", 6), 6);
  ::usleep(50'000);
  accepted.Reset();
  ::usleep(50'000);
  client.Reset();
  Drops();
  EXPECT_EQ(seen_->table.incoming().resets_sent, 1u);
  EXPECT_EQ(seen_->table.outgoing().resets_received, 1u);
  EXPECT_EQ(seen_->table.incoming().bytes_received, 6u);
}

}  // namespace
}  // namespace firewatch::agent
