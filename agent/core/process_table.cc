// SPDX-License-Identifier: Apache-2.0
// A process is a chain of lives, newest first: exec and a reused pid begin a new life, the one
// before stays as a tombstone for samples that are still on their way. Tombstones form one queue
// over all processes, bounded by max_exited.
//
// Events alone keep the table right. /proc is read in five cases, all bounded: once at start; for a
// sample of a pid that no event announced; after the kernel dropped events, once per process that
// is then sampled; when anonymous code has come to lie over a file's; and for the cgroup of a
// process at its first sample.
#include "agent/core/process_table.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "agent/core/cgroup.h"
#include "agent/core/labels.h"
#include "agent/core/losses.h"
#include "agent/core/proc_reader.h"
#include "base/clock.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;
// Reading maps, exe, stat and status of one process costs about 0.1 ms: at most 2 % of one core.
constexpr uint32_t kMaxReadsPerSecond = 200;
// How often lost events may send every sampled process back to /proc.
constexpr uint64_t kRecheckEveryNs = 10 * kSecondNs;
// A sample this much later than the exit belongs to a life that no event announced, or to a process
// whose main thread ended before the others did.
constexpr uint64_t kLateSampleNs = 10'000'000;

uint32_t Raw(Pid pid) { return static_cast<uint32_t>(pid); }

struct Entry {
  Process process;
  std::unique_ptr<Entry> older;  // the life before this one, a tombstone
  // Names the process across exec: the incarnation of its first life.
  uint64_t birth = 0;
  uint64_t start_ns = 0;
  uint64_t exit_ns = 0;
  uint64_t primed_ns = 0;    // when /proc was read; 0 when the entry comes from events only
  uint32_t loss_epoch = 0;   // of the table, when the entry was last known to be right
  bool living = true;        // counted in living_, else in the queue of tombstones
  bool complete = false;     // all mappings are known
  bool gone = false;         // it ended before its mappings could be read
  bool exe_pending = false;  // exec happened, its first file mapping names the executable
  // Shared with forked children until somebody is moved; nullptr when never looked up.
  std::shared_ptr<const std::string> cgroup_path;
};

struct Tombstone {
  Pid pid{};
  uint64_t incarnation = 0;
  uint64_t exit_ns = 0;
};

// What /proc says about one process.
struct ProcSnapshot {
  ProcStat stat;
  std::string exe_path;
  std::shared_ptr<const MappingSet> mappings;
};

bool OverlapsFile(const MappingSet& mappings, const ProcessMapping& newcomer) {
  for (const uint64_t address : {newcomer.start, newcomer.end - 1}) {
    const ProcessMapping* known = mappings.Find(address);
    if (known != nullptr && !known->anonymous && !known->vdso) return true;
  }
  return false;
}

const std::shared_ptr<const MappingSet>& NoMappings() {
  static const auto& empty = *new std::shared_ptr<const MappingSet>(new MappingSet);
  return empty;
}

}  // namespace

struct ProcessTable::Impl {
  Impl(ProcessTableOptions table_options, symbolizer::Symbolizer& names,
       base::MetricsRegistry& metrics)
      : options(std::move(table_options)),
        symbolizer(names),
        reader(options.proc_root),
        cgroups(&reader, options.cgroup_root),
        labels({.node = options.node,
                .service = options.service,
                .extra = options.extra_labels,
                .state_root = ""}),
        process_unknown(LossCounter(metrics, FW_LOSS_PROCESS_UNKNOWN)),
        table_full(LossCounter(metrics, FW_LOSS_PROCESS_TABLE_FULL)),
        mappings_full(LossCounter(metrics, FW_LOSS_MAPPINGS_FULL)),
        proc_reads(metrics.AddCounter("firewatch_agent_proc_reads_total",
                                      "Processes read from /proc after the start.")),
        remapped_text(metrics.AddCounter(
            "firewatch_agent_remapped_text_total",
            "Anonymous mappings taken for text of the file around them (huge pages).")),
        processes_gauge(metrics.AddGauge("firewatch_agent_processes", "Living processes known.")) {}

  // Lives.
  Entry* Newest(Pid pid);
  Entry* LifeAt(Pid pid, uint64_t time_ns);
  Entry* Begin(Pid pid, uint64_t time_ns);
  void End(Entry* entry, uint64_t time_ns);
  void Revive(Entry* entry);
  void Bury(size_t keep, uint64_t before_ns);
  void Announce(const Entry& entry);
  void Describe(const Entry& entry);
  void Remove(Pid pid, uint64_t incarnation);

