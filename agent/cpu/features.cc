// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/features.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <utility>

#include "agent/cpu/fallback_record.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

constexpr std::string_view kPerfEvents = "perf events";
constexpr std::string_view kStackCopies = "perf stack copies";
constexpr std::string_view kPtrace = "ptrace";
constexpr char kAsRoot[] = "run as root, or give the program CAP_BPF and CAP_PERFMON";

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string Refused(int error_number) { return fmt::format("refused: {}", strerror(error_number)); }

Feature Info(std::string name, std::string detail) {
  return {std::move(name), true, FeatureNeed::kInfo, std::move(detail), ""};
}

// ---- the kernel
// ----------------------------------------------------------------------------------

std::pair<int, int> KernelVersion() {
  utsname name{};
  int major = 0;
  int minor = 0;
  if (::uname(&name) == 0) {
    const char* end = name.release + std::strlen(name.release);
    const auto dot = std::from_chars(name.release, end, major);
    if (dot.ec == std::errc() && dot.ptr != end) std::from_chars(dot.ptr + 1, end, minor);
  }
  return {major, minor};
}

Feature ProbeKernel() {
  utsname name{};
  ::uname(&name);
  return {"kernel", KernelVersion() >= std::pair(5, 10), FeatureNeed::kRequired, name.release,
          "Firewatch needs Linux 5.10 or later"};
}

Feature ProbeBtf() {
  const bool readable = ::access("/sys/kernel/btf/vmlinux", R_OK) == 0;
  return {"kernel types (BTF)", readable, FeatureNeed::kRequired,
          readable ? "/sys/kernel/btf/vmlinux" : "/sys/kernel/btf/vmlinux cannot be read",
          "mount sysfs, or use a kernel built with CONFIG_DEBUG_INFO_BTF"};
}

Feature ProbeLockdown() {
  const std::string line = FirstLine("/sys/kernel/security/lockdown");
  const bool confidentiality = line.find("[confidentiality]") != std::string::npos;
  if (line.empty()) return Info("lockdown", "not reported by this kernel");
  return {"lockdown", !confidentiality, FeatureNeed::kRequired, line,
          "confidentiality mode forbids BPF to read memory; boot with lockdown=integrity or none"};
}

// ---- perf events
// ---------------------------------------------------------------------------------

base::UniqueFd OpenPerfEvent(perf_event_attr attr, int cpu) {
  attr.size = sizeof(attr);
  return base::UniqueFd(
      static_cast<int>(::syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)));
}

Feature ProbePerfEvents() {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.sample_period = 1'000'000'000;
  attr.disabled = 1;
  const base::UniqueFd event = OpenPerfEvent(attr, 0);
  const int error_number = errno;
  const std::string paranoid = FirstLine("/proc/sys/kernel/perf_event_paranoid");
  if (event.valid()) {
    return {std::string(kPerfEvents), true, FeatureNeed::kRequired,
            fmt::format("whole machine (perf_event_paranoid {})", paranoid), ""};
  }
  return {std::string(kPerfEvents), false, FeatureNeed::kRequired,
          fmt::format("{} (perf_event_paranoid {})", Refused(error_number), paranoid),
          fmt::format("{}; in a container allow the perf_event_open system call", kAsRoot)};
}

// What the fallback sampler needs of perf for the processes of this user.
Feature ProbeStackCopies() {
  perf_event_attr attr{};
  attr.size = sizeof(attr);
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  attr.sample_period = 1'000'000'000;
  attr.sample_type = kFallbackSampleType;
  attr.sample_regs_user = kFallbackRegisters;
  attr.sample_stack_user = 4096;
  attr.exclude_kernel = 1;
  attr.exclude_callchain_kernel = 1;
  attr.exclude_callchain_user = 1;
  attr.disabled = 1;
  const base::UniqueFd event(
      static_cast<int>(::syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
  const int error_number = errno;
  if (!event.valid()) {
    return {std::string(kStackCopies), false, FeatureNeed::kInfo, Refused(error_number), ""};
  }
  return Info(std::string(kStackCopies), "own processes can be sampled by perf events");
}

// Stops a child, as the last of the fallbacks does.
Feature ProbePtrace() {
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) ::pause();
  }
  if (child < 0) return {std::string(kPtrace), false, FeatureNeed::kInfo, Refused(errno), ""};
  const bool seized = ::ptrace(PTRACE_SEIZE, child, nullptr, nullptr) == 0;
  const int error_number = errno;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  if (!seized) return {std::string(kPtrace), false, FeatureNeed::kInfo, Refused(error_number), ""};
  return Info(std::string(kPtrace), "children can be stopped and looked at");
}

