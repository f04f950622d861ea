// SPDX-License-Identifier: Apache-2.0
// Nanoseconds per packet by BPF_PROG_TEST_RUN, one JSON line per row; `./dev bench xdp` runs it and
// puts it beside the peer. Each run of the program gets another source, out of 65,536: a benchmark
// with one hot packet measures the cache.
//
// usage: xdp_bench [--repeat N] [--prefixes N,N,…] [--write-lists DIR]
//        xdp_bench --attach IF --list FILE     drops the list's prefixes on IF until standard input
//        ends xdp_bench --flood IF --mac MAC --list FILE --seconds N    sends from them as fast as
//        it can
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "agent/enforce/firewall_program.h"
#include "agent/enforce/frame_builder.h"
#include "agent/enforce/image.h"
#include "agent/enforce/random_rules.h"
#include "base/clock.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

constexpr size_t kSources = 65'536;  // BENCH_SOURCES in bpf/firewall_maps.h
constexpr int kRuns = 5;
constexpr int kLonger = 20;  // one of so many prefixes is longer than /24

// Distinct prefixes: 80 % /24, 15 % /17 to /23, 5 % /25 to /32, outside 0/8, 10/8 and 127/8.
PrefixSet MakePrefixes(size_t count, std::mt19937_64& random) {
  PrefixSet set;
  while (set.size() < count) {
    const size_t missing = count - set.size();
    for (size_t i = 0; i < missing; ++i) {
      const uint64_t kind = random() % kLonger;
      const auto length = static_cast<uint8_t>(kind == 0   ? 25 + random() % 8
                                               : kind <= 3 ? 17 + random() % 7
                                                           : 24);
      const auto address = static_cast<uint32_t>(random()) & ~LastAddress(Prefix4{0, length});
      if (address >> 24 == 0 || address >> 24 == 10 || address >> 24 == 127) continue;
      set.Add(Prefix4{address, length});
    }
    set.Close();  // drops those that are there twice or covered
  }
  return set;
}

class Bench {
 public:
  Bench(FirewallProgram& program, uint32_t repeat) : program_(program), repeat_(repeat) {
    void* data = ::mmap(nullptr, kSources * 8, PROT_READ | PROT_WRITE, MAP_SHARED,
                        program.bench_sources_fd(), 0);
    if (data == MAP_FAILED) std::exit(1);
    sources_ = static_cast<uint64_t*>(data);
  }

  // `next` gives addresses in host order.
  template <typename Next>
  void SetSources(const Next& next) {
    // An array map's values stand 8 bytes apart.
    for (size_t i = 0; i < kSources; ++i) sources_[i] = __builtin_bswap32(next());
  }

  // The median of five runs after one to warm up, ns per packet; `verdict` of the last packet.
  double Run(int fd, uint32_t* verdict) const {
    const std::vector<uint8_t> frame =
        FrameBuilder().Ipv4(1, Ip4(10, 0, 0, 1), 17).Udp(1234, 53).Zeros(18).Bytes();
    std::vector<double> times;
    for (int run = 0; run <= kRuns; ++run) {
      LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
                  .data_size_in = static_cast<uint32_t>(frame.size()),
                  .repeat = static_cast<int>(repeat_));
      if (::bpf_prog_test_run_opts(fd, &options) != 0) std::exit(1);
      *verdict = options.retval;
      if (run > 0) times.push_back(options.duration);
    }
    std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
    return times[kRuns / 2];
  }

 private:
  FirewallProgram& program_;
  const uint32_t repeat_;
  uint64_t* sources_;
};

