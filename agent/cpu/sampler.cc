// SPDX-License-Identifier: Apache-2.0
// Load -> fork programs -> filter -> ring -> ticks. The
// order matters at both ends: the filter follows forks before it is filled from /proc, and a stop
// silences the ticks before it drains.
#include "agent/cpu/sampler.h"

#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <map>
#include <optional>
#include <utility>

#include "agent/cpu/bpf_handles.h"
#include "agent/cpu/bpf_table_memory.h"
#include "agent/cpu/cgroup_path.h"
#include "agent/cpu/cpu_list.h"
#include "agent/cpu/perf_event.h"
#include "agent/cpu/process_tree.h"
#include "agent/cpu/sampler_metrics.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status.h"
#include "bpf/cpu.skel.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kMinRingBytes = 256 * 1024;
constexpr uint32_t kMaxRingBytes = 16 * 1024 * 1024;
constexpr uint32_t kBytesPerSample = 1024;  // 59 user frames take 536, a deep kernel stack as much
constexpr uint32_t kRingSeconds = 4;        // a reader that is late by that much loses nothing
constexpr uint32_t kWakeFraction = 4;       // wake when a quarter of the ring waits
constexpr uint32_t kCopyFraction = 2;       // copies of stacks while less than half waits
constexpr size_t kMaxCgroups = 64;          // MAX_WANTED_CGROUPS in bpf/filter.h
constexpr uint64_t kLossesPeriodNs = 1'000'000'000;
// A system call for each program, and nobody looks more often.
constexpr uint64_t kStatsPeriodNs = 10'000'000'000;
constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;  // PROC_PID_INIT_INO, linux/proc_ns.h
// Two rounds catch the child of a process that the first one had not added yet.
constexpr int kMaxDescendantRounds = 8;

uint32_t RingBytes(const SamplerOptions& options, size_t cpu_count) {
  if (options.ring_bytes != 0) return options.ring_bytes;
  const uint64_t wanted = uint64_t{options.hz} * cpu_count * kBytesPerSample * kRingSeconds;
  return static_cast<uint32_t>(
      std::bit_ceil(std::clamp<uint64_t>(wanted, kMinRingBytes, kMaxRingBytes)));
}

// 0 for the initial namespace, and where /proc does not tell.
uint32_t PidNamespace() {
  struct stat info{};
  if (::stat("/proc/self/ns/pid", &info) != 0 || info.st_ino == kInitialPidNamespace) return 0;
  return static_cast<uint32_t>(info.st_ino);
}

absl::Status CheckOptions(const SamplerOptions& options) {
  if (options.hz < 1 || options.hz > 999) {
    return base::InvalidArgument("sampling rate {} Hz: must be 1 to 999", options.hz);
  }
  const auto page = static_cast<uint32_t>(::getpagesize());
  if (options.ring_bytes != 0 &&
      (!std::has_single_bit(options.ring_bytes) || options.ring_bytes < page)) {
    return base::InvalidArgument("ring of {} bytes: must be a power of two and a page or more",
                                 options.ring_bytes);
  }
  if (options.cgroups.size() > kMaxCgroups) {
    return base::InvalidArgument("{} cgroups: at most {} can be filtered for",
                                 options.cgroups.size(), kMaxCgroups);
  }
  return absl::OkStatus();
}

absl::Status LoadError(int error, const LibbpfLog& log) {
  const absl::Status status = base::ErrnoStatus(error, "load the BPF sampler");
  if (error == EPERM) {  // EACCES is what the verifier says
    return base::PermissionDenied(
        "{} (needs root, or CAP_BPF and CAP_PERFMON; before Linux 5.8 CAP_SYS_ADMIN)",
        base::Message(status));
  }
  if (::access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
    return base::FailedPrecondition(
        "{} (this kernel gives no type information in /sys/kernel/btf/vmlinux: "
        "CONFIG_DEBUG_INFO_BTF is needed)",
        base::Message(status));
  }
  spdlog::warn("BPF sampler refused by the kernel:\n{}", log.warnings());
  return status;
}

}  // namespace