Feature ProbeCycles() {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_HARDWARE;
  attr.config = PERF_COUNT_HW_CPU_CYCLES;
  attr.disabled = 1;
  const bool cycles = OpenPerfEvent(attr, 0).valid();
  return Info("clock", cycles ? "hardware cycles" : "cpu-clock (no cycle counter here)");
}

Feature ProbeMmapBuildIds() {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_SOFTWARE;
  attr.config = PERF_COUNT_SW_DUMMY;
  attr.mmap = 1;
  attr.mmap2 = 1;
  attr.build_id = 1;
  attr.disabled = 1;
  const bool available = OpenPerfEvent(attr, 0).valid();
  return Info("mapping events",
              available ? "with build ids" : "without build ids (Linux 5.12): files by inode");
}

// ---- BPF
// -----------------------------------------------------------------------------------------

Feature ProbeBpfSyscall() {
  const base::UniqueFd map(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "fw_probe", 4, 8, 1, nullptr));
  const int error_number = errno;
  return {"BPF maps", map.valid(), FeatureNeed::kRequired,
          map.valid() ? "created one" : Refused(error_number),
          fmt::format("{}; in a container allow the bpf system call", kAsRoot)};
}

Feature ProbeRingBuffer() {
  const auto page = static_cast<uint32_t>(::sysconf(_SC_PAGESIZE));
  const base::UniqueFd map(::bpf_map_create(BPF_MAP_TYPE_RINGBUF, "fw_probe", 0, 0, page, nullptr));
  const int error_number = errno;
  return {"BPF ring buffer", map.valid(), FeatureNeed::kRequired,
          map.valid() ? "created one" : Refused(error_number),
          error_number == EPERM ? kAsRoot : "Linux 5.8 or later has it"};
}

Feature ProbeBpfProgram() {
  // r0 = 0; exit
  const std::array<bpf_insn, 2> code = {
      {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}}};
  const base::UniqueFd program(::bpf_prog_load(BPF_PROG_TYPE_PERF_EVENT, "fw_probe", "Dual BSD/GPL",
                                               code.data(), code.size(), nullptr));
  const int error_number = errno;
  return {"BPF programs", program.valid(), FeatureNeed::kRequired,
          program.valid() ? "loaded one on perf events" : Refused(error_number), kAsRoot};
}

Feature ProbeMemlock() {
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool counted = KernelVersion() < std::pair(5, 11);
  const std::string value =
      limit.rlim_cur == RLIM_INFINITY ? "unlimited" : fmt::format("{} KiB", limit.rlim_cur / 1024);
  if (!counted)
    return Info("memlock limit", fmt::format("{} (not needed since Linux 5.11)", value));
  const bool enough = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= (64u << 20);
  return {"memlock limit", enough, FeatureNeed::kDegrades, value,
          "this kernel counts BPF maps against it: ulimit -l unlimited"};
}

// ---- names and processes
// -------------------------------------------------------------------------

Feature ProbeKernelNames() {
  // Hidden addresses are all zero; shown ones begin with a few zeros, too: up to Linux 6.14 the
  // per-CPU variables of x86-64 come first and count from 0.
  constexpr int kLinesThatTell = 64;
  std::ifstream file("/proc/kallsyms");
  bool available = false;
  std::string line;
  for (int i = 0; i < kLinesThatTell && !available && std::getline(file, line); ++i) {
    available = line.find_first_not_of('0') < line.find(' ');
  }
  return {"kernel names", available, FeatureNeed::kDegrades,
          available ? "/proc/kallsyms"
                    : fmt::format("addresses are hidden (kptr_restrict {})",
                                  FirstLine("/proc/sys/kernel/kptr_restrict")),
          "run as root or with CAP_SYSLOG, and set kernel.kptr_restrict to 0 or 1"};
}

uint64_t EffectiveCapabilities() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("CapEff:")) continue;
    uint64_t mask = 0;
    const size_t digits = line.find_first_not_of(" \t", 7);
    if (digits != std::string::npos) {
      std::from_chars(line.data() + digits, line.data() + line.size(), mask, 16);
    }
    return mask;
  }
  return 0;
}