absl::Status Main(uint32_t repeat, const std::vector<size_t>& counts, const std::string& lists) {
  base::SystemClock clock;
  ASSIGN_OR_RETURN(const auto program, FirewallProgram::Load("", /*benchmarks=*/true));
  Bench bench(*program, repeat);
  for (const size_t count : counts) {
    std::mt19937_64 random(count);
    auto set = std::make_shared<const PrefixSet>(MakePrefixes(count, random));
    if (!lists.empty()) {
      std::ofstream file(fmt::format("{}/{}.list", lists, count));
      for (const Prefix4& prefix : set->prefixes4()) file << FormatPrefix(prefix) << "\n";
    }
    RuleSet rules;
    Rule rule;
    rule.name = "block";
    rule.match.source = {set};
    rules.rules.push_back(rule);
    const uint64_t start_ns = clock.MonotonicNs();
    ASSIGN_OR_RETURN(const Image image, BuildImage(rules, PlainOptions(rules)));
    const uint64_t built_ns = clock.MonotonicNs();
    ASSIGN_OR_RETURN(ImageMap map, ImageMap::Create(image));
    RETURN_IF_ERROR(program->Put(0, &map));
    const uint64_t put_ns = clock.MonotonicNs();

    std::vector<Prefix4> shorter, longer;
    for (const Prefix4& prefix : set->prefixes4()) {
      (prefix.length <= 24 ? shorter : longer).push_back(prefix);
    }
    const auto covered = [&](uint32_t address) {
      const auto& all = set->prefixes4();
      const auto after = std::upper_bound(
          all.begin(), all.end(), address,
          [](uint32_t value, const Prefix4& prefix) { return value < prefix.address; });
      return after != all.begin() && address <= LastAddress(*std::prev(after));
    };
    const auto inside = [&random](const std::vector<Prefix4>& from) {
      const Prefix4& prefix = from[random() % from.size()];
      const uint32_t host_bits = LastAddress(Prefix4{0, prefix.length});
      return prefix.address | (static_cast<uint32_t>(random()) & host_bits);
    };
    const auto row = [&](std::string_view kind, auto next, uint32_t want) -> absl::Status {
      bench.SetSources(next);
      uint32_t verdict = 0;
      const double parse = bench.Run(program->bench_parse_fd(), &verdict);
      const double judge = bench.Run(program->bench_judge_fd(), &verdict);
      if (verdict != want) return base::Internal("{}: verdict {}, not {}", kind, verdict, want);
      fmt::print(
          "{{\"prefixes\":{},\"kind\":\"{}\",\"parse_ns\":{:.1f},\"judge_ns\":{:.1f},"
          "\"above_ns\":{:.1f},\"image_bytes\":{},\"build_ms\":{:.1f},\"swap_ms\":{:.1f}}}\n",
          count, kind, parse, judge, judge - parse, image.bytes(),
          static_cast<double>(built_ns - start_ns) / 1e6,
          static_cast<double>(put_ns - built_ns) / 1e6);
      std::fflush(stdout);
      return absl::OkStatus();
    };
    constexpr uint32_t kDrop = 1, kPass = 2;  // enum xdp_action
    RETURN_IF_ERROR(row(
        "miss",
        [&] {
          uint32_t address = static_cast<uint32_t>(random());
          while (covered(address)) address = static_cast<uint32_t>(random());
          return address;
        },
        kPass));
    if (!shorter.empty())
      RETURN_IF_ERROR(row("hit to /24", [&] { return inside(shorter); }, kDrop));
    if (!longer.empty()) RETURN_IF_ERROR(row("hit longer", [&] { return inside(longer); }, kDrop));
  }
  return absl::OkStatus();
}

absl::StatusOr<PrefixSet> ReadList(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return ParsePrefixList(text.str(), path);
}

absl::Status Attach(const std::string& interface, const std::string& list) {
  ASSIGN_OR_RETURN(const auto program, FirewallProgram::Load(""));
  ASSIGN_OR_RETURN(PrefixSet set, ReadList(list));
  RuleSet rules;
  Rule rule;
  rule.name = "block";
  rule.match.source = {std::make_shared<const PrefixSet>(std::move(set))};
  rules.rules.push_back(rule);
  ASSIGN_OR_RETURN(const Image image, BuildImage(rules, PlainOptions(rules)));
  ASSIGN_OR_RETURN(ImageMap map, ImageMap::Create(image));
  RETURN_IF_ERROR(program->Put(0, &map));
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_DRV_MODE);
  const base::UniqueFd link(::bpf_link_create(
      program->xdp_fd(), static_cast<int>(::if_nametoindex(interface.c_str())), BPF_XDP, &options));
  if (!link.valid()) return base::ErrnoStatus(errno, "attach to " + interface);
  fmt::print("ready\n");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  fmt::print("{}\n", program->RuleCounts(0).dropped_packets);
  return absl::OkStatus();
}