// Destruction runs upwards: ring, ticks, links, skeleton.
struct Sampler::Impl {
  Impl(const SamplerOptions& given, base::MetricsRegistry& registry)
      : options(given), metrics(registry) {}

  absl::Status Load(const std::vector<base::UniqueFd>& cgroups, size_t cpus);
  absl::Status FollowForks();
  absl::Status AddPids(const std::vector<Pid>& roots);
  absl::Status OpenRing();
  absl::Status OpenWaitSet();
  absl::Status OpenTables();
  absl::Status OpenTick(uint32_t cpu);
  absl::Status UpdateTicks();
  void FollowCpuChanges();
  void RefreshMetrics();
  size_t Consume(SampleCallback callback);
  static int OnRecord(void* context, void* data, size_t size);

  SamplerOptions options;  // but for hz as it was opened with
  bool hardware_cycles = false;

  BpfSkeleton<cpu_bpf> skeleton;
  std::unique_ptr<BpfTableMemory> tables;
  std::vector<BpfLink> links;
  std::map<uint32_t, base::UniqueFd> ticks;  // perf events by CPU, each holds the program
  BpfRingBuffer ring;
  std::optional<CpuWatch> cpu_watch;
  base::UniqueFd wait_set;

  SamplerMetrics metrics;
  base::SystemClock clock;
  uint64_t losses_refreshed_ns = 0;
  uint64_t stats_refreshed_ns = 0;
  std::vector<std::pair<std::string, uint64_t>> map_sizes;  // they keep them: read once
  bool stopped = false;
  SampleCallback* callback = nullptr;  // during Consume
  size_t consumed = 0;
  uint64_t malformed = 0;
};

absl::Status Sampler::Impl::Load(const std::vector<base::UniqueFd>& cgroups, size_t cpus) {
  const LibbpfLog log;
  skeleton.reset(cpu_bpf::open());
  if (!skeleton) return LoadError(errno, log);
  const bool by_pid = !options.pids.empty();
  bpf_program__set_autoload(skeleton->progs.test_tick, false);
  bpf_program__set_autoload(skeleton->progs.on_fork, by_pid);
  bpf_program__set_autoload(skeleton->progs.on_free, by_pid);

  auto* settings = skeleton->rodata;
  const uint32_t ring_bytes = RingBytes(options, cpus);
  settings->filter_by_pid = by_pid;
  settings->wanted_cgroup_count = static_cast<uint32_t>(cgroups.size());
  settings->excluded_pid = options.exclude_self ? static_cast<uint32_t>(::getpid()) : 0;
  settings->pid_namespace = PidNamespace();
  settings->use_tables = options.use_tables;
  settings->wake_backlog_bytes = ring_bytes / kWakeFraction;
  settings->copy_backlog_bytes = ring_bytes / kCopyFraction;
  settings->wake_interval_ns = options.wake_interval_ns;
  bpf_map__set_max_entries(skeleton->maps.samples, ring_bytes);
  if (!by_pid) bpf_map__set_max_entries(skeleton->maps.wanted_pids, 1);
  bpf_map__set_max_entries(skeleton->maps.wanted_cgroups,
                           static_cast<uint32_t>(std::max<size_t>(cgroups.size(), 1)));
  if (const int error = cpu_bpf::load(skeleton.get()); error != 0) return LoadError(-error, log);
  for (uint32_t slot = 0; slot < cgroups.size(); ++slot) {
    const int fd = cgroups[slot].get();
    if (bpf_map__update_elem(skeleton->maps.wanted_cgroups, &slot, sizeof(slot), &fd, sizeof(fd),
                             BPF_ANY) != 0) {
      return base::ErrnoStatus(errno, "fill the filter by cgroup");
    }
  }
  return absl::OkStatus();
}