Feature ProbeCapabilities() {
  // Numbers from linux/capability.h; headers of Debian 12 know all of them.
  constexpr std::array<std::pair<const char*, int>, 6> kWanted = {
      {{"CAP_BPF", CAP_BPF},
       {"CAP_PERFMON", CAP_PERFMON},
       {"CAP_SYSLOG", CAP_SYSLOG},
       {"CAP_SYS_PTRACE", CAP_SYS_PTRACE},
       {"CAP_DAC_READ_SEARCH", CAP_DAC_READ_SEARCH},
       {"CAP_CHECKPOINT_RESTORE", CAP_CHECKPOINT_RESTORE}}};
  const uint64_t mask = EffectiveCapabilities();
  const bool admin = (mask >> CAP_SYS_ADMIN & 1) != 0;
  std::string missing;
  for (const auto& [name, bit] : kWanted) {
    // CAP_SYS_ADMIN stands for those that were split from it.
    const bool implied = admin && (bit == CAP_BPF || bit == CAP_PERFMON ||
                                   bit == CAP_CHECKPOINT_RESTORE || bit == CAP_SYSLOG);
    if ((mask >> bit & 1) == 0 && !implied) missing += fmt::format(" {}", name);
  }
  return {"capabilities", missing.empty(), FeatureNeed::kDegrades,
          missing.empty() ? "all that are used" : fmt::format("missing:{}", missing),
          "other users' processes, their files and kernel names may stay unnamed"};
}

Feature ProbePidNamespace() {
  struct stat info{};
  // The initial pid namespace has this inode on every kernel (include/linux/proc_ns.h).
  constexpr ino_t kInitialPidNamespace = 0xEFFFFFFC;
  const bool initial =
      ::stat("/proc/self/ns/pid", &info) == 0 && info.st_ino == kInitialPidNamespace;
  return {"pid namespace", initial, FeatureNeed::kDegrades,
          initial ? "the machine's" : "a container's own",
          "processes outside it have no pid here; start with --pid=host"};
}

Feature ProbeCgroup2() {
  for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
    struct statfs info{};
    // CGROUP2_SUPER_MAGIC of linux/magic.h.
    if (::statfs(path, &info) == 0 && info.f_type == 0x63677270) return Info("cgroup v2", path);
  }
  return {"cgroup v2", false, FeatureNeed::kDegrades, "not mounted",
          "the --cgroup filter needs it; labels come from cgroup v1"};
}

Feature ProbeTracefs() {
  const bool mounted = ::access("/sys/kernel/tracing/events", F_OK) == 0;
  return Info("tracefs", mounted ? "mounted" : "not mounted (not needed)");
}

bool IsAvailable(const std::vector<Feature>& features, std::string_view name) {
  return std::any_of(features.begin(), features.end(), [name](const Feature& feature) {
    return feature.name == name && feature.available;
  });
}

}  // namespace

std::vector<Feature> ProbeFeatures() {
  // libbpf explains its failures on standard error; each of ours has a line of its own.
  const libbpf_print_fn_t print = libbpf_set_print(nullptr);
  std::vector<Feature> features = {ProbeKernel(),     ProbeBtf(),        ProbeLockdown(),
                                   ProbePerfEvents(), ProbeBpfSyscall(), ProbeRingBuffer(),
                                   ProbeBpfProgram()};
  for (Feature& feature :
       std::array{ProbeStackCopies(), ProbePtrace(), ProbeCycles(), ProbeMmapBuildIds(),
                  ProbeMemlock(), ProbeCapabilities(), ProbeKernelNames(), ProbePidNamespace(),
                  ProbeCgroup2(), ProbeTracefs()}) {
    features.push_back(std::move(feature));
  }
  libbpf_set_print(print);
  return features;
}

std::optional<SourceKind> BestSource(const std::vector<Feature>& features) {
  if (CanSample(features)) return SourceKind::kEbpf;
  if (IsAvailable(features, kStackCopies)) return SourceKind::kPerf;
  if (IsAvailable(features, kPtrace)) return SourceKind::kPtrace;
  return std::nullopt;
}

std::string DescribeBestSource(const std::vector<Feature>& features) {
  const std::optional<SourceKind> best = BestSource(features);
  if (!best) return "none: nothing can be sampled here";
  switch (*best) {
    case SourceKind::kEbpf:
      return "ebpf: the whole machine";
    case SourceKind::kPerf:
      return fmt::format(
          "perf, a fallback: {}, by copies of their stacks",
          IsAvailable(features, kPerfEvents) ? "all processes" : "the processes of this user");
    case SourceKind::kPtrace:
      return "ptrace, a fallback: commands that it starts and pids that are named, at 10 Hz";
  }
  return "?";
}

bool CanSample(const std::vector<Feature>& features) {
  return std::all_of(features.begin(), features.end(), [](const Feature& feature) {
    return feature.available || feature.need != FeatureNeed::kRequired;
  });
}

}  // namespace firewatch::agent