  // Events.
  void OnFork(const ProcessEvent& event);
  void OnExec(const ProcessEvent& event);
  void OnComm(const ProcessEvent& event);
  void OnMmap(const ProcessEvent& event);
  void OnExit(const ProcessEvent& event);
  void NoteTime(uint64_t time_ns);

  // /proc.
  bool TakeReadBudget(uint64_t time_ns);
  absl::StatusOr<ProcSnapshot> ReadSnapshot(Pid pid);
  void Adopt(Entry* entry, ProcSnapshot snapshot);
  bool NeedsRefresh(const Entry& entry, uint64_t time_ns);
  Entry* Refresh(Entry* entry, uint64_t time_ns);
  void Sweep();

  Entry* MeetUnknown(Pid pid, uint64_t time_ns, std::string_view comm, bool kernel_thread);
  void AddMapping(Entry* entry, const ProcessMapping& mapping);
  ProcessMapping ToMapping(uint64_t start, uint64_t end, uint64_t file_offset,
                           const symbolizer::FileIdentity& file);
  void MakeLabels(Entry* entry);

  const ProcessTableOptions options;
  symbolizer::Symbolizer& symbolizer;
  const ProcReader reader;
  CgroupPaths cgroups;
  LabelMaker labels;

  absl::flat_hash_map<uint32_t, std::unique_ptr<Entry>> newest;
  std::deque<Tombstone> tombstones;
  size_t living = 0;
  size_t total = 0;
  uint64_t last_incarnation = 0;

  uint64_t now_ns = 0;  // the latest time of any event or sample
  uint64_t budget_second = 0;
  uint32_t reads_this_second = 0;
  uint32_t loss_epoch = 1;
  uint64_t last_recheck_ns = 0;
  bool loss_pending = false;  // events were lost, the epoch has not moved yet
  bool sweep_wanted = false;  // there may be entries whose exit nobody will announce

  base::Counter& process_unknown;
  base::Counter& table_full;
  base::Counter& mappings_full;
  base::Counter& proc_reads;
  base::Counter& remapped_text;
  base::Gauge& processes_gauge;
};

// --- lives ---------------------------------------------------------------------------------------

Entry* ProcessTable::Impl::Newest(Pid pid) {
  const auto found = newest.find(Raw(pid));
  return found == newest.end() ? nullptr : found->second.get();
}

// The life that had begun by `time_ns`; the oldest kept one when all began later.
Entry* ProcessTable::Impl::LifeAt(Pid pid, uint64_t time_ns) {
  Entry* entry = Newest(pid);
  while (entry != nullptr && entry->start_ns > time_ns && entry->older != nullptr) {
    entry = entry->older.get();
  }
  return entry;
}

// A new life of `pid`. Beyond max_processes it is still made, but as a tombstone: its samples are
// attributed for a while, it is not followed.
Entry* ProcessTable::Impl::Begin(Pid pid, uint64_t time_ns) {
  auto entry = std::make_unique<Entry>();
  entry->process.pid = pid;
  entry->process.incarnation = ++last_incarnation;
  entry->process.mappings = NoMappings();
  entry->birth = last_incarnation;
  entry->start_ns = time_ns;
  entry->loss_epoch = loss_epoch;
  std::unique_ptr<Entry>& slot = newest[Raw(pid)];
  if (slot != nullptr && slot->living) End(slot.get(), time_ns);
  entry->older = std::move(slot);
  slot = std::move(entry);
  ++total;
  ++living;
  if (living > options.max_processes) {
    table_full.Add();
    sweep_wanted = true;
    slot->living = false;
    --living;
    tombstones.push_back({pid, slot->process.incarnation, time_ns});
  }
  return slot.get();
}

void ProcessTable::Impl::End(Entry* entry, uint64_t time_ns) {
  if (!entry->process.exited && options.directory != nullptr &&
      entry == Newest(entry->process.pid)) {
    options.directory->Ended(entry->process.pid, time_ns);
  }
  entry->process.exited = true;
  entry->exit_ns = time_ns;
  if (!entry->living) return;
  entry->living = false;
  --living;
  tombstones.push_back({entry->process.pid, entry->process.incarnation, time_ns});
}

// A life has begun; its parent is known by now.
void ProcessTable::Impl::Announce(const Entry& entry) {
  if (options.directory == nullptr) return;
  options.directory->Began(entry.process.pid, entry.process.parent, entry.start_ns);
}

