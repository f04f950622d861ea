// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/ptrace_sampler.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "agent/core/losses.h"
#include "agent/core/proc_reader.h"
#include "agent/cpu/fallback_unwinder.h"
#include "agent/cpu/process_tree.h"
#include "agent/cpu/sample_builder.h"
#include "agent/cpu/sampler_metrics.h"
#include "agent/cpu/thread_names.h"
#include "agent/cpu/traced_threads.h"
#include "agent/stacks/ptracer.h"
#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

// The copy is made while the thread stands still: 64 pages take some 20 us.
constexpr size_t kPageBytes = 4096;
constexpr size_t kStackPages = 64;
// A thread that waits for a CPU stops only once it has got one; it runs meanwhile as it would.
constexpr std::chrono::milliseconds kStopTimeout{100};
constexpr int kMaxFailures = 5;  // in a row, until a sample is given without its stack
// A round of stops may take this long; who is left waits for the next.
constexpr uint64_t kRoundNs = 20'000'000;
// A thread that is rarely met running has its debt of samples paid by one stack, up to this many.
constexpr uint64_t kMaxWeight = 50;
constexpr uint64_t kRefreshPeriodNs = 1'000'000'000;
constexpr size_t kKeptPauses = 16'384;

uint32_t Raw(Pid pid) { return static_cast<uint32_t>(pid); }

ThreadState StateOf(const user_regs_struct& given) {
  ThreadState state;
  state.registers = {given.rax, given.rdx, given.rcx, given.rbx, given.rsi, given.rdi,
                     given.rbp, given.rsp, given.r8,  given.r9,  given.r10, given.r11,
                     given.r12, given.r13, given.r14, given.r15, given.rip};
  state.stack_start = given.rsp;
  return state;
}

// The stack from `start` up to the first page that cannot be read. One element per page: a
// transfer ends between elements.
size_t CopyStack(pid_t pid, uint64_t start, std::vector<std::byte>& buffer) {
  buffer.resize(kStackPages * kPageBytes);
  std::array<iovec, kStackPages> remote{};
  uint64_t at = start;
  size_t total = 0;
  for (iovec& element : remote) {
    const size_t here = std::min(kPageBytes - at % kPageBytes, buffer.size() - total);
    element = {.iov_base = reinterpret_cast<void*>(at), .iov_len = here};
    at += here;
    total += here;
  }
  const iovec local{.iov_base = buffer.data(), .iov_len = total};
  const ssize_t copied = ::process_vm_readv(pid, &local, 1, remote.data(), remote.size(), 0);
  if (copied > 0) return static_cast<size_t>(copied);
  // Where that call is forbidden: the tracer may read this file, too.
  const base::UniqueFd memory(
      ::open(fmt::format("/proc/{}/mem", pid).c_str(), O_RDONLY | O_CLOEXEC));
  if (!memory.valid()) return 0;
  const ssize_t got = ::pread(memory.get(), buffer.data(), total, static_cast<off_t>(start));
  return got > 0 ? static_cast<size_t>(got) : 0;
}

}  // namespace

struct PtraceSampler::Impl {
  Impl(const PtraceOptions& options, ProcessTable& process_table,
       symbolizer::Symbolizer& symbolizer, base::MetricsRegistry& registry)
      : hz(std::min(options.sampler.hz, options.max_hz)),
        max_hz(options.max_hz),
        table(process_table),
        targets(LivingDescendants(options.sampler.pids)),
        unwinder(symbolizer),
        metrics(registry),
        stops_total(registry.AddCounter("firewatch_sampler_stops_total",
                                        "Threads stopped to look at their stacks")),
        pause_ns_total(registry.AddCounter("firewatch_sampler_pause_nanoseconds_total",
                                           "Time that threads stood still for it")) {
    for (size_t i = 0; i < loss_counters.size(); ++i) {
      loss_counters[i] = &LossCounter(registry, static_cast<fw_loss>(i));
    }
  }

