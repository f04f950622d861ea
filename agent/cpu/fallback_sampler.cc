// SPDX-License-Identifier: Apache-2.0
// Rings first, one per CPU, owned by an event that counts nothing and never ends; then the sampling
// events, which write into them. Samples and process events share the rings, so that their order is
// that of their times: the oldest record over all rings is always next.
#include "agent/cpu/fallback_sampler.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "agent/core/losses.h"
#include "agent/cpu/cpu_list.h"
#include "agent/cpu/fallback_record.h"
#include "agent/cpu/fallback_unwinder.h"
#include "agent/cpu/perf_event.h"
#include "agent/cpu/perf_ring.h"
#include "agent/cpu/process_tree.h"
#include "agent/cpu/sample_builder.h"
#include "agent/cpu/sampler_metrics.h"
#include "agent/cpu/sideband_record.h"
#include "agent/cpu/thread_counts.h"
#include "agent/cpu/thread_names.h"
#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kMinStackBytes = 1024;
constexpr uint32_t kMaxStackBytes = 65'528;  // a record's size has 16 bits
// All rings together, and each. At 99 Hz with 16 KiB of stack 4 MiB hold 2.5 seconds of a CPU.
constexpr size_t kAllRingsBytes = size_t{16} << 20;
constexpr size_t kMaxRingBytes = size_t{4} << 20;
constexpr size_t kMinRingBytes = size_t{128} << 10;
// Processes come and go: their files are opened while they live, so samples must not wait long.
constexpr uint64_t kDrainPeriodNs = 250'000'000;
constexpr uint64_t kScanPeriodNs = 1'000'000'000;

uint32_t Raw(Pid pid) { return static_cast<uint32_t>(pid); }

std::vector<uint32_t> NumbersIn(const std::string& directory_path) {
  std::vector<uint32_t> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(directory_path.c_str()),
                                                      ::closedir);
  if (!directory) return out;
  while (const dirent* entry = ::readdir(directory.get())) {
    uint32_t number = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (std::from_chars(entry->d_name, end, number).ptr == end) out.push_back(number);
  }
  return out;
}

// Processes of this user, this one included.
std::vector<Pid> OwnProcesses() {
  std::vector<Pid> out;
  for (const uint32_t pid : NumbersIn("/proc")) {
    struct stat info{};
    if (::stat(fmt::format("/proc/{}", pid).c_str(), &info) == 0 && info.st_uid == ::geteuid()) {
      out.push_back(Pid{pid});
    }
  }
  return out;
}

struct CpuRing {
  uint32_t cpu = 0;
  base::UniqueFd owner;
  PerfRing ring;
  uint64_t front_ns = 0;  // time of the oldest record; 0: none looked at
};

// FORK, EXIT and every record with a sample_id end with a time; samples begin with one.
uint64_t TimeOf(std::span<const std::byte> record) {
  perf_event_header header;
  std::memcpy(&header, record.data(), sizeof(header));
  uint64_t time = 0;
  // header, IP, TID | time …; … | TID, time, CPU
  const size_t at = header.type == PERF_RECORD_SAMPLE ? 24 : record.size() - 16;
  if (record.size() >= 32) std::memcpy(&time, record.data() + at, sizeof(time));
  return std::max<uint64_t>(time, 1);
}

}  // namespace

struct FallbackSampler::Impl {
  Impl(const FallbackOptions& given, ProcessTable& process_table,
       symbolizer::Symbolizer& symbolizer, base::MetricsRegistry& registry)
      : options(given), table(process_table), unwinder(symbolizer), metrics(registry) {
    for (size_t i = 0; i < loss_counters.size(); ++i) {
      loss_counters[i] = &LossCounter(registry, static_cast<fw_loss>(i));
    }
  }

  enum class Scope { kMachine, kProcesses, kOwn };

