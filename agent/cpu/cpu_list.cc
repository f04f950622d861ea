// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/cpu_list.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <optional>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kMaxCpu = 65'535;
constexpr int kTimerSeconds = 5;
constexpr uint32_t kKernelUevents = 1;  // multicast group of NETLINK_KOBJECT_UEVENT

std::optional<uint32_t> ParseNumber(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > kMaxCpu) {
    return std::nullopt;
  }
  return value;
}

// Appends the CPUs of "3" or "0-3". False when it is neither, or not above what came before.
bool AppendRange(std::string_view range, std::vector<uint32_t>& cpus) {
  const size_t dash = range.find('-');
  const auto first = ParseNumber(range.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : ParseNumber(range.substr(dash + 1));
  if (!first || !last || *last < *first) return false;
  if (!cpus.empty() && *first <= cpus.back()) return false;
  for (uint32_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
  return true;
}

base::UniqueFd OpenUevents() {
  base::UniqueFd fd(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  if (!fd.valid()) return {};
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kKernelUevents;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return {};
  }
  return fd;
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> ParseCpuList(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  std::vector<uint32_t> cpus;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    if (!AppendRange(text.substr(0, comma), cpus) || comma + 1 == text.size()) {
      return base::InvalidArgument("CPU list: \"{}\" is no range", text.substr(0, comma));
    }
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return cpus;
}

absl::StatusOr<std::vector<uint32_t>> ReadCpuList(const std::string& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open {}", path));
  std::array<char, 4096> buffer;  // sysfs gives at most one page
  const ssize_t size = ::read(fd.get(), buffer.data(), buffer.size());
  if (size < 0) return base::ErrnoStatus(errno, fmt::format("read {}", path));
  return ParseCpuList({buffer.data(), static_cast<size_t>(size)});
}

absl::StatusOr<CpuWatch> CpuWatch::Open() {
  if (base::UniqueFd uevents = OpenUevents(); uevents.valid()) {
    return CpuWatch(std::move(uevents), /*is_timer=*/false);
  }
  base::UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.valid()) return base::ErrnoStatus(errno, "timerfd_create");
  itimerspec period{};
  period.it_interval.tv_sec = kTimerSeconds;
  period.it_value.tv_sec = kTimerSeconds;
  if (::timerfd_settime(timer.get(), 0, &period, nullptr) != 0) {
    return base::ErrnoStatus(errno, "timerfd_settime");
  }
  return CpuWatch(std::move(timer), /*is_timer=*/true);
}

CpuWatch::Changes CpuWatch::Read() {
  Changes changes;
  std::array<char, 8192> buffer;
  for (;;) {
    sockaddr_nl sender{};
    socklen_t sender_size = sizeof(sender);
    const ssize_t size = is_timer_ ? ::read(fd_.get(), buffer.data(), buffer.size())
                                   : ::recvfrom(fd_.get(), buffer.data(), buffer.size(), 0,
                                                reinterpret_cast<sockaddr*>(&sender), &sender_size);
    if (size < 0 && errno == ENOBUFS) {  // messages were dropped: anything may have happened
      changes.maybe_changed = true;
      continue;
    }
    if (size <= 0) return changes;
    if (is_timer_) {
      changes.maybe_changed = true;
      continue;
    }
    if (sender.nl_pid != 0) continue;  // only the kernel is believed
    const int cpu = CpuOfUevent({buffer.data(), static_cast<size_t>(size)});
    if (cpu < 0) continue;
    changes.maybe_changed = true;
    changes.touched.push_back(static_cast<uint32_t>(cpu));
  }
}

int CpuOfUevent(std::string_view message) {
  const std::string_view head = message.substr(0, message.find('\0'));
  constexpr std::string_view kPath = "@/devices/system/cpu/cpu";
  const size_t at = head.find('@');
  if (at == std::string_view::npos) return -1;
  const std::string_view action = head.substr(0, at);
  if (action != "online" && action != "offline") return -1;
  if (head.substr(at, kPath.size()) != kPath) return -1;
  const auto cpu = ParseNumber(head.substr(at + kPath.size()));
  return cpu ? static_cast<int>(*cpu) : -1;
}

}  // namespace firewatch::agent
