// SPDX-License-Identifier: Apache-2.0
// Lives by pid, oldest first, and one queue of those that have ended, bounded by number and age.
// Labels are made when somebody asks, once per life: most processes are never asked for.
#include "agent/core/process_directory.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "agent/core/cgroup.h"
#include "agent/core/proc_reader.h"
#include "base/mutex.h"

namespace firewatch::agent {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;
// Reading stat, exe and cgroup of one process costs about 60 us.
constexpr uint32_t kMaxReadsPerSecond = 200;
// Without a feeder, what was read from /proc is believed this long.
constexpr uint64_t kBelieveNs = 5 * kSecondNs;

uint32_t Raw(Pid pid) { return static_cast<uint32_t>(pid); }

struct Life {
  uint64_t serial = 0;
  Pid parent{};
  uint64_t start_ns = 0;
  uint64_t end_ns = 0;
  uint64_t checked_ns = 0;  // when /proc was last read for it
  uint64_t cgroup_id = 0;
  bool kernel_thread = false;
  std::string comm;
  std::shared_ptr<const std::string> exe;          // shared with forked children; null: unknown
  std::shared_ptr<const std::string> cgroup_path;  // inherited, or looked up
  std::shared_ptr<const profile::LabelSet> labels;
};

struct Tombstone {
  Pid pid{};
  uint64_t serial = 0;
  uint64_t end_ns = 0;
};

ProcessInfo ToInfo(Pid pid, const Life& life, std::shared_ptr<const profile::LabelSet> labels) {
  return {.pid = pid,
          .parent = life.parent,
          .start_ns = life.start_ns,
          .end_ns = life.end_ns,
          .comm = life.comm,
          .exe_path = life.exe == nullptr ? "" : *life.exe,
          .cgroup_id = life.cgroup_id,
          .kernel_thread = life.kernel_thread,
          .labels = std::move(labels)};
}

}  // namespace

struct ProcessDirectory::Impl {
  Impl(ProcessDirectoryOptions given, const base::Clock& time, base::MetricsRegistry& metrics)
      : options(std::move(given)),
        clock(time),
        reader(options.proc_root),
        cgroups(&reader, options.cgroup_root),
        label_maker(options.labels),
        made_up(metrics.AddCounter("firewatch_agent_directory_made_up_total",
                                   "Processes that were asked for and known by hints alone.")),
        full(metrics.AddCounter("firewatch_agent_directory_full_total",
                                "Lives that the process directory had no room for.")),
        proc_reads(metrics.AddCounter("firewatch_agent_directory_proc_reads_total",
                                      "Processes that the directory has read from /proc.")) {}