absl::Status Sampler::Impl::FollowForks() {
  for (bpf_program* program : {skeleton->progs.on_fork, skeleton->progs.on_free}) {
    links.emplace_back(bpf_program__attach(program));
    if (!links.back()) {
      return base::ErrnoStatus(errno, fmt::format("attach {}", bpf_program__name(program)));
    }
  }
  return absl::OkStatus();
}

absl::Status Sampler::Impl::AddPids(const std::vector<Pid>& roots) {
  size_t known = 0;
  for (int round = 0; round < kMaxDescendantRounds; ++round) {
    const std::vector<Pid> pids = LivingDescendants(roots);
    for (const Pid pid : pids) {
      const uint64_t any_start = 0;
      if (bpf_map__update_elem(skeleton->maps.wanted_pids, &pid, sizeof(pid), &any_start,
                               sizeof(any_start), BPF_NOEXIST) != 0 &&
          errno != EEXIST) {
        return base::ErrnoStatus(errno, "fill the filter by process");
      }
    }
    if (pids.size() <= known) break;
    known = pids.size();
  }
  return absl::OkStatus();
}

absl::Status Sampler::Impl::OpenRing() {
  ring.reset(ring_buffer__new(bpf_map__fd(skeleton->maps.samples), OnRecord, this, nullptr));
  if (!ring) return base::ErrnoStatus(errno, "map the sample ring");
  return absl::OkStatus();
}

absl::Status Sampler::Impl::OpenTables() {
  ASSIGN_OR_RETURN(tables,
                   BpfTableMemory::Open({.tables = bpf_map__fd(skeleton->maps.tables),
                                         .slabs = bpf_map__fd(skeleton->maps.slabs),
                                         .known_files = bpf_map__fd(skeleton->maps.known_files),
                                         .generation = &skeleton->bss->known_files_generation}));
  return absl::OkStatus();
}

absl::Status Sampler::Impl::OpenWaitSet() {
  ASSIGN_OR_RETURN(cpu_watch, CpuWatch::Open());
  wait_set.Reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!wait_set.valid()) return base::ErrnoStatus(errno, "epoll_create1");
  for (const int fd : {ring_buffer__epoll_fd(ring.get()), cpu_watch->fd()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(wait_set.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return base::ErrnoStatus(errno, "epoll_ctl");
    }
  }
  return absl::OkStatus();
}

absl::Status Sampler::Impl::OpenTick(uint32_t cpu) {
  perf_event_attr attr{};
  attr.type = hardware_cycles ? PERF_TYPE_HARDWARE : PERF_TYPE_SOFTWARE;
  attr.config = hardware_cycles ? static_cast<uint64_t>(PERF_COUNT_HW_CPU_CYCLES)
                                : static_cast<uint64_t>(PERF_COUNT_SW_CPU_CLOCK);
  attr.freq = 1;
  attr.sample_freq = options.hz;
  attr.exclude_idle = 1;
  attr.disabled = 1;
  auto opened = OpenPerfEvent(attr, -1, static_cast<int>(cpu));
  if (absl::IsInvalidArgument(opened.status())) {
    return base::InvalidArgument("{} (is kernel.perf_event_max_sample_rate below {}?)",
                                 base::Message(opened.status()), options.hz);
  }
  ASSIGN_OR_RETURN(base::UniqueFd tick, std::move(opened));
  if (::ioctl(tick.get(), PERF_EVENT_IOC_SET_BPF, bpf_program__fd(skeleton->progs.tick)) != 0 ||
      ::ioctl(tick.get(), PERF_EVENT_IOC_ENABLE, 0) != 0) {
    return base::ErrnoStatus(errno, fmt::format("attach the sampler to CPU {}", cpu));
  }
  ticks.insert_or_assign(cpu, std::move(tick));
  return absl::OkStatus();
}

