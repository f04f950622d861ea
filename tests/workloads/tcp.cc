// SPDX-License-Identifier: Apache-2.0
// Connections with known owners, bytes and ends. Copies under other names are other programs.
//
//   workload_tcp serve PORT COUNT FORK_EVERY   accepts COUNT connections on any address, writes two
//                                              bytes to each and closes; every FORK_EVERYth one (0:
//                                              none) by a child that exits at once
//   workload_tcp dial ADDRESS PORT COUNT       COUNT connections, each by a process of its own that
//                                              reads two bytes and exits
//   workload_tcp storm ADDRESS PORT RATE SECONDS   that many connections a second by this process,
//                                              closed when the other side has
//   workload_tcp pairs PORT RATE SECONDS       the same, but by one process that has both ends: no
//                                              change of process in between, some three times
//                                              faster
//   workload_tcp hold PORT COUNT               COUNT connections to itself over loopback, both ends
//                                              kept until it is ended
// Prints "ready" once it listens (hold: once all are there), "done N" at the end.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

sockaddr_in Address(const char* text, int port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(static_cast<uint16_t>(port));
  ::inet_pton(AF_INET, text, &out.sin_addr);
  return out;
}

int Serve(int port, long count, long fork_every) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in any = Address("0.0.0.0", port);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&any), sizeof(any)) != 0 ||
      ::listen(listener, 4096) != 0) {
    std::perror("listen");
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  for (long i = 0; i < count; ++i) {
    const int accepted = ::accept(listener, nullptr, nullptr);
    if (accepted < 0) return 1;
    const pid_t child = fork_every != 0 && i % fork_every == 0 ? ::fork() : -1;
    if (child <= 0) {
      if (::write(accepted, "ab", 2) != 2) return 1;
    }
    if (child == 0) ::_exit(0);
    ::close(accepted);
    if (child > 0) ::waitpid(child, nullptr, 0);
  }
  return 0;
}

bool DialOnce(const sockaddr_in& to) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  char in[2];
  const bool ok = ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0 &&
                  ::recv(fd, in, 2, MSG_WAITALL) == 2;
  ::close(fd);
  return ok;
}

int Dial(const sockaddr_in& to, long count) {
  long done = 0;
  for (long i = 0; i < count; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      // Closed by its exit.
      const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      char in[2];
      const bool ok = ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0 &&
                      ::recv(fd, in, 2, MSG_WAITALL) == 2;
      ::_exit(ok ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    done += status == 0;
  }
  std::printf("done %ld\n", done);
  return done == count ? 0 : 1;
}

int64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

// Calls `dial` that often a second.
template <typename Dial>
int Storm(const Dial& dial, long rate, long seconds) {
  const int64_t start = NowNs();
  const int64_t end = start + seconds * 1'000'000'000;
  long done = 0, failed = 0;
  for (int64_t now = start; now < end; now = NowNs()) {
    const long due = static_cast<long>((now - start) / 1000 * rate / 1'000'000);
    if (done + failed > due) {
      ::usleep(1'000);
      continue;
    }
    (dial() ? done : failed) += 1;
  }
  std::printf("done %ld failed %ld\n", done, failed);
  return 0;
}

// The side that accepts closes first, so that the port of the other one is free again at once.
bool DialSelf(int listener, const sockaddr_in& to) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool ok = ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0;
  const int accepted = ok ? ::accept(listener, nullptr, nullptr) : -1;
  char in[2];
  ok = accepted >= 0 && ::write(accepted, "ab", 2) == 2;
  if (accepted >= 0) ::close(accepted);
  ok = ok && ::recv(fd, in, 2, MSG_WAITALL) == 2;
  ::close(fd);
  return ok;
}

int Pairs(int port, long rate, long seconds) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in address = Address("127.0.0.1", port);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener, 4096) != 0) {
    std::perror("pairs");
    return 1;
  }
  return Storm([&] { return DialSelf(listener, address); }, rate, seconds);
}

int Hold(int port, long count) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = Address("127.0.0.1", port);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::bind(listener, generic, sizeof(address)) != 0 || ::listen(listener, 4096) != 0) return 1;
  for (long i = 0; i < count; ++i) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(fd, generic, sizeof(address)) != 0 || ::accept(listener, nullptr, nullptr) < 0) {
      std::perror("hold");
      return 1;
    }
  }
  std::puts("ready");
  std::fflush(stdout);
  while (true) ::pause();
}

}  // namespace

int main(int argc, char** argv) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGPIPE, SIG_IGN);
  const std::string_view mode = argc > 1 ? argv[1] : "";
  if (mode == "serve" && argc == 5) {
    return Serve(std::atoi(argv[2]), std::atol(argv[3]), std::atol(argv[4]));
  }
  if (mode == "hold" && argc == 4) return Hold(std::atoi(argv[2]), std::atol(argv[3]));
  if (mode == "pairs" && argc == 5) {
    return Pairs(std::atoi(argv[2]), std::atol(argv[3]), std::atol(argv[4]));
  }
  if (mode == "dial" && argc == 5)
    return Dial(Address(argv[2], std::atoi(argv[3])), std::atol(argv[4]));
  if (mode == "storm" && argc == 6) {
    const sockaddr_in to = Address(argv[2], std::atoi(argv[3]));
    return Storm([&] { return DialOnce(to); }, std::atol(argv[4]), std::atol(argv[5]));
  }
  std::fputs("usage: see the head of tests/workloads/tcp.cc\n", stderr);
  return 2;
}