// What the directory should know of the newest life of a process.
void ProcessTable::Impl::Describe(const Entry& entry) {
  const Process& process = entry.process;
  if (options.directory == nullptr || &entry != Newest(process.pid)) return;
  options.directory->Describe(process.pid, process.comm, process.exe_path, process.cgroup_id,
                              process.kernel_thread);
}

// The tombstone's place in the queue stays and is passed over when its turn comes.
void ProcessTable::Impl::Revive(Entry* entry) {
  entry->process.exited = false;
  if (entry->living || living >= options.max_processes) return;
  entry->living = true;
  ++living;
}

void ProcessTable::Impl::Bury(size_t keep, uint64_t before_ns) {
  while (!tombstones.empty() &&
         (tombstones.size() > keep || tombstones.front().exit_ns < before_ns)) {
    const Tombstone oldest = tombstones.front();
    tombstones.pop_front();
    Remove(oldest.pid, oldest.incarnation);
  }
}

void ProcessTable::Impl::Remove(Pid pid, uint64_t incarnation) {
  const auto found = newest.find(Raw(pid));
  if (found == newest.end()) return;
  std::unique_ptr<Entry>* link = &found->second;
  while (*link != nullptr && (*link)->process.incarnation != incarnation) link = &(*link)->older;
  if (*link == nullptr || (*link)->living) return;
  std::unique_ptr<Entry> older = std::move((*link)->older);
  *link = std::move(older);
  --total;
  if (found->second == nullptr) newest.erase(found);
}

// --- events --------------------------------------------------------------------------------------

void ProcessTable::Impl::OnFork(const ProcessEvent& event) {
  if (event.tid != 0 && event.tid != Raw(event.pid)) return;  // a thread
  Entry* known = Newest(event.pid);
  if (known != nullptr && known->living && known->primed_ns >= event.time_ns) {
    // /proc was read after this fork: what it said is newer than what the fork inherited.
    known->start_ns = std::min(known->start_ns, event.time_ns);
    known->process.parent = event.parent;
    return;
  }
  Entry* child = Begin(event.pid, event.time_ns);
  child->process.parent = event.parent;
  Announce(*child);
  const Entry* parent = LifeAt(event.parent, event.time_ns);
  if (parent == nullptr) return;
  child->process.comm = parent->process.comm;
  child->process.exe_path = parent->process.exe_path;
  child->process.kernel_thread = parent->process.kernel_thread;
  child->process.mappings = parent->process.mappings;
  child->cgroup_path = parent->cgroup_path;
  child->complete = parent->complete;
  child->loss_epoch = parent->loss_epoch;
}

void ProcessTable::Impl::OnExec(const ProcessEvent& event) {
  const Entry* before = Newest(event.pid);
  Entry* entry = Begin(event.pid, event.time_ns);
  entry->process.comm = event.comm;
  entry->complete = true;
  entry->exe_pending = true;
  if (before != nullptr) {
    entry->process.parent = before->process.parent;
    entry->cgroup_path = before->cgroup_path;
    entry->birth = before->birth;
  }
  Announce(*entry);
  Describe(*entry);
}

void ProcessTable::Impl::OnComm(const ProcessEvent& event) {
  if (event.tid != 0 && event.tid != Raw(event.pid)) return;
  Entry* entry = Newest(event.pid);
  if (entry == nullptr) {
    entry = Begin(event.pid, event.time_ns);
    Announce(*entry);
  }
  entry->process.comm = event.comm;
  Describe(*entry);
}

void ProcessTable::Impl::OnMmap(const ProcessEvent& event) {
  Entry* entry = Newest(event.pid);
  if (entry == nullptr) {
    entry = Begin(event.pid, event.time_ns);
    Announce(*entry);
  }
  const ProcessMapping mapping = ToMapping(event.start, event.end, event.file_offset, event.file);
  // The kernel maps the executable itself before its loader (fs/binfmt_elf.c, load_elf_binary).
  if (entry->exe_pending && !mapping.anonymous && event.file.path.starts_with('/')) {
    entry->process.exe_path = WithoutDeleted(event.file.path);
    entry->exe_pending = false;
    Describe(*entry);
  }
  // Code on huge pages, perhaps: only /proc shows what lies around it.
  if (mapping.anonymous && OverlapsFile(*entry->process.mappings, mapping)) entry->complete = false;
  AddMapping(entry, mapping);
}