  absl::Status Start();
  void ArmTimer();
  uint64_t Random() {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return random;
  }
  size_t Round(SampleCallback callback);
  size_t LookAround(uint64_t start_ns, SampleCallback callback);
  size_t Look(TracedThreads::Process& process, TracedThreads::Thread& thread,
              SampleCallback callback);
  fw_stack_end UnwindCopy(TracedThreads::Process& process, const ThreadState& state,
                          std::string_view comm, uint64_t now_ns);
  void Meet(TracedThreads::Process& process, uint64_t now_ns);
  void Refresh(TracedThreads::Process& process, uint64_t now_ns);
  void Send(ProcessEvent event) {
    names.Apply(event);
    if (sink) sink(event);
  }
  void CountPause(uint64_t pause_ns);
  void Lose(fw_loss loss) {
    ++losses[loss];
    loss_counters[loss]->Add();
  }

  uint32_t hz;  // max_hz at most
  const uint32_t max_hz;
  ProcessTable& table;
  TracedThreads targets;
  Ptracer tracer;
  base::UniqueFd timer;
  uint64_t random = 0x9e3779b97f4a7c15;
  size_t turn = 0;  // where the next round begins: everybody's turn comes
  std::vector<std::byte> stack;

  const ProcReader reader{"/proc"};
  StackUnwinder unwinder;
  ThreadNames names;
  SampleBuilder builder;
  EventSink sink;
  SamplerMetrics metrics;
  base::Counter& stops_total;
  base::Counter& pause_ns_total;
  base::SystemClock clock;
  std::vector<uint64_t> pauses_ns;  // the last kKeptPauses, in no order
  PauseStats pause;                 // but for median and share
  std::array<uint64_t, FW_LOSS_COUNT> losses{};
  std::array<base::Counter*, FW_LOSS_COUNT> loss_counters{};
};

// A period with jitter: a program that does something every 100 ms must not fall into step.
void PtraceSampler::Impl::ArmTimer() {
  const uint64_t period_ns = 1'000'000'000 / hz;
  const uint64_t next_ns = period_ns / 2 + Random() % period_ns;
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(next_ns / 1'000'000'000);
  spec.it_value.tv_nsec = static_cast<long>(next_ns % 1'000'000'000);
  ::timerfd_settime(timer.get(), 0, &spec, nullptr);
}

absl::Status PtraceSampler::Impl::Start() {
  timer.Reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.valid()) return base::ErrnoStatus(errno, "timerfd_create");
  targets.Scan();
  if (targets.processes().empty() || !targets.processes().front().alive) {
    return base::NotFound("none of the processes lives");
  }
  // Whether it is allowed at all is found out by doing it.
  const auto tid = static_cast<pid_t>(targets.processes().front().pid);
  const auto stop = tracer.WhileStopped(tid, kStopTimeout, [](const user_regs_struct&) {});
  if (absl::IsPermissionDenied(stop.status())) return stop.status();
  metrics.SetCpuCount(static_cast<size_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN))));
  ArmTimer();
  return absl::OkStatus();
}

// ---- processes, without anybody who tells
// ---------------------------------------------------------

// Replaces what is known of its mappings.
void PtraceSampler::Impl::Refresh(TracedThreads::Process& process, uint64_t now_ns) {
  process.refreshed_ns = now_ns;
  const auto maps = reader.ReadMaps(process.pid);
  const auto comm = reader.ReadComm(process.pid);
  if (!maps.ok() || !comm.ok()) return;
  Send({.kind = ProcessEventKind::kExec,
        .time_ns = now_ns,
        .pid = process.pid,
        .tid = Raw(process.pid),
        .comm = *comm});
  const auto exe = reader.ReadExe(process.pid);
  const auto send = [&](const ProcMapsEntry& entry) {
    Send({.kind = ProcessEventKind::kMmap,
          .time_ns = now_ns,
          .pid = process.pid,
          .tid = Raw(process.pid),
          .start = entry.start,
          .end = entry.end,
          .file_offset = entry.file_offset,
          .file = entry.file});
  };
  // The executable first, as the kernel maps it.
  for (const bool first : {true, false}) {
    for (const ProcMapsEntry& entry : *maps) {
      if ((exe.ok() && WithoutDeleted(entry.file.path) == *exe) == first) send(entry);
    }
  }
}

