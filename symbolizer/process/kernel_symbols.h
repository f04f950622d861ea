// SPDX-License-Identifier: Apache-2.0
// Names of kernel addresses: /proc/kallsyms turned into an index file of the cache and mapped, so
// that 120,000 symbols occupy no memory of the agent's own; only names that were shown do. A child
// process makes it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/index/name_cache.h"
#include "symbolizer/process/bpf_programs.h"
#include "symbolizer/process/child_job.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {

// One home thread. `cache`, `clock` and `metrics` must outlive it.
class KernelSymbols {
 public:
  // `programs` may be nullptr: then kallsyms alone knows BPF programs.
  KernelSymbols(std::string proc_root, IndexCache& cache, const base::Clock& clock,
                base::MetricsRegistry& metrics, std::unique_ptr<BpfProgramReader> programs);

  // Has the list read, once; cheap. Until that is done names are pending.
  void Request();
  // Waits up to `timeout_ms` for a reading that is under way, and takes what it has found.
  void Poll(int timeout_ms);
  bool is_pending() const { return job_ != nullptr; }

  // Never waits; the first call is a Request, too. BPF programs come and go: their own list is
  // looked at for addresses of programs and for those that are not known, once a second at most.
  // The addresses of a module that went may be another one's now: when one is asked for, or one
  // that is not known, and the list of modules has changed, everything is read again, and until
  // then such names are pending; that list is looked at every 10 s at most. What is not known even
  // then (trampolines) has everything read again when a minute has passed, and twice as long after
  // each further time, up to 10 min, so that one hopeless address costs nothing. The views stay
  // valid until DropRetired.
  KernelSymbol Lookup(uint64_t address);

  // "" or why there are no kernel names, as far as is known.
  std::string_view Reason() const { return reason_; }
  uint64_t child_cpu_ns() const { return child_cpu_ns_; }

  // Unmaps lists that have been replaced, and forgets names when there are very many.
  void DropRetired();
  uint64_t mapped_bytes() const { return current_.file.bytes().size(); }

 private:
  void Read(uint64_t next_interval_ns);
  absl::Status StartJob();
  absl::Status Adopt();
  absl::Status WriteIndex(const std::string& modules, int fd) const;
  // True when modules came or went since the symbols were read.
  bool ModulesChanged();
  const BpfFunction* BpfFunctionAt(uint64_t address);

  const std::string proc_root_;
  IndexCache& cache_;
  const base::Clock& clock_;
  base::Counter& reads_;

  struct Retired {
    MappedIndex index;
    NameCache names;
  };
  MappedIndex current_;
  NameCache names_;  // of current_
  NameReader reader_;
  std::vector<Retired> retired_;
  std::string reason_;
  bool tried_ = false;
  uint64_t next_read_ns_ = 0;
  uint64_t interval_ns_ = 0;
  uint64_t modules_hash_ = 0;
  uint64_t next_modules_look_ns_ = 0;

  std::unique_ptr<ChildJob> job_;  // while the list is being read
  base::UniqueFd scratch_;         // what it writes
  uint64_t child_cpu_ns_ = 0;

  std::unique_ptr<BpfProgramReader> programs_;
  BpfFunctions functions_;
  uint64_t next_programs_look_ns_ = 0;
};

}  // namespace firewatch::symbolizer
