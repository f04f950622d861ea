// SPDX-License-Identifier: Apache-2.0
// One dummy event and one ring per CPU; a merge by time over the oldest record of each ring. Each
// ring holds records of its CPU in the order in which they were written, so one record per ring in
// user space is enough.
#include "agent/cpu/sideband.h"

#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <ctime>
#include <optional>
#include <utility>

#include "agent/core/losses.h"
#include "agent/cpu/cpu_list.h"
#include "agent/cpu/perf_event.h"
#include "agent/cpu/perf_ring.h"
#include "agent/cpu/sideband_record.h"
#include "agent/cpu/thread_counts.h"
#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr uint32_t kRingBytes = 256 * 1024;
constexpr uint32_t kRingBytesManyCpus = 128 * 1024;
constexpr size_t kManyCpus = 64;
constexpr uint64_t kCpuCheckPeriodNs = 1'000'000'000;

perf_event_attr SideBandAttributes(uint32_t ring_bytes, bool build_ids) {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_DUMMY;
  attr.sample_type = kSideBandSampleType;
  attr.sample_id_all = 1;
  attr.mmap = 1;  // executable mappings only
  attr.mmap2 = 1;
  attr.build_id = build_ids ? 1 : 0;
  attr.comm = 1;
  attr.comm_exec = 1;
  attr.task = 1;
  attr.use_clockid = 1;
  attr.clockid = CLOCK_MONOTONIC;
  attr.watermark = 1;  // wake at half a ring, not per record
  attr.wakeup_watermark = ring_bytes / 2;
  return attr;
}

struct CpuRing {
  uint32_t cpu = 0;
  base::UniqueFd event;
  PerfRing ring;
  std::optional<SideBandRecord> front;  // taken out of the ring already
  bool retired = false;                 // the CPU went away: drained, then closed
};

}  // namespace

struct SideBand::Impl {
  Impl(const SideBandOptions& given, base::MetricsRegistry& metrics)
      : options(given),
        events_total(metrics.AddCounter("firewatch_sideband_events_total",
                                        "Process events taken over from the kernel")),
        malformed_total(metrics.AddCounter("firewatch_sideband_malformed_total",
                                           "Process events that could not be read")),
        cpus(metrics.AddGauge("firewatch_sideband_cpus", "CPUs whose process events are read")),
        lost_total(LossCounter(metrics, FW_LOSS_SIDEBAND_LOST)) {}

  absl::Status Start();
  absl::Status OpenCpu(uint32_t cpu);
  absl::Status UpdateCpus(const std::vector<uint32_t>& touched);
  void CheckCpus(uint64_t now_ns);
  void LoadFront(CpuRing& ring);
  void LoadFronts();
  CpuRing* Oldest();

  const SideBandOptions options;
  uint32_t ring_bytes = 0;
  bool build_ids = true;
  base::SystemClock clock;

  base::UniqueFd wait_set;
  std::optional<CpuWatch> cpu_watch;
  std::vector<CpuRing> rings;
  ThreadCounts threads;
  // Every ring was looked at after this moment: what came since is not older (but for the few
  // microseconds between taking a record's time and writing it).
  uint64_t examined_ns = 0;
  uint64_t cpus_checked_ns = 0;
  uint64_t lost = 0;

  base::Counter& events_total;
  base::Counter& malformed_total;
  base::Gauge& cpus;
  base::Counter& lost_total;
};

absl::Status SideBand::Impl::Start() {
  ASSIGN_OR_RETURN(const std::vector<uint32_t> online, ReadCpuList(options.online_cpus_path));
  ring_bytes = options.ring_bytes != 0     ? options.ring_bytes
               : online.size() > kManyCpus ? kRingBytesManyCpus
                                           : kRingBytes;
  if (!std::has_single_bit(ring_bytes) || ring_bytes < static_cast<uint32_t>(::getpagesize())) {
    return base::InvalidArgument("side-band ring of {} bytes: must be a power of two", ring_bytes);
  }
  wait_set.Reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!wait_set.valid()) return base::ErrnoStatus(errno, "epoll_create1");
  ASSIGN_OR_RETURN(cpu_watch, CpuWatch::Open());
  epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(wait_set.get(), EPOLL_CTL_ADD, cpu_watch->fd(), &event) != 0) {
    return base::ErrnoStatus(errno, "epoll_ctl");
  }
  return UpdateCpus({});
}

absl::Status SideBand::Impl::OpenCpu(uint32_t cpu) {
  auto event = OpenPerfEvent(SideBandAttributes(ring_bytes, build_ids), -1, static_cast<int>(cpu));
  if (absl::IsInvalidArgument(event.status()) && build_ids) {
    build_ids = false;  // before Linux 5.12
    event = OpenPerfEvent(SideBandAttributes(ring_bytes, false), -1, static_cast<int>(cpu));
  }
  if (!event.ok()) return base::Annotate(event.status(), "process events");
  ASSIGN_OR_RETURN(PerfRing ring, PerfRing::Map(event->get(), ring_bytes));
  epoll_event entry{};
  entry.events = EPOLLIN;
  if (::epoll_ctl(wait_set.get(), EPOLL_CTL_ADD, event->get(), &entry) != 0) {
    return base::ErrnoStatus(errno, "epoll_ctl");
  }
  rings.push_back({.cpu = cpu, .event = *std::move(event), .ring = std::move(ring)});
  return absl::OkStatus();
}