// Announces a process that is new, or has become another program.
void PtraceSampler::Impl::Meet(TracedThreads::Process& process, uint64_t now_ns) {
  struct stat exe{};
  if (::stat(fmt::format("/proc/{}/exe", Raw(process.pid)).c_str(), &exe) != 0) return;
  const bool same = process.exe_device == exe.st_dev && process.exe_inode == exe.st_ino;
  if (process.met && same) return;
  if (!process.met && process.parent != Pid{}) {
    Send({.kind = ProcessEventKind::kFork,
          .time_ns = now_ns,
          .pid = process.pid,
          .parent = process.parent,
          .tid = Raw(process.pid)});
  }
  process.met = true;
  process.exe_device = exe.st_dev;
  process.exe_inode = exe.st_ino;
  Refresh(process, now_ns);
}

// ---- samples
// -------------------------------------------------------------------------------------

void PtraceSampler::Impl::CountPause(uint64_t pause_ns) {
  ++pause.stops;
  pause.total_ns += pause_ns;
  pause.max_ns = std::max(pause.max_ns, pause_ns);
  stops_total.Add();
  pause_ns_total.Add(pause_ns);
  if (pauses_ns.size() < kKeptPauses) {
    pauses_ns.push_back(pause_ns);
  } else {
    pauses_ns[pause.stops % kKeptPauses] = pause_ns;
  }
}

fw_stack_end PtraceSampler::Impl::UnwindCopy(TracedThreads::Process& process,
                                             const ThreadState& state, std::string_view comm,
                                             uint64_t now_ns) {
  const auto unwind = [&] {
    builder.user_frames().clear();
    return unwinder.Unwind(table.ForSample(process.pid, now_ns, comm, /*cgroup_id=*/0, false),
                           state, builder.user_frames());
  };
  const fw_stack_end end = unwind();
  if (!unwinder.met_unmapped() || now_ns - process.refreshed_ns < kRefreshPeriodNs) return end;
  Refresh(process, now_ns);  // a library was loaded, or the same program executed again
  return unwind();
}

// Stops the thread, copies, lets it go, unwinds. Returns how many samples that made.
size_t PtraceSampler::Impl::Look(TracedThreads::Process& process, TracedThreads::Thread& thread,
                                 SampleCallback callback) {
  ThreadState state;
  size_t copied = 0;
  const auto stop = tracer.WhileStopped(
      static_cast<pid_t>(thread.tid), kStopTimeout, [&](const user_regs_struct& registers) {
        state = StateOf(registers);
        copied = CopyStack(static_cast<pid_t>(thread.tid), registers.rsp, stack);
      });
  if (stop.ok()) CountPause(stop->stopped_ns);
  if (absl::IsNotFound(stop.status())) return 0;
  if (!stop.ok() && ++thread.failures < kMaxFailures) return 0;  // its credit is kept
  thread.failures = 0;
  const uint64_t period_ns = 1'000'000'000 / hz;
  const uint64_t weight = std::min(thread.credit_ns / period_ns, kMaxWeight);
  thread.credit_ns %= period_ns;
  const uint64_t now_ns = clock.MonotonicNs();
  Meet(process, now_ns);
  builder.Clear();
  fw_sample& header = builder.header();
  header.time_ns = now_ns;
  header.pid = Raw(process.pid);
  header.tid = thread.tid;
  const std::string_view comm = names.Of(process.pid, thread.tid);
  builder.SetComm(comm);
  if (stop.ok()) {
    state.stack = std::span(stack).first(copied);
    state.stack_goes_on = copied >= (kStackPages - 1) * kPageBytes;
    header.stack_end = static_cast<fw_u8>(UnwindCopy(process, state, comm, now_ns));
    if (header.stack_end == FW_STACK_END_TRUNCATED) Lose(FW_LOSS_USER_TRUNCATED);
  } else {
    header.stack_end = FW_STACK_END_NO_REGISTERS;
    Lose(FW_LOSS_NO_USER_REGISTERS);
  }
  const SampleRecord record = builder.Finish();
  for (uint64_t i = 0; i < weight; ++i) callback(record);
  return weight;
}