  absl::Status Start();
  absl::Status OpenRings();
  absl::StatusOr<std::vector<CpuRing>> OpenRingsOf(size_t bytes,
                                                   const std::vector<uint32_t>& online);
  absl::Status OpenMachine();
  absl::Status Attach(Pid pid);
  absl::Status AttachThread(uint32_t tid);
  absl::Status AttachOwn();
  void FindNewOwn();
  void CloseEnded();
  perf_event_attr SampleAttributes() const;

  size_t Consume(uint64_t until_ns, SampleCallback callback);
  void LoadFront(CpuRing& ring);
  void OnEvent(std::span<const std::byte> bytes);
  bool OnSample(std::span<const std::byte> bytes, SampleCallback callback);
  void AddKernelFrames(std::span<const std::byte> call_chain);
  void Lose(fw_loss loss, uint64_t count = 1) {
    losses[loss] += count;
    loss_counters[loss]->Add(count);
  }

  FallbackOptions options;  // but for its rate as it was opened with
  ProcessTable& table;
  Scope scope = Scope::kMachine;
  bool with_kernel = true;
  bool hardware_cycles = false;
  size_t bytes_per_ring = 0;

  base::UniqueFd wait_set;
  base::UniqueFd timer;
  std::vector<CpuRing> rings;
  std::vector<base::UniqueFd> events;
  size_t max_events = 0;
  bool full_said = false;
  absl::flat_hash_set<uint32_t> followed;    // pids that events sample
  absl::flat_hash_set<uint32_t> candidates;  // own, unknown at the last scan
  uint64_t scanned_ns = 0;
  bool stopped = false;

  StackUnwinder unwinder;
  ThreadCounts threads;
  ThreadNames names;
  SampleBuilder builder;
  EventSink sink;
  SamplerMetrics metrics;
  base::SystemClock clock;
  std::array<uint64_t, FW_LOSS_COUNT> losses{};
  std::array<base::Counter*, FW_LOSS_COUNT> loss_counters{};
};

// ---- opening
// -------------------------------------------------------------------------------------

perf_event_attr FallbackSampler::Impl::SampleAttributes() const {
  perf_event_attr attr{};
  attr.type = hardware_cycles ? PERF_TYPE_HARDWARE : PERF_TYPE_SOFTWARE;
  attr.config = hardware_cycles ? static_cast<uint64_t>(PERF_COUNT_HW_CPU_CYCLES)
                                : static_cast<uint64_t>(PERF_COUNT_SW_CPU_CLOCK);
  attr.freq = 1;
  attr.sample_freq = options.sampler.hz;
  attr.sample_type = kFallbackSampleType;
  attr.sample_regs_user = kFallbackRegisters;
  attr.sample_stack_user = options.stack_bytes;
  attr.exclude_callchain_user = 1;
  attr.exclude_kernel = with_kernel ? 0 : 1;
  attr.exclude_callchain_kernel = with_kernel ? 0 : 1;
  attr.exclude_hv = 1;
  attr.exclude_idle = 1;
  attr.sample_id_all = 1;
  attr.mmap = 1;
  attr.mmap2 = 1;
  attr.comm = 1;
  attr.comm_exec = 1;
  attr.task = 1;
  attr.inherit = scope == Scope::kMachine ? 0 : 1;
  attr.use_clockid = 1;
  attr.clockid = CLOCK_MONOTONIC;
  attr.watermark = 1;
  attr.wakeup_watermark = static_cast<uint32_t>(bytes_per_ring / 4);
  return attr;
}

absl::StatusOr<std::vector<CpuRing>> FallbackSampler::Impl::OpenRingsOf(
    size_t bytes, const std::vector<uint32_t>& online) {
  bytes_per_ring = bytes;
  perf_event_attr attr{};
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_DUMMY;
  attr.exclude_kernel = 1;
  attr.exclude_hv = 1;
  attr.sample_type = kSideBandSampleType;
  attr.sample_id_all = 1;
  attr.use_clockid = 1;
  attr.clockid = CLOCK_MONOTONIC;
  attr.watermark = 1;
  attr.wakeup_watermark = static_cast<uint32_t>(bytes / 4);
  std::vector<CpuRing> out;
  for (const uint32_t cpu : online) {
    ASSIGN_OR_RETURN(base::UniqueFd owner, OpenPerfEvent(attr, 0, static_cast<int>(cpu)));
    ASSIGN_OR_RETURN(PerfRing ring, PerfRing::Map(owner.get(), bytes));
    out.push_back({.cpu = cpu, .owner = std::move(owner), .ring = std::move(ring)});
  }
  return out;
}