void ProcessTable::Impl::OnExit(const ProcessEvent& event) {
  Entry* entry = Newest(event.pid);
  // Older than the newest life: the pid was reused and the events came out of order.
  if (entry == nullptr || entry->start_ns > event.time_ns) return;
  End(entry, event.time_ns);
}

void ProcessTable::Impl::NoteTime(uint64_t time_ns) {
  now_ns = std::max(now_ns, time_ns);
  if (!loss_pending) return;
  if (last_recheck_ns != 0 && now_ns < last_recheck_ns + kRecheckEveryNs) return;
  loss_pending = false;
  last_recheck_ns = now_ns;
  ++loss_epoch;
}

// --- /proc ---------------------------------------------------------------------------------------

bool ProcessTable::Impl::TakeReadBudget(uint64_t time_ns) {
  const uint64_t second = time_ns / kSecondNs;
  if (second > budget_second) {
    budget_second = second;
    reads_this_second = 0;
  }
  if (reads_this_second >= kMaxReadsPerSecond) return false;
  ++reads_this_second;
  proc_reads.Add();
  return true;
}

absl::StatusOr<ProcSnapshot> ProcessTable::Impl::ReadSnapshot(Pid pid) {
  ProcSnapshot snapshot;
  snapshot.mappings = NoMappings();
  ASSIGN_OR_RETURN(snapshot.stat, reader.ReadStat(pid));
  if (snapshot.stat.kernel_thread) return snapshot;
  // Without permission the process is still known by its name.
  if (auto exe = reader.ReadExe(pid); exe.ok()) snapshot.exe_path = *std::move(exe);
  const auto maps = reader.ReadMaps(pid);
  if (!maps.ok()) return snapshot;
  auto set = std::make_shared<MappingSet>();
  for (const ProcMapsEntry& line : *maps) {
    ProcessMapping mapping = ToMapping(line.start, line.end, line.file_offset, line.file);
    mapping.remapped = line.remapped;
    if (line.remapped) remapped_text.Add();
    if (!set->Add(mapping)) mappings_full.Add();
  }
  snapshot.mappings = std::move(set);
  return snapshot;
}

void ProcessTable::Impl::Adopt(Entry* entry, ProcSnapshot snapshot) {
  Process& process = entry->process;
  process.comm = std::move(snapshot.stat.comm);
  process.kernel_thread = snapshot.stat.kernel_thread;
  if (Raw(process.parent) == 0) process.parent = snapshot.stat.parent;
  if (!snapshot.exe_path.empty()) {
    process.exe_path = std::move(snapshot.exe_path);
    entry->exe_pending = false;
  }
  if (!snapshot.mappings->all().empty()) process.mappings = std::move(snapshot.mappings);
  entry->complete = true;
  entry->loss_epoch = loss_epoch;
  Describe(*entry);
}

bool ProcessTable::Impl::NeedsRefresh(const Entry& entry, uint64_t time_ns) {
  if (entry.process.kernel_thread || &entry != Newest(entry.process.pid)) return false;
  if (entry.process.exited) return time_ns > entry.exit_ns + kLateSampleNs;
  return !entry.complete || entry.loss_epoch != loss_epoch;
}

// Compares an entry that may be wrong with /proc. Returns the life that the sample belongs to.
Entry* ProcessTable::Impl::Refresh(Entry* entry, uint64_t time_ns) {
  if (!TakeReadBudget(time_ns)) return entry;
  auto snapshot = ReadSnapshot(entry->process.pid);
  if (!snapshot.ok()) {
    // Gone. What is known has to do; do not ask again for each of its samples.
    entry->loss_epoch = loss_epoch;
    entry->gone = !entry->complete;
    entry->complete = true;
    if (entry->process.exited) entry->exit_ns = std::max(entry->exit_ns, time_ns);
    sweep_wanted = true;
    return entry;
  }
  const std::string& exe = snapshot->exe_path;
  const bool replaced =
      !exe.empty() && !entry->process.exe_path.empty() && exe != entry->process.exe_path;
  if (replaced) {
    const Pid parent = snapshot->stat.parent;
    entry = Begin(entry->process.pid, time_ns);
    entry->process.parent = parent;
    Announce(*entry);
  } else if (entry->process.exited) {
    Revive(entry);
  }
  Adopt(entry, *std::move(snapshot));
  return entry;
}