  Life* Newest(Pid pid) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  Life* LifeAt(Pid pid, uint64_t time_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  Life* Begin(Pid pid, uint64_t start_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void End(Pid pid, Life* life, uint64_t end_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void Bury(uint64_t now_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  bool TakeReadBudget(uint64_t now_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void ReadProc(Pid pid, Life* known, uint64_t now_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  ProcessInfo Inform(Pid pid, Life* life, const ProcessHints& hints, uint64_t now_ns)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  ProcessInfo MakeUp(Pid pid, const ProcessHints& hints) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  std::shared_ptr<const profile::LabelSet> MakeLabels(std::string_view exe, std::string_view comm,
                                                      uint64_t cgroup_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  const ProcessDirectoryOptions options;
  const base::Clock& clock;
  const ProcReader reader;

  mutable base::Mutex mutex;
  CgroupPaths cgroups ABSL_GUARDED_BY(mutex);
  LabelMaker label_maker ABSL_GUARDED_BY(mutex);
  absl::flat_hash_map<uint32_t, std::vector<Life>> lives ABSL_GUARDED_BY(mutex);
  std::deque<Tombstone> tombstones ABSL_GUARDED_BY(mutex);
  size_t living ABSL_GUARDED_BY(mutex) = 0;
  uint64_t last_serial ABSL_GUARDED_BY(mutex) = 0;
  uint64_t budget_second ABSL_GUARDED_BY(mutex) = 0;
  uint32_t reads_this_second ABSL_GUARDED_BY(mutex) = 0;
  bool fed ABSL_GUARDED_BY(mutex) = false;

  base::Counter& made_up;
  base::Counter& full;
  base::Counter& proc_reads;
};

Life* ProcessDirectory::Impl::Newest(Pid pid) {
  const auto found = lives.find(Raw(pid));
  return found == lives.end() ? nullptr : &found->second.back();
}

// The newest life that had begun by then; the oldest kept one when all began later.
Life* ProcessDirectory::Impl::LifeAt(Pid pid, uint64_t time_ns) {
  const auto found = lives.find(Raw(pid));
  if (found == lives.end()) return nullptr;
  std::vector<Life>& chain = found->second;
  if (time_ns == 0) return &chain.back();
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    if (it->start_ns <= time_ns) return &*it;
  }
  return &chain.front();
}

// nullptr when there is no room.
Life* ProcessDirectory::Impl::Begin(Pid pid, uint64_t start_ns) {
  if (living >= options.max_living) {
    full.Add();
    return nullptr;
  }
  ++living;
  std::vector<Life>& chain = lives[Raw(pid)];
  Life& life = chain.emplace_back();
  life.serial = ++last_serial;
  life.start_ns = start_ns;
  return &life;
}

void ProcessDirectory::Impl::End(Pid pid, Life* life, uint64_t end_ns) {
  life->end_ns = std::max<uint64_t>(end_ns, 1);
  --living;
  tombstones.push_back({pid, life->serial, life->end_ns});
}

void ProcessDirectory::Impl::Bury(uint64_t now_ns) {
  while (!tombstones.empty() && (tombstones.size() > options.max_ended ||
                                 tombstones.front().end_ns + options.keep_ended_ns < now_ns)) {
    const Tombstone oldest = tombstones.front();
    tombstones.pop_front();
    const auto found = lives.find(Raw(oldest.pid));
    if (found == lives.end()) continue;
    std::erase_if(found->second,
                  [&oldest](const Life& life) { return life.serial == oldest.serial; });
    if (found->second.empty()) lives.erase(found);
  }
}

bool ProcessDirectory::Impl::TakeReadBudget(uint64_t now_ns) {
  if (const uint64_t second = now_ns / kSecondNs; second != budget_second) {
    budget_second = second;
    reads_this_second = 0;
  }
  if (reads_this_second >= kMaxReadsPerSecond) return false;
  ++reads_this_second;
  proc_reads.Add();
  return true;
}

// What /proc says about `pid` now. `known` is its newest life or nullptr. Only where no feeder
// knows better.
void ProcessDirectory::Impl::ReadProc(Pid pid, Life* known, uint64_t now_ns) {
  if (!TakeReadBudget(now_ns)) return;
  auto stat = reader.ReadStat(pid);
  if (!stat.ok()) {
    if (known != nullptr && known->end_ns == 0) End(pid, known, now_ns);
    return;
  }
  std::string exe;
  if (!stat->kernel_thread) exe = reader.ReadExe(pid).value_or("");
  const bool replaced =
      known != nullptr && (known->end_ns != 0 || known->parent != stat->parent ||
                           (known->exe != nullptr && !exe.empty() && *known->exe != exe));
  if (replaced && known->end_ns == 0) End(pid, known, now_ns);
  Life* life = known == nullptr || replaced ? Begin(pid, replaced ? now_ns : 0) : known;
  if (life == nullptr) return;
  life->parent = stat->parent;
  life->comm = std::move(stat->comm);
  life->kernel_thread = stat->kernel_thread;
  if (life->exe == nullptr && !exe.empty()) {
    life->exe = std::make_shared<const std::string>(std::move(exe));
  }
  life->checked_ns = now_ns;
}

ProcessInfo ProcessDirectory::Impl::Inform(Pid pid, Life* life, const ProcessHints& hints,
                                           uint64_t now_ns) {
  if (life->comm.empty()) life->comm = hints.comm;
  if (life->cgroup_id == 0) life->cgroup_id = hints.cgroup_id;
  const bool lives_on = life->end_ns == 0 && life == Newest(pid);
  if (life->labels == nullptr) {
    const bool readable = lives_on && !life->kernel_thread && TakeReadBudget(now_ns);
    if (!life->kernel_thread) {
      if (auto path = cgroups.Find(readable ? std::optional(pid) : std::nullopt, life->cgroup_id)) {
        life->cgroup_path = std::move(path);
      }
      if (readable && life->exe == nullptr) {
        if (auto exe = reader.ReadExe(pid); exe.ok()) {
          life->exe = std::make_shared<const std::string>(*std::move(exe));
        }
      }
    }
    auto labels = label_maker.Make(
        {.cgroup_path = life->cgroup_path == nullptr ? std::string_view() : *life->cgroup_path,
         .exe_path = life->exe == nullptr ? std::string_view() : *life->exe,
         .comm = life->comm,
         .kernel_thread = life->kernel_thread});
    // Of what still lives more may become known; what has ended stays as it is.
    const bool settled =
        life->kernel_thread || !lives_on || (life->exe != nullptr && life->cgroup_path != nullptr);
    if (settled) life->labels = labels;
    return ToInfo(pid, *life, std::move(labels));
  }
  return ToInfo(pid, *life, life->labels);
}

ProcessInfo ProcessDirectory::Impl::MakeUp(Pid pid, const ProcessHints& hints) {
  made_up.Add();
  ProcessInfo info{.pid = pid};
  info.comm = hints.comm;
  info.cgroup_id = hints.cgroup_id;
  info.labels = MakeLabels("", hints.comm, hints.cgroup_id);
  return info;
}

std::shared_ptr<const profile::LabelSet> ProcessDirectory::Impl::MakeLabels(std::string_view exe,
                                                                            std::string_view comm,
                                                                            uint64_t cgroup_id) {
  const auto path = cgroups.Find(std::nullopt, cgroup_id);
  return label_maker.Make(
      {.cgroup_path = path == nullptr ? std::string_view() : *path, .exe_path = exe, .comm = comm});
}

ProcessDirectory::ProcessDirectory(ProcessDirectoryOptions options, const base::Clock& clock,
                                   base::MetricsRegistry& metrics)
    : impl_(std::make_unique<Impl>(std::move(options), clock, metrics)) {}

ProcessDirectory::~ProcessDirectory() = default;

std::optional<ProcessInfo> ProcessDirectory::Find(Pid pid, const ProcessHints& hints) {
  const uint64_t now_ns = impl_->clock.MonotonicNs();
  base::MutexLock lock(impl_->mutex);
  Life* life = impl_->LifeAt(pid, hints.time_ns);
  const bool unsure =
      life == nullptr || (!impl_->fed && life->end_ns == 0 && life == impl_->Newest(pid) &&
                          now_ns >= life->checked_ns + kBelieveNs);
  if (unsure) {
    impl_->ReadProc(pid, impl_->Newest(pid), now_ns);
    impl_->Bury(now_ns);
    life = impl_->LifeAt(pid, hints.time_ns);
  }
  if (life != nullptr) return impl_->Inform(pid, life, hints, now_ns);
  if (hints.comm.empty() && hints.cgroup_id == 0) return std::nullopt;
  return impl_->MakeUp(pid, hints);
}

std::shared_ptr<const profile::LabelSet> ProcessDirectory::LabelsOf(std::string_view exe,
                                                                    std::string_view comm,
                                                                    uint64_t cgroup_id) {
  base::MutexLock lock(impl_->mutex);
  return impl_->MakeLabels(exe, comm, cgroup_id);
}

void ProcessDirectory::Began(Pid pid, Pid parent, uint64_t start_ns) {
  base::MutexLock lock(impl_->mutex);
  impl_->fed = true;
  Life* before = impl_->Newest(pid);
  if (before != nullptr && before->end_ns == 0) {
    if (start_ns == 0) return;  // found once more, after a restart of the table
    impl_->End(pid, before, start_ns);
  }
  // An exec keeps the process; a fork takes after its parent.
  const bool same = before != nullptr && before->end_ns == start_ns && start_ns != 0 &&
                    (Raw(parent) == 0 || before->parent == parent);
  const Life* origin = same ? before : impl_->Newest(parent);
  Life inherited;
  if (origin != nullptr) inherited = *origin;
  Life* life = impl_->Begin(pid, start_ns);
  if (life != nullptr) {
    life->parent = same ? inherited.parent : parent;
    life->comm = std::move(inherited.comm);
    if (!same) life->exe = std::move(inherited.exe);
    life->cgroup_id = inherited.cgroup_id;
    life->cgroup_path = std::move(inherited.cgroup_path);
    life->kernel_thread = inherited.kernel_thread;
  }
  impl_->Bury(start_ns);
}

void ProcessDirectory::Describe(Pid pid, std::string_view comm, std::string_view exe_path,
                                uint64_t cgroup_id, bool kernel_thread) {
  base::MutexLock lock(impl_->mutex);
  Life* life = impl_->Newest(pid);
  if (life == nullptr) return;
  if (life->comm != comm) life->comm = comm;
  if (exe_path.empty()) {
    life->exe = nullptr;
  } else if (life->exe == nullptr || *life->exe != exe_path) {
    life->exe = std::make_shared<const std::string>(exe_path);
  }
  if (cgroup_id != 0) life->cgroup_id = cgroup_id;
  life->kernel_thread = kernel_thread;
}

void ProcessDirectory::Labelled(Pid pid, std::shared_ptr<const profile::LabelSet> labels) {
  base::MutexLock lock(impl_->mutex);
  if (Life* life = impl_->Newest(pid); life != nullptr) life->labels = std::move(labels);
}

void ProcessDirectory::Ended(Pid pid, uint64_t end_ns) {
  base::MutexLock lock(impl_->mutex);
  Life* life = impl_->Newest(pid);
  if (life != nullptr && life->end_ns == 0) impl_->End(pid, life, end_ns);
  impl_->Bury(end_ns);
}

void ProcessDirectory::StopFeeding() {
  base::MutexLock lock(impl_->mutex);
  impl_->fed = false;
}

size_t ProcessDirectory::living() const {
  base::MutexLock lock(impl_->mutex);
  return impl_->living;
}

size_t ProcessDirectory::ended() const {
  base::MutexLock lock(impl_->mutex);
  return impl_->tombstones.size();
}

}  // namespace firewatch::agent
