// SPDX-License-Identifier: Apache-2.0
// walk_bench: nanoseconds per sample inside the kernel, ours against bpf_get_stackid.
//
//   walk_bench [--rounds N] [--seconds S]
//
// A child burns CPU below a stack of known depth. Per depth and rate, a perf event bound to that
// child runs one of the two programs, then the other, in turn: never both at once, because the
// second would find the stack warm in the cache. Times are the kernel's own (BPF_ENABLE_STATS,
// which ends with this process). The median over the rounds is printed. This file opens the
// skeleton itself because the sampler opens events per CPU, where other processes' ticks would be
// mixed in.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "agent/core/bpf_handles.h"
#include "base/unique_fd.h"
#include "bpf/cpu.skel.h"
#include "bpf/peer.skel.h"
#include "tests/bench/walk/burn.h"

namespace firewatch::bench {
namespace {

constexpr int kDepths[] = {10, 60, 127};
constexpr int kRates[] = {19, 99, 997};

struct Options {
  int rounds = 5;
  double seconds = 1.0;
};

[[noreturn]] void Die(std::string_view what) {
  fmt::print(stderr, "walk_bench: {}: {}\n", what, std::strerror(errno));
  std::exit(1);
}

void Sleep(double seconds) { ::usleep(static_cast<useconds_t>(seconds * 1e6)); }

// A process of its own that spins below `depth` frames and ends with us.
class Child {
 public:
  explicit Child(int depth) : pid_(::fork()) {
    if (pid_ < 0) Die("fork");
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      Burn(depth);
    }
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

base::UniqueFd OpenTicks(pid_t pid, int hz, int program_fd) {
  perf_event_attr attr{};
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.freq = 1;
  attr.sample_freq = static_cast<uint64_t>(hz);
  attr.disabled = 1;
  base::UniqueFd fd(
      static_cast<int>(::syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!fd.valid()) Die("perf_event_open");
  if (::ioctl(fd.get(), PERF_EVENT_IOC_SET_BPF, program_fd) != 0) Die("attach");
  if (::ioctl(fd.get(), PERF_EVENT_IOC_ENABLE, 0) != 0) Die("enable");
  return fd;
}

struct RunCost {
  uint64_t time_ns = 0;
  uint64_t count = 0;
};

RunCost ReadCost(int program_fd) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  if (bpf_obj_get_info_by_fd(program_fd, &info, &size) != 0) Die("program info");
  return {.time_ns = info.run_time_ns, .count = info.run_cnt};
}

double MeasureOnce(pid_t pid, int hz, int program_fd, double seconds) {
  const RunCost before = ReadCost(program_fd);
  {
    const base::UniqueFd ticks = OpenTicks(pid, hz, program_fd);
    Sleep(seconds);
  }
  const RunCost after = ReadCost(program_fd);
  const uint64_t count = after.count - before.count;
  return count == 0
             ? 0
             : static_cast<double>(after.time_ns - before.time_ns) / static_cast<double>(count);
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--rounds" && i + 1 < argc) {
      options.rounds = std::max(1, std::atoi(argv[++i]));
    } else if (name == "--seconds" && i + 1 < argc) {
      options.seconds = std::max(0.1, std::atof(argv[++i]));
    } else {
      fmt::print(stderr, "usage: walk_bench [--rounds N] [--seconds S]\n");
      std::exit(2);
    }
  }
  return options;
}

agent::BpfSkeleton<cpu_bpf> LoadOurs() {
  agent::BpfSkeleton<cpu_bpf> ours(cpu_bpf::open());
  if (!ours) Die("open our programs");
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, ours->obj) {
    bpf_program__set_autoload(program, program == ours->progs.tick);
  }
  // The filter is on, as in `firewatch record --pid`: its cost is part of ours.
  ours->rodata->filter_by_pid = true;
  // Frame pointers against frame pointers; tables are measured by tests/bench/unwind.py.
  ours->rodata->use_tables = false;
  if (cpu_bpf::load(ours.get()) != 0) Die("load our programs");
  return ours;
}

int ReadSample(void*, void*, size_t) { return 0; }

void Run(const Options& options) {
  const base::UniqueFd stats(bpf_enable_stats(BPF_STATS_RUN_TIME));
  if (!stats.valid()) Die("BPF_ENABLE_STATS");
  const agent::BpfSkeleton<cpu_bpf> ours = LoadOurs();
  const agent::BpfSkeleton<peer_bpf> peer(peer_bpf::open_and_load());
  if (!peer) Die("load the peer");
  const agent::BpfRingBuffer ring(
      ring_buffer__new(bpf_map__fd(ours->maps.samples), ReadSample, nullptr, nullptr));
  const int our_fd = bpf_program__fd(ours->progs.tick);
  const int peer_fd = bpf_program__fd(peer->progs.peer_tick);

  fmt::print("{:>6} {:>6} {:>12} {:>16} {:>7}\n", "depth", "hz", "ours ns", "get_stackid ns",
             "ratio");
  for (const int depth : kDepths) {
    const Child child(depth);
    const auto pid = static_cast<uint32_t>(child.pid());
    const uint64_t any_start = 0;
    bpf_map__update_elem(ours->maps.wanted_pids, &pid, sizeof(pid), &any_start, sizeof(any_start),
                         BPF_ANY);
    for (const int hz : kRates) {
      std::vector<double> our_ns, peer_ns;
      for (int round = 0; round < options.rounds; ++round) {
        our_ns.push_back(MeasureOnce(child.pid(), hz, our_fd, options.seconds));
        ring_buffer__consume(ring.get());
        peer_ns.push_back(MeasureOnce(child.pid(), hz, peer_fd, options.seconds));
      }
      fmt::print("{:>6} {:>6} {:>12.0f} {:>16.0f} {:>7.2f}\n", depth, hz, Median(our_ns),
                 Median(peer_ns), Median(our_ns) / Median(peer_ns));
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace firewatch::bench

int main(int argc, char** argv) {
  firewatch::bench::Run(firewatch::bench::ParseOptions(argc, argv));
  return 0;
}