// Ends the lives that are no longer in /proc: one directory listing.
void ProcessTable::Impl::Sweep() {
  const auto pids = reader.ListPids();
  if (!pids.ok()) return;
  const absl::flat_hash_set<uint32_t> present = [&pids] {
    absl::flat_hash_set<uint32_t> set;
    for (const Pid pid : *pids) set.insert(Raw(pid));
    return set;
  }();
  for (const auto& [pid, entry] : newest) {
    if (entry->living && !present.contains(pid)) End(entry.get(), now_ns);
  }
}

// --- samples -------------------------------------------------------------------------------------

Entry* ProcessTable::Impl::MeetUnknown(Pid pid, uint64_t time_ns, std::string_view comm,
                                       bool kernel_thread) {
  Entry* entry = Begin(pid, /*time_ns=*/0);
  entry->process.comm = comm;
  entry->process.kernel_thread = kernel_thread;
  Announce(*entry);
  Describe(*entry);
  if (kernel_thread) {
    entry->complete = true;
    return entry;
  }
  // An event is missing: the one that announces the exit may be missing as well.
  sweep_wanted = true;
  if (!TakeReadBudget(time_ns)) return entry;
  if (auto snapshot = ReadSnapshot(pid); snapshot.ok()) {
    Adopt(entry, *std::move(snapshot));
    return entry;
  }
  entry->gone = true;
  entry->complete = true;
  End(entry, time_ns);
  return entry;
}

void ProcessTable::Impl::AddMapping(Entry* entry, const ProcessMapping& mapping) {
  std::shared_ptr<const MappingSet>& mappings = entry->process.mappings;
  // Made by this table as a non-const object and, when nobody else holds it, changed in place: a
  // program that loads 300 libraries does not copy its set 300 times.
  if (mappings.use_count() > 1) mappings = std::make_shared<MappingSet>(*mappings);
  if (!const_cast<MappingSet&>(*mappings).Add(mapping)) mappings_full.Add();
}

ProcessMapping ProcessTable::Impl::ToMapping(uint64_t start, uint64_t end, uint64_t file_offset,
                                             const symbolizer::FileIdentity& file) {
  return {.start = start,
          .end = end,
          .file_offset = file_offset,
          .file = symbolizer.Intern(file),
          .anonymous = IsAnonymousMapping(file.path),
          .vdso = file.path == "[vdso]"};
}

void ProcessTable::Impl::MakeLabels(Entry* entry) {
  Process& process = entry->process;
  const Entry* current = Newest(process.pid);
  // /proc speaks about this process only while no other one has its pid.
  const bool readable = !current->process.exited && current->birth == entry->birth;
  std::shared_ptr<const std::string> path;
  if (!process.kernel_thread) {
    path = cgroups.Find(readable ? std::optional(process.pid) : std::nullopt, process.cgroup_id);
    if (path != nullptr) entry->cgroup_path = path;
    if (path == nullptr) path = entry->cgroup_path;  // inherited
    if (path == nullptr) path = cgroups.Find(process.parent, 0);
    if (process.exe_path.empty() && readable && current == entry) {
      if (auto exe = reader.ReadExe(process.pid); exe.ok()) process.exe_path = *std::move(exe);
    }
  }
  process.labels = labels.Make({.cgroup_path = path == nullptr ? std::string_view() : *path,
                                .exe_path = process.exe_path,
                                .comm = process.comm,
                                .kernel_thread = process.kernel_thread});
}

// --- the table -----------------------------------------------------------------------------------

ProcessTable::ProcessTable(ProcessTableOptions options, symbolizer::Symbolizer& symbolizer,
                           base::MetricsRegistry& metrics)
    : impl_(std::make_unique<Impl>(std::move(options), symbolizer, metrics)) {}

ProcessTable::~ProcessTable() {
  if (impl_->options.directory != nullptr) impl_->options.directory->StopFeeding();
}

absl::Status ProcessTable::PrimeFromProc() {
  ASSIGN_OR_RETURN(const std::vector<Pid> pids, impl_->reader.ListPids());
  const base::SystemClock clock;
  for (const Pid pid : pids) {
    auto snapshot = impl_->ReadSnapshot(pid);
    if (!snapshot.ok()) continue;
    Entry* entry = impl_->Begin(pid, /*time_ns=*/0);
    entry->primed_ns = clock.MonotonicNs();
    entry->process.parent = snapshot->stat.parent;
    impl_->Announce(*entry);
    impl_->Adopt(entry, *std::move(snapshot));
  }
  impl_->processes_gauge.Set(static_cast<double>(impl_->living));
  return absl::OkStatus();
}