absl::Status Flood(const std::string& interface, const std::string& mac, const std::string& list,
                   int seconds) {
  ASSIGN_OR_RETURN(const PrefixSet set, ReadList(list));
  const base::UniqueFd socket(::socket(AF_PACKET, SOCK_RAW, 0));
  if (!socket.valid()) return base::ErrnoStatus(errno, "packet socket");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  const int on = 1;
  // Past the queueing discipline: what is measured is behind it.
  ::setsockopt(socket.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    return base::ErrnoStatus(errno, "bind to " + interface);
  }
  constexpr size_t kFrames = 16'384;
  constexpr size_t kBatch = 64;
  std::mt19937_64 random(1);
  std::vector<std::vector<uint8_t>> frames;
  for (size_t i = 0; i < kFrames; ++i) {
    const Prefix4& prefix = set.prefixes4()[random() % set.prefixes4().size()];
    const uint32_t host = static_cast<uint32_t>(random()) & LastAddress(Prefix4{0, prefix.length});
    auto frame = FrameBuilder()
                     .Ipv4(prefix.address | host, Ip4(10, 99, 0, 1), 17)
                     .Udp(1, 9)
                     .Zeros(18)
                     .Bytes();
    for (size_t b = 0; b < 6; ++b) {
      frame[b] = static_cast<uint8_t>(std::strtoul(mac.substr(b * 3, 2).c_str(), nullptr, 16));
    }
    frames.push_back(std::move(frame));
  }
  std::vector<iovec> parts(kFrames);
  std::vector<mmsghdr> messages(kFrames);
  for (size_t i = 0; i < kFrames; ++i) {
    parts[i] = {frames[i].data(), frames[i].size()};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  base::SystemClock clock;
  const uint64_t start_ns = clock.MonotonicNs();
  uint64_t sent = 0;
  for (size_t at = 0;
       clock.MonotonicNs() - start_ns < static_cast<uint64_t>(seconds) * 1'000'000'000;
       at = (at + kBatch) % kFrames) {
    const int count = ::sendmmsg(socket.get(), &messages[at], kBatch, 0);
    if (count > 0) sent += static_cast<uint64_t>(count);
  }
  const double elapsed_s = static_cast<double>(clock.MonotonicNs() - start_ns) / 1e9;
  fmt::print("{{\"sent\":{},\"seconds\":{:.3f}}}\n", sent, elapsed_s);
  return absl::OkStatus();
}

}  // namespace
}  // namespace firewatch::agent

int main(int argc, char** argv) {
  uint32_t repeat = 1'000'000;
  std::vector<size_t> counts = {1, 1'000, 100'000, 1'000'000};
  std::string lists, attach, flood, list, mac;
  int seconds = 3;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (name == "--repeat") repeat = static_cast<uint32_t>(std::atoi(argv[i + 1]));
    if (name == "--write-lists") lists = argv[i + 1];
    if (name == "--attach") attach = argv[i + 1];
    if (name == "--flood") flood = argv[i + 1];
    if (name == "--list") list = argv[i + 1];
    if (name == "--mac") mac = argv[i + 1];
    if (name == "--seconds") seconds = std::atoi(argv[i + 1]);
    if (name == "--prefixes") {
      counts.clear();
      for (char* at = std::strtok(argv[i + 1], ","); at != nullptr;
           at = std::strtok(nullptr, ",")) {
        counts.push_back(std::strtoull(at, nullptr, 10));
      }
    }
  }
  const absl::Status status = !attach.empty()  ? firewatch::agent::Attach(attach, list)
                              : !flood.empty() ? firewatch::agent::Flood(flood, mac, list, seconds)
                                               : firewatch::agent::Main(repeat, counts, lists);
  if (status.ok()) return 0;
  fmt::print(stderr, "xdp_bench: {}\n", firewatch::base::Message(status));
  return 1;
}
