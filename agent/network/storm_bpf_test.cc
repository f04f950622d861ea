// SPDX-License-Identifier: Apache-2.0
// More connections than are followed, and more than are watched: what is still exact then. Sockets
// of this test's own processes in its own network namespaces.
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "agent/network/test_sockets.h"

namespace firewatch::agent {
namespace {

// Reads until that many ends are there, or a while has passed.
void ReportUntilClosed(Seen& seen, uint64_t ends) {
  for (int i = 0; i < 60 && seen.table.outgoing().closed + seen.table.incoming().closed < ends;
       ++i) {
    ::usleep(100'000);
    seen.Report();
  }
}

uint64_t LivingOfRole(const Seen& seen, uint32_t role) {
  return static_cast<uint64_t>(
      std::count_if(seen.living.begin(), seen.living.end(),
                    [&](const fw_net_record& record) { return record.socket.role == role; }));
}

ptrdiff_t LivingConnections(const Seen& seen) {
  return std::count_if(seen.living.begin(), seen.living.end(), [](const fw_net_record& record) {
    return record.socket.role != FW_NET_LISTEN;
  });
}

// What may be followed is counted per CPU: a thread that is moved finds the other's burst
// untouched.
void StayOnThisCpu() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(::sched_getcpu(), &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
}

void ResetAtClose(const UniqueFd& socket) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ASSERT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
}

// More begin than may be followed: the totals are exact all the same, each on its side, some ends
// have their process, and who lives on is found.
TEST_F(ProbeTest, AStormIsCountedButNotFollowed) {
  const auto probe = Open({.follow_per_second = 1});
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  constexpr size_t kPairs = 300;
  constexpr size_t kLiving = 20;
  std::vector<UniqueFd> living;
  b_.Enter([&] {
    StayOnThisCpu();
    const UniqueFd server = Listen("127.0.0.1", 104);
    for (size_t i = 0; i < kPairs + kLiving; ++i) {
      UniqueFd client = Dial("127.0.0.1", 104);
      UniqueFd accepted(::accept(server.get(), nullptr, nullptr));
      ASSERT_EQ(::write(client.get(), "seven..", 7), 7);
      char in[7];
      ASSERT_EQ(::recv(accepted.get(), in, sizeof(in), MSG_WAITALL), 7);
      if (i >= kPairs) {
        living.push_back(std::move(client));
        living.push_back(std::move(accepted));
      }
    }
  });
  ReportUntilClosed(seen, 2 * kPairs);
  EXPECT_EQ(seen.table.outgoing().closed, kPairs);
  EXPECT_EQ(seen.table.incoming().closed, kPairs);
  // Of those that live on, a slow machine has had the seconds to follow some: their bytes are
  // there.
  EXPECT_EQ(seen.table.outgoing().bytes_sent, 7 * (kPairs + LivingOfRole(seen, FW_NET_CONNECT)));
  EXPECT_EQ(seen.table.incoming().bytes_received, 7 * (kPairs + LivingOfRole(seen, FW_NET_ACCEPT)));
  // 20 on each CPU at the start, and one per second; both sides of a connection count.
  const auto losses = probe->Losses();
  EXPECT_GE(losses[FW_NET_LOSS_NOT_FOLLOWED], kPairs);
  EXPECT_GE(losses[FW_NET_LOSS_ENDS_MERGED], kPairs);
  EXPECT_LT(losses[FW_NET_LOSS_ENDS_MERGED], 2 * kPairs);
  EXPECT_LT(LivingConnections(seen), ptrdiff_t{kLiving});
  b_.Enter([&] { ASSERT_TRUE(probe->FindOlder({}).ok()); });
  seen.Report();
  EXPECT_EQ(LivingConnections(seen), ptrdiff_t{2 * kLiving});
}

// A storm of connects that fail: each once, with its errno, followed or not, also of a socket that
// tries again.
TEST_F(ProbeTest, FailuresOfAStormAreCountedOnceWithTheirErrno) {
  const auto probe = Open({.follow_per_second = 1});
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  constexpr size_t kSockets = 100;
  b_.Enter([&] {
    const sockaddr_in nobody = Ipv4("127.0.0.1", 105);
    for (size_t i = 0; i < kSockets; ++i) {
      const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      for (int attempt = 0; attempt < 2; ++attempt) {
        EXPECT_NE(
            ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&nobody), sizeof(nobody)), 0);
        EXPECT_EQ(errno, ECONNREFUSED);
      }
    }
  });
  for (int i = 0; i < 50 && (i < 2 || seen.table.outgoing().failed < 2 * kSockets); ++i) {
    ::usleep(100'000);
    seen.Report();
  }
  seen.Report();
  EXPECT_EQ(seen.table.outgoing().failed, 2 * kSockets);
  const std::map<uint32_t, uint64_t> refused{{ECONNREFUSED, 2 * kSockets}};
  EXPECT_EQ(seen.table.failures_by_errno(), refused);
  EXPECT_EQ(seen.table.tracked(), 0u);
  EXPECT_GE(probe->Losses()[FW_NET_LOSS_NOT_FOLLOWED], kSockets);
}

// The hook on changes of state comes and goes: each connection is counted once at each of its ends,
// followed or not, whoever breaks it and whenever.
TEST_F(ProbeTest, TotalsStayExactWhileStatesComeAndGo) {
  const auto probe = Open({.follow_per_second = 10});
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  constexpr size_t kPairs = 3'000;
  std::atomic<bool> done = false;
  std::thread traffic([&] {
    b_.Enter([&] {
      const UniqueFd server = Listen("127.0.0.1", 106);
      std::vector<UniqueFd> held;  // reset by the other side, closed long after
      for (size_t i = 0; i < kPairs; ++i) {
        UniqueFd client = Dial("127.0.0.1", 106);
        UniqueFd accepted(::accept(server.get(), nullptr, nullptr));
        EXPECT_EQ(::write(client.get(), "seven..", 7), 7);
        char in[7];
        EXPECT_EQ(::recv(accepted.get(), in, sizeof(in), MSG_WAITALL), 7);
        if (i % 10 == 0) ResetAtClose(client);
        if (i % 20 == 0) held.push_back(std::move(accepted));
      }
    });
    done = true;
  });
  for (bool on = false; !done; on = !on) {
    EXPECT_TRUE(probe->WatchStates(on).ok());
    EXPECT_EQ(probe->watches_states(), on);
    ::usleep(20'000);
    seen.Report();
  }
  traffic.join();
  ReportUntilClosed(seen, 2 * kPairs);
  seen.Report();
  EXPECT_EQ(seen.table.outgoing().closed, kPairs);
  EXPECT_EQ(seen.table.incoming().closed, kPairs);
  // Of one in ten, broken by its own side, the kernel clears the counts before the last hook.
  EXPECT_LE(seen.table.outgoing().bytes_sent, 7 * kPairs);
  EXPECT_GE(seen.table.outgoing().bytes_sent, 7 * kPairs / 10 * 9);
  EXPECT_EQ(seen.table.incoming().bytes_received, 7 * kPairs);
  EXPECT_EQ(seen.table.outgoing().failed, 0u);
  EXPECT_EQ(seen.table.tracked(), 0u);
  const auto losses = probe->Losses();
  EXPECT_GT(losses[FW_NET_LOSS_NOT_FOLLOWED], 0u);
  EXPECT_GT(losses[FW_NET_LOSS_NOT_WATCHED], 0u);
}

// Without the hook: what is followed ends with its last bytes, what begins is counted at its end,
// what fails has no errno; with it again, what lives on is found.
TEST_F(ProbeTest, WhatHappensUnwatchedIsCountedAtItsEnd) {
  const auto probe = Open();
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  UniqueFd server, known, known_accepted, living, living_accepted;
  b_.Enter([&] {
    server = Listen("127.0.0.1", 107);
    known = Dial("127.0.0.1", 107);
    known_accepted.Reset(::accept(server.get(), nullptr, nullptr));
  });
  seen.Report();
  ASSERT_EQ(LivingConnections(seen), 2);
  ASSERT_TRUE(probe->WatchStates(false).ok());
  b_.Enter([&] {
    ASSERT_EQ(::write(known.get(), "1234567890", 10), 10);
    known.Reset();
    known_accepted.Reset();
    living = Dial("127.0.0.1", 107);
    living_accepted.Reset(::accept(server.get(), nullptr, nullptr));
    for (int i = 0; i < 5; ++i) {
      const UniqueFd client = Dial("127.0.0.1", 107);
      const UniqueFd accepted(::accept(server.get(), nullptr, nullptr));
      ASSERT_EQ(::write(client.get(), "abc", 3), 3);
      char in[3];
      ASSERT_EQ(::recv(accepted.get(), in, sizeof(in), MSG_WAITALL), 3);
    }
    for (int i = 0; i < 3; ++i) {
      int error = 0;
      Dial("127.0.0.1", 108, &error);
      EXPECT_EQ(error, ECONNREFUSED);
    }
    const UniqueFd never(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));  // counts nowhere
  });
  ReportUntilClosed(seen, 12);
  EXPECT_EQ(seen.table.outgoing().closed, 6u);
  EXPECT_EQ(seen.table.incoming().closed, 6u);
  EXPECT_EQ(seen.table.outgoing().bytes_sent, 25u);
  EXPECT_EQ(seen.table.outgoing().failed, 3u);
  EXPECT_EQ(seen.table.incoming().failed, 0u);
  const std::map<uint32_t, uint64_t> unknown{{0, 3}};
  EXPECT_EQ(seen.table.failures_by_errno(), unknown);
  EXPECT_EQ(LivingConnections(seen), 0);
  EXPECT_EQ(probe->Losses()[FW_NET_LOSS_NOT_WATCHED], 15u);

  ASSERT_TRUE(probe->WatchStates(true).ok());
  b_.Enter([&] { ASSERT_TRUE(probe->FindOlder({}).ok()); });
  seen.Report();
  EXPECT_EQ(LivingConnections(seen), 2);
  living.Reset();
  living_accepted.Reset();
  ReportUntilClosed(seen, 14);
  EXPECT_EQ(seen.table.outgoing().closed, 7u);
  EXPECT_EQ(seen.table.incoming().closed, 7u);
  EXPECT_EQ(seen.table.tracked(), 0u);
}

// Broken by the side that closes, with the other still holding it: not followed, and exact.
TEST_F(ProbeTest, WhatIsBrokenAndNotFollowedIsCountedOnce) {
  const auto probe = Open({.follow_per_second = 0});
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  constexpr size_t kPairs = 50;
  b_.Enter([&] {
    const UniqueFd server = Listen("127.0.0.1", 110);
    std::vector<UniqueFd> held;
    for (size_t i = 0; i < kPairs; ++i) {
      const UniqueFd client = Dial("127.0.0.1", 110);
      held.emplace_back(::accept(server.get(), nullptr, nullptr));
      ASSERT_EQ(::write(client.get(), "seven..", 7), 7);
      char in[7];
      ASSERT_EQ(::recv(held.back().get(), in, sizeof(in), MSG_WAITALL), 7);
      ResetAtClose(client);
    }
  });
  ReportUntilClosed(seen, 2 * kPairs);
  seen.Report();
  EXPECT_EQ(seen.table.outgoing().closed, kPairs);
  EXPECT_EQ(seen.table.incoming().closed, kPairs);
  EXPECT_EQ(seen.table.outgoing().bytes_sent, 7 * kPairs);
  EXPECT_EQ(seen.table.incoming().bytes_received, 7 * kPairs);
  EXPECT_EQ(LivingConnections(seen), 0);
}

// A socket that is taken off its connection (AF_UNSPEC) and connects again has had two, also when
// nobody follows it.
TEST_F(ProbeTest, AConnectionThatWasTakenOffIsCounted) {
  const auto probe = Open({.follow_per_second = 0});
  ASSERT_NE(probe, nullptr);
  Seen seen(*probe);
  b_.Enter([&] {
    const UniqueFd server = Listen("127.0.0.1", 109);
    UniqueFd client = Dial("127.0.0.1", 109);
    const UniqueFd first(::accept(server.get(), nullptr, nullptr));
    const sockaddr none{.sa_family = AF_UNSPEC, .sa_data = {}};
    ASSERT_EQ(::connect(client.get(), &none, sizeof(none)), 0);
    const sockaddr_in to = Ipv4("127.0.0.1", 109);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    const UniqueFd second(::accept(server.get(), nullptr, nullptr));
  });
  ReportUntilClosed(seen, 4);
  EXPECT_EQ(seen.table.outgoing().closed, 2u);
  EXPECT_EQ(seen.table.incoming().closed, 2u);
}

}  // namespace
}  // namespace firewatch::agent