// As large as the limit on locked memory allows (kernel.perf_event_mlock_kb for ordinary users).
absl::Status FallbackSampler::Impl::OpenRings() {
  ASSIGN_OR_RETURN(const std::vector<uint32_t> online,
                   ReadCpuList(options.sampler.online_cpus_path));
  const size_t least = std::max(kMinRingBytes, std::bit_ceil(size_t{4} * options.stack_bytes));
  size_t bytes = std::clamp(std::bit_floor(kAllRingsBytes / online.size()), least, kMaxRingBytes);
  if (options.sampler.ring_bytes != 0) bytes = options.sampler.ring_bytes;
  for (;; bytes /= 2) {
    auto opened = OpenRingsOf(bytes, online);
    if (opened.ok()) {
      rings = *std::move(opened);
      break;
    }
    if (bytes / 2 < least || options.sampler.ring_bytes != 0) return opened.status();
  }
  wait_set.Reset(::epoll_create1(EPOLL_CLOEXEC));
  timer.Reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!wait_set.valid() || !timer.valid()) return base::ErrnoStatus(errno, "epoll_create1");
  itimerspec spec{};
  spec.it_value.tv_nsec = static_cast<long>(kDrainPeriodNs);
  spec.it_interval = spec.it_value;
  ::timerfd_settime(timer.get(), 0, &spec, nullptr);
  std::vector<int> waits = {timer.get()};
  for (const CpuRing& ring : rings) waits.push_back(ring.owner.get());
  for (const int fd : waits) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(wait_set.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return base::ErrnoStatus(errno, "epoll_ctl");
    }
  }
  return absl::OkStatus();
}

absl::Status FallbackSampler::Impl::OpenMachine() {
  for (const CpuRing& ring : rings) {
    ASSIGN_OR_RETURN(base::UniqueFd event,
                     OpenPerfEvent(SampleAttributes(), -1, static_cast<int>(ring.cpu)));
    if (::ioctl(event.get(), PERF_EVENT_IOC_SET_OUTPUT, ring.owner.get()) != 0) {
      return base::ErrnoStatus(errno, "join a perf ring");
    }
    events.push_back(std::move(event));
  }
  return absl::OkStatus();
}

// Gives back the events of threads that have ended, together with all that inherited them: else
// the processes of some days use up all descriptors, and later ones are not sampled.
void FallbackSampler::Impl::CloseEnded() {
  std::vector<pollfd> waits;
  for (const base::UniqueFd& event : events) waits.push_back({.fd = event.get(), .events = 0});
  if (::poll(waits.data(), waits.size(), 0) <= 0) return;
  size_t i = 0;
  std::erase_if(events, [&](const base::UniqueFd&) { return (waits[i++].revents & POLLHUP) != 0; });
}

absl::Status FallbackSampler::Impl::AttachThread(uint32_t tid) {
  if (events.size() + rings.size() > max_events) CloseEnded();
  if (events.size() + rings.size() > max_events) {
    if (!full_said) spdlog::warn("no descriptors left: further processes are not sampled");
    full_said = true;
    Lose(FW_LOSS_FILTER_FULL);
    return absl::OkStatus();
  }
  for (const CpuRing& ring : rings) {
    auto event =
        OpenPerfEvent(SampleAttributes(), static_cast<pid_t>(tid), static_cast<int>(ring.cpu));
    if (absl::IsPermissionDenied(event.status()) && with_kernel) {
      // perf_event_paranoid 2: user mode only, or not at all.
      with_kernel = false;
      event =
          OpenPerfEvent(SampleAttributes(), static_cast<pid_t>(tid), static_cast<int>(ring.cpu));
      if (!event.ok()) with_kernel = true;
    }
    RETURN_IF_ERROR(event.status());
    if (::ioctl(event->get(), PERF_EVENT_IOC_SET_OUTPUT, ring.owner.get()) != 0) {
      return base::ErrnoStatus(errno, "join a perf ring");
    }
    events.push_back(*std::move(event));
  }
  return absl::OkStatus();
}

