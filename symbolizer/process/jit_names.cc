// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/jit_names.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>
#include <vector>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kMaxStatusBytes = 64 << 10;

absl::StatusOr<std::string> ReadStatus(const std::string& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, "open " + path);
  std::string text(kMaxStatusBytes, '\0');
  const ssize_t got = ::read(fd.get(), text.data(), text.size());
  if (got < 0) return base::ErrnoStatus(errno, "read " + path);
  text.resize(static_cast<size_t>(got));
  return text;
}

// The numbers of the line that begins with `name`, separated by blanks.
std::vector<uint32_t> NumbersOf(std::string_view status, std::string_view name) {
  std::vector<uint32_t> numbers;
  while (!status.empty()) {
    std::string_view line = status.substr(0, status.find('\n'));
    status.remove_prefix(std::min(line.size() + 1, status.size()));
    if (!line.starts_with(name)) continue;
    line.remove_prefix(name.size());
    while (!line.empty()) {
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
      uint32_t number = 0;
      const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number);
      if (error != std::errc()) break;
      numbers.push_back(number);
      line.remove_prefix(static_cast<size_t>(end - line.data()));
    }
    break;
  }
  return numbers;
}

// Inside the root of the process, without following a link at the end.
base::UniqueFd OpenWithoutLink(const std::string& root, const std::string& path) {
  const base::UniqueFd directory(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return {};
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  long fd = ::syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof(how));
  if (fd < 0 && errno == ENOSYS) {  // before 5.6
    fd = ::openat(directory.get(), path.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW);
  }
  return base::UniqueFd(static_cast<int>(fd));
}

// The owner is compared on the descriptor: what is read is what was checked.
absl::Status CheckOwner(int fd, const JitOwner& owner, std::string_view name) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return base::ErrnoStatus(errno, fmt::format("stat {}", name));
  if (!S_ISREG(info.st_mode)) return base::InvalidArgument("{}: not a regular file", name);
  if (info.st_uid != owner.uid && info.st_uid != 0) {
    return base::MakeStatus(
        absl::StatusCode::kPermissionDenied,
        fmt::format("{}: belongs to user {}, the process to {}", name, info.st_uid, owner.uid));
  }
  return absl::OkStatus();
}

base::Counter& FileCounter(base::MetricsRegistry& metrics, const char* kind) {
  return metrics.AddCounter("firewatch_jit_files_total",
                            "Perf maps and jitdumps of processes that were opened, or refused.",
                            {{"kind", kind}});
}

}  // namespace

absl::StatusOr<JitOwner> ParseJitOwner(std::string_view status, uint32_t pid) {
  const std::vector<uint32_t> uids = NumbersOf(status, "Uid:");
  if (uids.size() < 2) return base::InvalidArgument("status without Uid");
  const std::vector<uint32_t> pids = NumbersOf(status, "NSpid:");
  return JitOwner{.inner_pid = pids.empty() ? pid : pids.back(), .uid = uids[1]};
}