// Makes `ticks` equal to the list of online CPUs. A CPU that goes away meanwhile (ENODEV, ENXIO) is
// no error; the last error is returned when no CPU could be opened at all.
absl::Status Sampler::Impl::UpdateTicks() {
  ASSIGN_OR_RETURN(const std::vector<uint32_t> online, ReadCpuList(options.online_cpus_path));
  const size_t gone = std::erase_if(ticks, [&](const auto& tick) {
    return !std::binary_search(online.begin(), online.end(), tick.first);
  });
  metrics.AddCpuChanges(gone);
  absl::Status error = absl::OkStatus();
  for (const uint32_t cpu : online) {
    if (ticks.contains(cpu)) continue;
    if (absl::Status status = OpenTick(cpu); status.ok()) {
      metrics.AddCpuChanges(1);
    } else {
      error = std::move(status);
    }
  }
  metrics.SetCpuCount(ticks.size());
  if (!error.ok()) spdlog::warn("{}", base::Message(error));
  return ticks.empty() ? error : absl::OkStatus();
}

void Sampler::Impl::FollowCpuChanges() {
  const CpuWatch::Changes changes = cpu_watch->Read();
  if (!changes.maybe_changed || stopped) return;
  // The events of a CPU that was away are dead, even if it is back.
  for (const uint32_t cpu : changes.touched) ticks.erase(cpu);
  if (const absl::Status status = UpdateTicks(); !status.ok()) {
    spdlog::error("no CPU is being sampled: {}", base::Message(status));
  }
}

int Sampler::Impl::OnRecord(void* context, void* data, size_t size) {
  auto* self = static_cast<Impl*>(context);
  const auto sample = ParseSample({static_cast<const std::byte*>(data), size});
  ++self->consumed;
  if (sample.ok()) {
    (*self->callback)(*sample);
  } else {
    ++self->malformed;
  }
  return 0;
}

size_t Sampler::Impl::Consume(SampleCallback given) {
  callback = &given;
  consumed = 0;
  if (const int result = ring_buffer__consume(ring.get()); result < 0) {
    spdlog::error("read the sample ring: {}", base::Message(base::ErrnoStatus(-result, "consume")));
  }
  callback = nullptr;
  metrics.AddSamples(consumed);
  return consumed;
}

Sampler::Sampler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Sampler::~Sampler() = default;

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Open(const SamplerOptions& options,
                                                       base::MetricsRegistry& metrics) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::vector<base::UniqueFd> cgroups;
  for (const std::string& path : options.cgroups) {
    ASSIGN_OR_RETURN(cgroups.emplace_back(), OpenCgroup(path));
  }
  ASSIGN_OR_RETURN(const std::vector<uint32_t> online, ReadCpuList(options.online_cpus_path));
  auto impl = std::make_unique<Impl>(options, metrics);
  RETURN_IF_ERROR(impl->Load(cgroups, online.size()));
  if (!options.pids.empty()) {
    RETURN_IF_ERROR(impl->FollowForks());
    RETURN_IF_ERROR(impl->AddPids(options.pids));
  }
  RETURN_IF_ERROR(impl->OpenRing());
  RETURN_IF_ERROR(impl->OpenTables());
  RETURN_IF_ERROR(impl->OpenWaitSet());
  impl->hardware_cycles = !options.prefer_cpu_clock && HasHardwareCycles();
  RETURN_IF_ERROR(impl->UpdateTicks());
  impl->map_sizes = ReadMapSizes(impl->skeleton->obj);
  std::unique_ptr<Sampler> sampler(new Sampler(std::move(impl)));
  sampler->impl_->metrics.SetMapBytes(sampler->map_bytes());
  return sampler;
}

int Sampler::WaitFd() const { return impl_->wait_set.get(); }

size_t Sampler::Drain(SampleCallback callback) {
  impl_->FollowCpuChanges();
  const size_t count = impl_->Consume(callback);
  const uint64_t now_ns = impl_->clock.MonotonicNs();
  if (now_ns - impl_->losses_refreshed_ns >= kLossesPeriodNs) {
    impl_->losses_refreshed_ns = now_ns;
    const bool stats = now_ns - impl_->stats_refreshed_ns >= kStatsPeriodNs;
    if (stats) impl_->stats_refreshed_ns = now_ns;
    impl_->metrics.Refresh(Losses(), stats ? ProgramStats() : std::vector<BpfProgramStats>());
  }
  return count;
}