// All its threads; those that come later inherit. Whoever is gone meanwhile is no error.
absl::Status FallbackSampler::Impl::Attach(Pid pid) {
  if (!followed.insert(Raw(pid)).second) return absl::OkStatus();
  for (const uint32_t tid : NumbersIn(fmt::format("/proc/{}/task", Raw(pid)))) {
    const absl::Status status = AttachThread(tid);
    if (!status.ok() && !absl::IsNotFound(status) && ::kill(static_cast<pid_t>(tid), 0) == 0) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status FallbackSampler::Impl::AttachOwn() {
  absl::Status error = absl::OkStatus();
  for (const Pid pid : OwnProcesses()) {
    if (options.sampler.exclude_self && Raw(pid) == static_cast<uint32_t>(::getpid())) continue;
    if (absl::Status status = Attach(pid); !status.ok()) error = std::move(status);
  }
  return events.empty() ? error : absl::OkStatus();
}

// A process that is not a child of one we follow (a login, say). It must be unknown at two scans in
// a row: one that was just born to a followed parent is announced by its fork record in between,
// and attaching to it again would count it twice.
void FallbackSampler::Impl::FindNewOwn() {
  absl::flat_hash_set<uint32_t> unknown;
  for (const Pid pid : OwnProcesses()) {
    if (followed.contains(Raw(pid)) || Raw(pid) == static_cast<uint32_t>(::getpid())) continue;
    unknown.insert(Raw(pid));
    if (candidates.contains(Raw(pid))) (void)Attach(pid);
  }
  candidates = std::move(unknown);
}

absl::Status FallbackSampler::Impl::Start() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  max_events = limit.rlim_cur / 4 * 3;
  hardware_cycles = !options.sampler.prefer_cpu_clock && HasHardwareCycles();
  RETURN_IF_ERROR(OpenRings());
  if (!options.sampler.pids.empty()) {
    scope = Scope::kProcesses;
    for (const Pid pid : LivingDescendants(options.sampler.pids)) RETURN_IF_ERROR(Attach(pid));
    if (events.empty()) return base::NotFound("none of the processes lives");
  } else if (const absl::Status machine = OpenMachine(); !machine.ok()) {
    if (!absl::IsPermissionDenied(machine)) return machine;
    events.clear();
    scope = Scope::kOwn;
    RETURN_IF_ERROR(AttachOwn());
  }
  metrics.SetCpuCount(rings.size());
  return absl::OkStatus();
}

// ---- reading
// -------------------------------------------------------------------------------------

void FallbackSampler::Impl::LoadFront(CpuRing& ring) {
  const std::span<const std::byte> front = ring.ring.Front();
  ring.front_ns = front.empty() ? 0 : TimeOf(front);
}

size_t FallbackSampler::Impl::Consume(uint64_t until_ns, SampleCallback callback) {
  size_t count = 0;
  for (CpuRing& ring : rings) LoadFront(ring);
  for (;;) {
    CpuRing* oldest = nullptr;
    for (CpuRing& ring : rings) {
      if (ring.front_ns != 0 && (oldest == nullptr || ring.front_ns < oldest->front_ns)) {
        oldest = &ring;
      }
    }
    if (oldest == nullptr || oldest->front_ns > until_ns) break;
    const std::span<const std::byte> record = oldest->ring.Front();
    perf_event_header header;
    std::memcpy(&header, record.data(), sizeof(header));
    if (header.type == PERF_RECORD_SAMPLE) {
      count += OnSample(record, callback) ? 1 : 0;
    } else {
      OnEvent(record);
    }
    oldest->ring.Pop();
    LoadFront(*oldest);
  }
  metrics.AddSamples(count);
  return count;
}

void FallbackSampler::Impl::OnEvent(std::span<const std::byte> bytes) {
  auto parsed = ParseSideBandRecord(bytes);
  if (!parsed.ok()) return Lose(FW_LOSS_RECORD_MALFORMED);
  if (!parsed->has_value()) return;
  SideBandRecord& record = **parsed;
  // What was lost are samples, nearly always: they are a thousand times as long as events.
  if (record.event.kind == ProcessEventKind::kLost) Lose(FW_LOSS_RING_FULL, record.event.lost);
  names.Apply(record.event);
  if (!threads.Apply(record)) return;
  if (record.event.kind == ProcessEventKind::kFork) followed.insert(Raw(record.event.pid));
  if (record.event.kind == ProcessEventKind::kExit) followed.erase(Raw(record.event.pid));
  if (sink) sink(record.event);
}

void FallbackSampler::Impl::AddKernelFrames(std::span<const std::byte> call_chain) {
  std::vector<fw_u64>& frames = builder.kernel_frames();
  for (size_t at = 0; at + 8 <= call_chain.size(); at += 8) {
    fw_u64 address = 0;
    std::memcpy(&address, call_chain.data() + at, sizeof(address));
    if (address >= PERF_CONTEXT_MAX) continue;  // a marker: kernel frames follow
    if (address >> FW_FRAME_KIND_SHIFT != FW_FRAME_KERNEL) continue;
    if (frames.size() == FW_MAX_KERNEL_FRAMES) {
      builder.header().flags |= FW_SAMPLE_KERNEL_TRUNCATED;
      break;
    }
    frames.push_back(address);
  }
}

bool FallbackSampler::Impl::OnSample(std::span<const std::byte> bytes, SampleCallback callback) {
  const auto parsed = ParseFallbackRecord(bytes);
  if (!parsed.ok()) {
    Lose(FW_LOSS_RECORD_MALFORMED);
    return false;
  }
  const FallbackRecord& record = *parsed;
  if (options.sampler.exclude_self && record.pid == static_cast<uint32_t>(::getpid())) return false;
  builder.Clear();
  fw_sample& header = builder.header();
  header.time_ns = record.time_ns;
  const bool visible = record.pid != 0 && record.pid != ~uint32_t{0};
  if (!visible) Lose(FW_LOSS_PID_NOT_VISIBLE);
  header.pid = visible ? record.pid : 0;
  header.tid = visible ? record.tid : 0;
  header.cpu = record.cpu;
  if (record.in_kernel) header.flags |= FW_SAMPLE_IN_KERNEL;
  AddKernelFrames(record.call_chain);
  const std::string_view comm = visible ? names.Of(Pid{header.pid}, header.tid) : "";
  builder.SetComm(comm);
  if (record.abi == RegisterAbi::kNone) {
    header.flags |= FW_SAMPLE_KERNEL_THREAD;
  } else if (record.abi == RegisterAbi::k32) {
    header.stack_end = FW_STACK_END_COMPAT;
    builder.user_frames().push_back(record.registers[ThreadState::kRip] & 0xffffffff);
  } else {
    const Process& process =
        table.ForSample(Pid{header.pid}, record.time_ns, comm, /*cgroup_id=*/0, false);
    const ThreadState thread = {.registers = record.registers,
                                .stack_start = record.registers[FW_REGISTER_RSP],
                                .stack = record.stack,
                                .stack_goes_on = record.stack_goes_on};
    const fw_stack_end end = unwinder.Unwind(process, thread, builder.user_frames());
    header.stack_end = static_cast<fw_u8>(end);
    if (end == FW_STACK_END_TRUNCATED) Lose(FW_LOSS_USER_TRUNCATED);
    if (end == FW_STACK_END_BAD_READ) Lose(FW_LOSS_USER_READ_FAILED);
  }
  callback(builder.Finish());
  return true;
}

// ---- the face
// ------------------------------------------------------------------------------------

FallbackSampler::FallbackSampler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FallbackSampler::~FallbackSampler() = default;

absl::StatusOr<std::unique_ptr<FallbackSampler>> FallbackSampler::Open(
    const FallbackOptions& options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
    base::MetricsRegistry& metrics) {
  const SamplerOptions& sampler = options.sampler;
  if (sampler.hz < 1 || sampler.hz > 999) {
    return base::InvalidArgument("sampling rate {} Hz: must be 1 to 999", sampler.hz);
  }
  if (!sampler.cgroups.empty()) {
    return base::InvalidArgument("the filter by cgroup needs the BPF sampler");
  }
  if (options.stack_bytes < kMinStackBytes || options.stack_bytes > kMaxStackBytes ||
      options.stack_bytes % 8 != 0) {
    return base::InvalidArgument("stack copy of {} bytes: must be {} to {}, a multiple of 8",
                                 options.stack_bytes, kMinStackBytes, kMaxStackBytes);
  }
  auto impl = std::make_unique<Impl>(options, table, symbolizer, metrics);
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<FallbackSampler>(new FallbackSampler(std::move(impl)));
}

std::string FallbackSampler::limits() const {
  std::string text = fmt::format("stacks deeper than {} bytes are cut", impl_->options.stack_bytes);
  if (!impl_->with_kernel) text += "; time in the kernel is not sampled (perf_event_paranoid)";
  if (impl_->scope == Impl::Scope::kOwn) text += "; only processes of this user";
  return text;
}

int FallbackSampler::WaitFd() const { return impl_->wait_set.get(); }

bool FallbackSampler::DeliverEventsTo(EventSink sink) {
  impl_->sink = std::move(sink);
  return true;
}

size_t FallbackSampler::Drain(SampleCallback callback) {
  uint64_t expirations = 0;
  [[maybe_unused]] const ssize_t got =
      ::read(impl_->timer.get(), &expirations, sizeof(expirations));
  const uint64_t now_ns = impl_->clock.MonotonicNs();
  const size_t count = impl_->Consume(now_ns, callback);
  if (impl_->scope == Impl::Scope::kOwn && !impl_->stopped &&
      now_ns - impl_->scanned_ns >= kScanPeriodNs) {
    impl_->scanned_ns = now_ns;
    impl_->FindNewOwn();
  }
  return count;
}

size_t FallbackSampler::Stop(SampleCallback callback) {
  impl_->stopped = true;
  for (const base::UniqueFd& event : impl_->events) {
    ::ioctl(event.get(), PERF_EVENT_IOC_DISABLE, 0);
  }
  return impl_->Consume(~uint64_t{0}, callback);
}

std::array<uint64_t, FW_LOSS_COUNT> FallbackSampler::Losses() const { return impl_->losses; }
absl::Status FallbackSampler::SetHz(uint32_t hz, SampleCallback callback) {
  if (impl_->scope != Impl::Scope::kMachine) {
    return absl::UnimplementedError("the events of threads keep the rate that they were opened at");
  }
  if (hz < 1 || hz > 999) {
    return base::InvalidArgument("sampling rate {} Hz: must be 1 to 999", hz);
  }
  impl_->Consume(impl_->clock.MonotonicNs(), callback);
  // The side-band is part of these events, so they stay open. cpu-clock has made a period of the
  // frequency that it was opened with (perf_swevent_init_hrtimer).
  uint64_t value = impl_->hardware_cycles ? hz : 1'000'000'000 / hz;
  for (const base::UniqueFd& event : impl_->events) {
    if (::ioctl(event.get(), PERF_EVENT_IOC_PERIOD, &value) != 0) {
      return base::ErrnoStatus(errno, "change the sampling rate");
    }
  }
  impl_->options.sampler.hz = hz;
  return absl::OkStatus();
}
uint32_t FallbackSampler::hz() const { return impl_->options.sampler.hz; }
bool FallbackSampler::hardware_cycles() const { return impl_->hardware_cycles; }
size_t FallbackSampler::cpu_count() const { return impl_->rings.size(); }
size_t FallbackSampler::ring_bytes() const { return impl_->rings.size() * impl_->bytes_per_ring; }

}  // namespace firewatch::agent