size_t PtraceSampler::Impl::Round(SampleCallback callback) {
  targets.Scan();
  const uint64_t start_ns = clock.MonotonicNs();
  // First, and all of them: the next scan forgets the dead, and a round may be cut short.
  for (const TracedThreads::Process& process : targets.processes()) {
    if (process.alive) continue;
    Send({.kind = ProcessEventKind::kExit,
          .time_ns = start_ns,
          .pid = process.pid,
          .tid = Raw(process.pid)});
  }
  const size_t count = LookAround(start_ns, callback);
  metrics.AddSamples(count);
  return count;
}

size_t PtraceSampler::Impl::LookAround(uint64_t start_ns, SampleCallback callback) {
  const uint64_t period_ns = 1'000'000'000 / hz;
  std::vector<TracedThreads::Process>& processes = targets.processes();
  size_t count = 0;
  ++turn;
  for (size_t i = 0; i < processes.size(); ++i) {
    TracedThreads::Process& process = processes[(i + turn) % processes.size()];
    for (size_t j = 0; j < process.threads.size(); ++j) {
      TracedThreads::Thread& thread = process.threads[(j + turn) % process.threads.size()];
      if (!thread.running || thread.credit_ns < period_ns) continue;
      if (clock.MonotonicNs() - start_ns > kRoundNs) return count;
      count += Look(process, thread, callback);
    }
  }
  return count;
}

// ---- the face
// ------------------------------------------------------------------------------------

PtraceSampler::PtraceSampler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PtraceSampler::~PtraceSampler() = default;

absl::StatusOr<std::unique_ptr<PtraceSampler>> PtraceSampler::Open(
    const PtraceOptions& options, ProcessTable& table, symbolizer::Symbolizer& symbolizer,
    base::MetricsRegistry& metrics) {
  if (options.sampler.hz < 1 || options.max_hz < 1) {
    return base::InvalidArgument("sampling rate {} Hz: must be 1 or more", options.sampler.hz);
  }
  if (!options.sampler.cgroups.empty()) {
    return base::InvalidArgument("the filter by cgroup needs the BPF sampler");
  }
  if (options.sampler.pids.empty()) {
    return base::FailedPrecondition(
        "stops only processes that are named: give --pid, or a command to record");
  }
  auto impl = std::make_unique<Impl>(options, table, symbolizer, metrics);
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<PtraceSampler>(new PtraceSampler(std::move(impl)));
}

std::string PtraceSampler::limits() const {
  return fmt::format(
      "named processes only, at {} Hz, each thread is stopped for a moment per sample; no kernel "
      "stacks",
      impl_->hz);
}

int PtraceSampler::WaitFd() const { return impl_->timer.get(); }

bool PtraceSampler::DeliverEventsTo(EventSink sink) {
  impl_->sink = std::move(sink);
  return true;
}

size_t PtraceSampler::Drain(SampleCallback callback) {
  uint64_t expirations = 0;
  // Samples are taken by the clock, not by whoever asks.
  if (::read(impl_->timer.get(), &expirations, sizeof(expirations)) != sizeof(expirations))
    return 0;
  const size_t count = impl_->Round(callback);
  impl_->ArmTimer();
  return count;
}

size_t PtraceSampler::Stop(SampleCallback) {
  impl_->timer.Reset();
  return 0;
}

std::array<uint64_t, FW_LOSS_COUNT> PtraceSampler::Losses() const { return impl_->losses; }
// Nothing waits in a ring here: each sample is handed out when it is taken.
absl::Status PtraceSampler::SetHz(uint32_t hz, SampleCallback /*callback*/) {
  if (hz < 1) return base::InvalidArgument("sampling rate {} Hz: must be 1 or more", hz);
  impl_->hz = std::min(hz, impl_->max_hz);
  return absl::OkStatus();
}
uint32_t PtraceSampler::hz() const { return impl_->hz; }
size_t PtraceSampler::cpu_count() const {
  return static_cast<size_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

PauseStats PtraceSampler::Pauses() const {
  PauseStats out = impl_->pause;
  std::vector<uint64_t> sorted = impl_->pauses_ns;
  if (sorted.empty()) return out;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  out.median_ns = *middle;
  const uint64_t cpu_ns = impl_->targets.cpu_ns();
  out.share = cpu_ns == 0 ? 0 : static_cast<double>(out.total_ns) / static_cast<double>(cpu_ns);
  return out;
}

}  // namespace firewatch::agent