size_t Sampler::Stop(SampleCallback callback) {
  impl_->stopped = true;
  // Waits for a tick that is running: when the last ioctl returns, the ring has everything.
  for (const auto& [cpu, tick] : impl_->ticks) ::ioctl(tick.get(), PERF_EVENT_IOC_DISABLE, 0);
  const size_t count = impl_->Consume(callback);
  impl_->metrics.Refresh(Losses(), ProgramStats());
  return count;
}

absl::Status Sampler::SetHz(uint32_t hz, SampleCallback callback) {
  if (hz < 1 || hz > 999) {
    return base::InvalidArgument("sampling rate {} Hz: must be 1 to 999", hz);
  }
  // As in Stop: when the last ioctl returns, the ring has everything of the old rate.
  for (const auto& [cpu, tick] : impl_->ticks) ::ioctl(tick.get(), PERF_EVENT_IOC_DISABLE, 0);
  impl_->Consume(callback);
  const uint32_t before = impl_->options.hz;
  impl_->options.hz = hz;
  absl::Status status = absl::OkStatus();
  for (const auto& [cpu, tick] : std::exchange(impl_->ticks, {})) {
    if (absl::Status opened = impl_->OpenTick(cpu); !opened.ok()) status = std::move(opened);
  }
  if (status.ok()) return status;
  impl_->options.hz = before;
  impl_->ticks.clear();
  if (const absl::Status again = impl_->UpdateTicks(); !again.ok()) return again;
  return status;
}

absl::Status Sampler::Follow(Pid pid) {
  if (impl_->options.pids.empty()) {
    return base::FailedPrecondition("follow pid {}: the sampler takes every process",
                                    static_cast<uint32_t>(pid));
  }
  return impl_->AddPids({pid});
}

void Sampler::FollowCpus() {
  if (const absl::Status status = impl_->UpdateTicks(); !status.ok()) {
    spdlog::error("follow CPUs: {}", base::Message(status));
  }
}

std::array<uint64_t, FW_LOSS_COUNT> Sampler::Losses() const {
  std::array<uint64_t, FW_LOSS_COUNT> total{};
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) return total;
  std::vector<std::array<uint64_t, FW_LOSS_COUNT>> per_cpu(static_cast<size_t>(cpus));
  const uint32_t key = 0;
  if (bpf_map__lookup_elem(impl_->skeleton->maps.losses, &key, sizeof(key), per_cpu.data(),
                           per_cpu.size() * sizeof(per_cpu[0]), 0) == 0) {
    for (const auto& counts : per_cpu) {
      for (size_t i = 0; i < total.size(); ++i) total[i] += counts[i];
    }
  }
  total[FW_LOSS_RECORD_MALFORMED] += impl_->malformed;
  return total;
}

uint32_t Sampler::hz() const { return impl_->options.hz; }
bool Sampler::hardware_cycles() const { return impl_->hardware_cycles; }
size_t Sampler::cpu_count() const { return impl_->ticks.size(); }
uint64_t Sampler::map_bytes() const {
  uint64_t total = 0;
  for (const auto& [name, bytes] : impl_->map_sizes) total += bytes;
  return total;
}
TableMemory* Sampler::table_memory() { return impl_->tables.get(); }
std::vector<std::pair<std::string, uint64_t>> Sampler::MapSizes() const { return impl_->map_sizes; }
std::vector<int> Sampler::ProgramFds() const {
  std::vector<int> fds;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, impl_->skeleton->obj) {
    if (const int fd = bpf_program__fd(program); fd >= 0) fds.push_back(fd);
  }
  return fds;
}
std::vector<BpfProgramStats> Sampler::ProgramStats() const {
  return ReadProgramStats(impl_->skeleton->obj);
}

}  // namespace firewatch::agent