// Makes the rings that are not retired equal to the list of online CPUs.
absl::Status SideBand::Impl::UpdateCpus(const std::vector<uint32_t>& touched) {
  ASSIGN_OR_RETURN(const std::vector<uint32_t> online, ReadCpuList(options.online_cpus_path));
  for (CpuRing& ring : rings) {
    // The event of a CPU that was away is dead, even if the CPU is back.
    if (!std::binary_search(online.begin(), online.end(), ring.cpu) ||
        std::find(touched.begin(), touched.end(), ring.cpu) != touched.end()) {
      ring.retired = true;
    }
  }
  absl::Status error = absl::OkStatus();
  size_t active = 0;
  for (const uint32_t cpu : online) {
    const bool open = std::any_of(rings.begin(), rings.end(), [cpu](const CpuRing& ring) {
      return ring.cpu == cpu && !ring.retired;
    });
    if (!open) {
      if (absl::Status status = OpenCpu(cpu); !status.ok()) {
        error = std::move(status);
        continue;
      }
    }
    ++active;
  }
  cpus.Set(static_cast<double>(active));
  if (active > 0 && !error.ok()) spdlog::warn("{}", base::Message(error));
  return active > 0 ? absl::OkStatus() : error;
}

void SideBand::Impl::CheckCpus(uint64_t now_ns) {
  if (now_ns - cpus_checked_ns < kCpuCheckPeriodNs) return;
  cpus_checked_ns = now_ns;
  std::erase_if(rings, [](const CpuRing& ring) { return ring.retired && !ring.front; });
  const CpuWatch::Changes changes = cpu_watch->Read();
  if (!changes.maybe_changed) return;
  if (const absl::Status status = UpdateCpus(changes.touched); !status.ok()) {
    spdlog::error("no process events: {}", base::Message(status));
  }
}

void SideBand::Impl::LoadFront(CpuRing& ring) {
  while (!ring.front) {
    const std::span<const std::byte> bytes = ring.ring.Front();
    if (bytes.empty()) return;
    auto record = ParseSideBandRecord(bytes);
    ring.ring.Pop();
    if (record.ok()) {
      ring.front = *std::move(record);
    } else {
      malformed_total.Add();
    }
  }
}

void SideBand::Impl::LoadFronts() {
  const uint64_t now_ns = clock.MonotonicNs();
  for (CpuRing& ring : rings) LoadFront(ring);
  CheckCpus(now_ns);
  examined_ns = now_ns;
}

CpuRing* SideBand::Impl::Oldest() {
  CpuRing* oldest = nullptr;
  for (CpuRing& ring : rings) {
    if (!ring.front) continue;
    if (oldest == nullptr || ring.front->event.time_ns < oldest->front->event.time_ns) {
      oldest = &ring;
    }
  }
  return oldest;
}

SideBand::SideBand(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SideBand::~SideBand() = default;

absl::StatusOr<std::unique_ptr<SideBand>> SideBand::Open(const SideBandOptions& options,
                                                         base::MetricsRegistry& metrics) {
  auto impl = std::make_unique<Impl>(options, metrics);
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<SideBand>(new SideBand(std::move(impl)));
}

int SideBand::WaitFd() const { return impl_->wait_set.get(); }

size_t SideBand::Drain(uint64_t until_time_ns, EventCallback callback) {
  if (until_time_ns > impl_->examined_ns) impl_->LoadFronts();
  size_t count = 0;
  for (;;) {
    CpuRing* ring = impl_->Oldest();
    if (ring == nullptr || ring->front->event.time_ns > until_time_ns) break;
    SideBandRecord record = std::move(*ring->front);
    ring->front.reset();
    impl_->LoadFront(*ring);
    if (record.event.kind == ProcessEventKind::kLost) {
      impl_->lost += record.event.lost;
      impl_->lost_total.Add(record.event.lost);
    }
    if (!impl_->threads.Apply(record)) continue;
    callback(record.event);
    ++count;
  }
  impl_->events_total.Add(count);
  return count;
}

void SideBand::FollowCpus() {
  if (const absl::Status status = impl_->UpdateCpus({}); !status.ok()) {
    spdlog::error("follow CPUs: {}", base::Message(status));
  }
}

uint64_t SideBand::lost() const { return impl_->lost; }
bool SideBand::has_build_ids() const { return impl_->build_ids; }
size_t SideBand::cpu_count() const {
  return static_cast<size_t>(std::count_if(impl_->rings.begin(), impl_->rings.end(),
                                           [](const CpuRing& ring) { return !ring.retired; }));
}

}  // namespace firewatch::agent
