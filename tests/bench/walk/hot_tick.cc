// SPDX-License-Identifier: Apache-2.0
// hot_tick: nanoseconds per run of a perf_event program on one process, at a rate of your choice.
//
//   hot_tick --pid P [--program ID] [--hz N] [--seconds S]
//
// ID is a program that another process has loaded (firewatch record); without it the peer,
// bpf_get_stackid, is loaded and measured. The sampler itself opens events per CPU and no faster
// than 999 Hz; this opens one event on the process. Prints "NS RUNS" by the kernel's own count,
// which the caller has switched on (kernel.bpf_stats_enabled or BPF_ENABLE_STATS).
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "agent/core/bpf_handles.h"
#include "base/unique_fd.h"
#include "bpf/peer.skel.h"

namespace firewatch::bench {
namespace {

struct Options {
  pid_t pid = 0;
  uint32_t program = 0;
  uint64_t hz = 997;
  double seconds = 1;
};

[[noreturn]] void Die(std::string_view what) {
  fmt::print(stderr, "hot_tick: {}: {}\n", what, std::strerror(errno));
  std::exit(1);
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--pid") options.pid = std::atoi(value);
    if (name == "--program") options.program = static_cast<uint32_t>(std::atoi(value));
    if (name == "--hz") options.hz = static_cast<uint64_t>(std::atoll(value));
    if (name == "--seconds") options.seconds = std::atof(value);
  }
  if (options.pid <= 0) {
    fmt::print(stderr, "usage: hot_tick --pid P [--program ID] [--hz N] [--seconds S]\n");
    std::exit(2);
  }
  return options;
}

base::UniqueFd OpenTicks(const Options& options, int program_fd) {
  perf_event_attr attr{};
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.freq = 1;
  attr.sample_freq = options.hz;
  attr.disabled = 1;
  base::UniqueFd fd(static_cast<int>(
      ::syscall(SYS_perf_event_open, &attr, options.pid, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!fd.valid()) Die("perf_event_open");
  if (::ioctl(fd.get(), PERF_EVENT_IOC_SET_BPF, program_fd) != 0) Die("attach");
  if (::ioctl(fd.get(), PERF_EVENT_IOC_ENABLE, 0) != 0) Die("enable");
  return fd;
}

bpf_prog_info InfoOf(int program_fd) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  if (bpf_obj_get_info_by_fd(program_fd, &info, &size) != 0) Die("program info");
  return info;
}

void Run(const Options& options) {
  agent::BpfSkeleton<peer_bpf> peer;
  base::UniqueFd theirs;
  int program_fd = -1;
  if (options.program == 0) {
    peer.reset(peer_bpf::open_and_load());
    if (!peer) Die("load the peer");
    program_fd = bpf_program__fd(peer->progs.peer_tick);
  } else {
    theirs.Reset(bpf_prog_get_fd_by_id(options.program));
    if (!theirs.valid()) Die("program by id");
    program_fd = theirs.get();
  }
  const base::UniqueFd ticks = OpenTicks(options, program_fd);
  ::usleep(200'000);  // the first runs find nothing in the caches
  const bpf_prog_info before = InfoOf(program_fd);
  ::usleep(static_cast<useconds_t>(options.seconds * 1e6));
  const bpf_prog_info after = InfoOf(program_fd);
  const uint64_t runs = after.run_cnt - before.run_cnt;
  fmt::print("{:.0f} {}\n",
             runs == 0 ? 0.0
                       : static_cast<double>(after.run_time_ns - before.run_time_ns) /
                             static_cast<double>(runs),
             runs);
}

}  // namespace
}  // namespace firewatch::bench

int main(int argc, char** argv) {
  firewatch::bench::Run(firewatch::bench::ParseOptions(argc, argv));
  return 0;
}