void ProcessTable::Apply(const ProcessEvent& event) {
  impl_->NoteTime(event.time_ns);
  switch (event.kind) {
    case ProcessEventKind::kFork:
      impl_->OnFork(event);
      break;
    case ProcessEventKind::kExec:
      impl_->OnExec(event);
      break;
    case ProcessEventKind::kComm:
      impl_->OnComm(event);
      break;
    case ProcessEventKind::kMmap:
      impl_->OnMmap(event);
      break;
    case ProcessEventKind::kExit:
      impl_->OnExit(event);
      break;
    case ProcessEventKind::kLost:
      impl_->loss_pending = true;
      impl_->sweep_wanted = true;
      impl_->NoteTime(event.time_ns);
      break;
  }
  impl_->Bury(impl_->options.max_exited, /*before_ns=*/0);
}

const Process& ProcessTable::ForSample(Pid pid, uint64_t time_ns, std::string_view comm,
                                       uint64_t cgroup_id, bool kernel_thread) {
  impl_->NoteTime(time_ns);
  Entry* entry = impl_->LifeAt(pid, time_ns);
  // Events do not say what the sample knows.
  if (entry != nullptr && kernel_thread) entry->process.kernel_thread = true;
  if (entry == nullptr) {
    entry = impl_->MeetUnknown(pid, time_ns, comm, kernel_thread);
  } else if (impl_->NeedsRefresh(*entry, time_ns)) {
    entry = impl_->Refresh(entry, time_ns);
  }
  Process& process = entry->process;
  if (process.comm.empty()) process.comm = comm;
  if (process.cgroup_id == 0 && cgroup_id != 0) {
    process.cgroup_id = cgroup_id;
    impl_->Describe(*entry);
  }
  if (entry->gone) impl_->process_unknown.Add();
  if (process.labels == nullptr) {
    impl_->MakeLabels(entry);
    if (impl_->options.directory != nullptr && entry == impl_->Newest(pid)) {
      impl_->options.directory->Labelled(pid, process.labels);
    }
  }
  return process;
}

std::vector<Pid> ProcessTable::Descendants(Pid pid) const {
  // Also through processes that have ended: their children are still descendants.
  absl::flat_hash_map<uint32_t, std::vector<const Entry*>> children;
  for (const auto& [child, entry] : impl_->newest) {
    children[Raw(entry->process.parent)].push_back(entry.get());
  }
  std::vector<Pid> living;
  std::vector<Pid> reached = {pid};
  absl::flat_hash_set<uint32_t> seen = {Raw(pid)};
  for (size_t i = 0; i < reached.size(); ++i) {
    const Entry* entry = impl_->Newest(reached[i]);
    if (entry != nullptr && !entry->process.exited) living.push_back(reached[i]);
    for (const Entry* child : children[Raw(reached[i])]) {
      if (seen.insert(Raw(child->process.pid)).second) reached.push_back(child->process.pid);
    }
  }
  return living;
}

void ProcessTable::Expire(uint64_t before_ns) {
  if (impl_->sweep_wanted) {
    impl_->sweep_wanted = false;
    impl_->Sweep();
  }
  impl_->Bury(impl_->options.max_exited, before_ns);
  impl_->processes_gauge.Set(static_cast<double>(impl_->living));
}

void ProcessTable::ForEachAsEvents(absl::FunctionRef<void(const ProcessEvent&)> callback) const {
  for (const auto& [pid, entry] : impl_->newest) {
    const Process& process = entry->process;
    if (process.exited) continue;
    ProcessEvent event;
    event.pid = process.pid;
    event.tid = pid;
    event.kind = ProcessEventKind::kFork;
    event.parent = process.parent;
    callback(event);
    event.kind = ProcessEventKind::kExec;
    event.comm = process.comm;
    callback(event);
    event.kind = ProcessEventKind::kMmap;
    for (const ProcessMapping& mapping : process.mappings->all()) {
      event.start = mapping.start;
      event.end = mapping.end;
      event.file_offset = mapping.file_offset;
      const symbolizer::FileInfo info = impl_->symbolizer.Info(mapping.file);
      event.file.path = mapping.anonymous ? "//anon" : std::string(info.path);
      event.file.build_id = symbolizer::BuildId::FromHex(info.build_id);
      callback(event);
    }
  }
}

size_t ProcessTable::size() const { return impl_->total; }

}  // namespace firewatch::agent
