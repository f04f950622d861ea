// SPDX-License-Identifier: Apache-2.0
// Every process of the node: its mappings, its parent, what it is called and which labels it has.
// Fed by side-band events in time order, primed once from /proc; never re-reads /proc per sample.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "agent/core/events.h"
#include "agent/core/process_directory.h"
#include "base/metrics.h"
#include "profile/labels.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

struct ProcessMapping {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t file_offset = 0;
  symbolizer::FileId file{};
  bool anonymous = false;  // JIT: executable memory without a file
  bool vdso = false;
  bool remapped = false;  // anonymous memory that stands for this piece of the file
};

// Executable mappings sorted by start, not overlapping. Immutable: shared between a process, its
// forked children and the window that is being collected (a fork storm costs no copies).
class MappingSet {
 public:
  // nullptr when no mapping covers the address. Binary search.
  const ProcessMapping* Find(uint64_t address) const;
  // The first mapping of these bytes of the file, or nullptr.
  const ProcessMapping* FindFile(symbolizer::FileId file, uint64_t file_offset) const;
  const std::vector<ProcessMapping>& all() const { return mappings_; }
  // A copy with one mapping added; whatever it overlaps is cut or removed (as mmap does).
  std::shared_ptr<const MappingSet> With(const ProcessMapping& mapping) const;
  // The same in place, for a set that nobody shares yet. False (and unchanged) when the set would
  // pass kMaxMappings; neighbours that continue each other count as one.
  bool Add(const ProcessMapping& mapping);

  // 0.8 MB. A process that maps more executable pieces than this is hostile or broken.
  static constexpr size_t kMaxMappings = 16'384;

 private:
  void Coalesce(size_t from, size_t to);

  std::vector<ProcessMapping> mappings_;
};

// One life of a process between exec and exec. Values are stable for that life except mappings.
struct Process {
  Pid pid{};
  Pid parent{};
  uint64_t incarnation = 0;  // unique for the life of the table: differs after exec and pid reuse
  std::string comm;          // of the main thread
  std::string exe_path;      // "" for kernel threads and when unknown
  bool kernel_thread = false;
  bool exited = false;  // this life is over (exit, or replaced by exec or a reused pid)
  uint64_t cgroup_id = 0;
  std::shared_ptr<const MappingSet> mappings;  // never null
  // node, service, container_id, cgroup, exe, comm: computed once, at the first sample.
  std::shared_ptr<const profile::LabelSet> labels;
};

struct ProcessTableOptions {
  std::string proc_root = "/proc";
  std::string cgroup_root = "/sys/fs/cgroup";
  std::string node;                // label; host name by default
  std::string service;             // label given on the command line; overrides discovery
  profile::LabelSet extra_labels;  // --label k=v
  size_t max_processes = 32'768;   // living ones that are followed
  size_t max_exited = 2'048;       // kept for samples that arrive after the exit event
  // Told of every life and what is known of it; may be nullptr. Must outlive the table.
  ProcessDirectory* directory = nullptr;
};

// One home thread.
class ProcessTable {
 public:
  // `symbolizer` and `metrics` must outlive the table.
  ProcessTable(ProcessTableOptions options, symbolizer::Symbolizer& symbolizer,
               base::MetricsRegistry& metrics);
  ~ProcessTable();

  // Reads every process of /proc once (maps, comm, exe). Processes that vanish meanwhile are no
  // error. Call after the side-band rings are open, so that nothing falls between.
  absl::Status PrimeFromProc();

  void Apply(const ProcessEvent& event);

  // The process that a sample of `pid` at `time_ns` belongs to. A pid that no event announced is
  // read from /proc once (bounded per second) and else made up from `comm` alone: a sample is never
  // dropped for want of a process. Stable until the next Apply or Expire.
  const Process& ForSample(Pid pid, uint64_t time_ns, std::string_view comm, uint64_t cgroup_id,
                           bool kernel_thread);

  // For filters and `firewatch record`: the living children, grandchildren … of `pid`, and `pid`.
  std::vector<Pid> Descendants(Pid pid) const;

  // Forgets exited processes whose samples have all been seen (exit older than `before_ns`), and
  // after lost events those that are no longer in /proc. Once per window.
  void Expire(uint64_t before_ns);

  // The living processes as the events that would make them (kFork, kExec, kMmap…), at time 0: the
  // head of a replay file. Files are told by path and, where known, build id.
  void ForEachAsEvents(absl::FunctionRef<void(const ProcessEvent&)> callback) const;

  size_t size() const;  // living and exited

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