absl::StatusOr<base::UniqueFd> OpenPerfMap(const std::string& proc_root, uint32_t pid,
                                           const JitOwner& owner) {
  const std::string path = fmt::format("tmp/perf-{}.map", owner.inner_pid);
  const base::UniqueFd found = OpenWithoutLink(fmt::format("{}/{}/root", proc_root, pid), path);
  if (!found.valid()) return base::ErrnoStatus(errno, fmt::format("open /{}", path));
  RETURN_IF_ERROR(CheckOwner(found.get(), owner, path));
  const std::string self = fmt::format("/proc/self/fd/{}", found.get());
  base::UniqueFd fd(::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open /{}", path));
  return fd;
}

struct JitNames::Process {
  uint32_t pid = 0;
  bool appended = false;  // its files may have grown
  bool wants_dump = true;
  uint64_t last_use = 0;
  uint64_t opened_at_ns = 0;
  std::optional<JitOwner> owner;
  base::UniqueFd map_fd;
  base::UniqueFd dump_fd;
  PerfMap map{kMaxRangesPerFile};
  JitDump dump{kMaxRangesPerFile};
  uint64_t malformed = 0;  // reported
  uint64_t dropped = 0;
};

JitNames::JitNames(std::string proc_root, const base::Clock& clock, base::MetricsRegistry& metrics)
    : proc_root_(std::move(proc_root)),
      clock_(clock),
      maps_(FileCounter(metrics, "perf_map")),
      dumps_(FileCounter(metrics, "jitdump")),
      refused_(FileCounter(metrics, "refused")),
      malformed_(metrics.AddCounter("firewatch_jit_malformed_total",
                                    "Lines of perf maps and records of jitdumps without sense.")),
      dropped_(metrics.AddCounter("firewatch_jit_dropped_total",
                                  "Names of JIT code beyond the bound of memory.")),
      ranges_gauge_(metrics.AddGauge("firewatch_jit_ranges", "Ranges of JIT code with a name.")) {}

JitNames::~JitNames() = default;

JitNames::Process* JitNames::Find(uint64_t incarnation) const {
  const auto found = processes_.find(incarnation);
  return found == processes_.end() ? nullptr : found->second.get();
}

void JitNames::Request(uint32_t pid, uint64_t incarnation) {
  const uint64_t now = clock_.MonotonicNs();
  std::unique_ptr<Process>& slot = processes_[incarnation];
  const bool first = slot == nullptr;
  if (first) slot = std::make_unique<Process>();
  Process& process = *slot;
  process.pid = pid;
  process.appended = true;
  process.last_use = ++use_clock_;
  if (first) MakeRoom(incarnation);
  if (process.map_fd.valid() || (!first && now < process.opened_at_ns + kRetryNs)) return;
  process.opened_at_ns = now;
  process.wants_dump = !process.dump_fd.valid();
  const auto status = ReadStatus(fmt::format("{}/{}/status", proc_root_, pid));
  if (!status.ok()) return;
  const auto owner = ParseJitOwner(*status, pid);
  if (!owner.ok()) return;
  process.owner = *owner;
  auto map = OpenPerfMap(proc_root_, pid, *owner);
  if (map.ok()) {
    process.map_fd = *std::move(map);
    maps_.Add();
  } else if (map.status().code() != absl::StatusCode::kNotFound) {
    refused_.Add();
  }
}

bool JitNames::WantsDump(uint64_t incarnation) const {
  const Process* process = Find(incarnation);
  return process != nullptr && process->wants_dump;
}

void JitNames::SetDump(uint64_t incarnation, base::UniqueFd dump) {
  Process* process = Find(incarnation);
  if (process == nullptr) return;
  process->wants_dump = false;
  if (!dump.valid() || process->dump_fd.valid() || !process->owner) return;
  if (!CheckOwner(dump.get(), *process->owner, "jitdump").ok()) {
    refused_.Add();
    return;
  }
  process->dump_fd = std::move(dump);
  dumps_.Add();
}

void JitNames::Update(Process* process) {
  process->appended = false;
  // A runtime that writes nonsense has no names; the counters say so.
  if (process->map_fd.valid()) {
    process->map.Update(FdByteSource(process->map_fd.get())).IgnoreError();
  }
  if (process->dump_fd.valid() &&
      !process->dump.Update(FdByteSource(process->dump_fd.get())).ok() &&
      process->dump.records() == 0) {
    process->dump_fd.Reset();
    refused_.Add();
  }
  const uint64_t malformed = process->map.malformed() + process->dump.malformed();
  const uint64_t dropped = process->map.dropped() + process->dump.dropped();
  malformed_.Add(malformed - std::exchange(process->malformed, malformed));
  dropped_.Add(dropped - std::exchange(process->dropped, dropped));
}

bool JitNames::Lookup(uint64_t incarnation, uint64_t address, JitSymbol* symbol) {
  Process* process = Find(incarnation);
  if (process == nullptr) return false;
  if (process->appended) {
    Update(process);
    MakeRoom(incarnation);
  }
  if (process->dump_fd.valid() &&
      process->dump.Find(FdByteSource(process->dump_fd.get()), address, symbol)) {
    return true;
  }
  if (!process->map_fd.valid()) return false;
  *symbol = {};
  return process->map.Find(FdByteSource(process->map_fd.get()), address, &symbol->name);
}

size_t JitNames::TotalRanges() const {
  size_t total = 0;
  for (const auto& [incarnation, process] : processes_) {
    total += process->map.ranges() + process->dump.ranges();
  }
  return total;
}

// The processes that nobody asked for in the longest time go; they are read anew when they return.
void JitNames::MakeRoom(uint64_t keep) {
  while (processes_.size() > 1 &&
         (processes_.size() > kMaxProcesses || TotalRanges() > kMaxRanges)) {
    auto oldest = processes_.end();
    for (auto it = processes_.begin(); it != processes_.end(); ++it) {
      if (it->first == keep) continue;
      if (oldest == processes_.end() || it->second->last_use < oldest->second->last_use) {
        oldest = it;
      }
    }
    if (oldest == processes_.end()) break;
    processes_.erase(oldest);
  }
  ranges_gauge_.Set(static_cast<double>(TotalRanges()));
}

}  // namespace firewatch::symbolizer
