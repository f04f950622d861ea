// SPDX-License-Identifier: Apache-2.0
// For an agent that gives debug information away: finds the files that a mapped file's names are
// made of, and makes copies of them without code (debug_copy.h). Foreign bytes are read by the
// sandboxed helper only; here files are opened and descriptors handed over. Blocking, for a thread
// of its own beside the Symbolizer's.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/helper/helper_queue.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {

struct DebugCopiesOptions {
  std::string helper_path;  // "" = /proc/self/exe
  std::string proc_root = "/proc";
  std::string directory;                           // where unlinked copies are written; must exist
  uint64_t max_file_bytes = uint64_t{1} << 30;     // larger files are left out
  uint32_t max_cpu_seconds = 10;                   // of the helper, per question
  uint64_t max_helper_bytes = uint64_t{32} << 20;  // its private memory
};

// One home thread. `clock` and `metrics` must outlive it.
class DebugCopies {
 public:
  struct Source {
    base::UniqueFd fd;
    BuildId id;
    bool is_executable = false;  // the file that runs; else its separate debug file
    bool is_common = false;      // dwz's, with an id of its own, what both may refer to
    bool has_lines = false;      // DWARF; else symbols alone
    uint64_t bytes = 0;
  };

  DebugCopies(DebugCopiesOptions options, const base::Clock& clock, base::MetricsRegistry& metrics);

  // In the order of sending; not empty. A file with DWARF alone; else its debug file, where there
  // is one of the same build, and the file; else the file, when it has a symbol table. Before all
  // the common file of dwz that the DWARF refers to, where it is there.
  // Errors: NotFound, when the file cannot be opened now (its process is gone);
  // FailedPrecondition, when it is stripped and has no debug file; InvalidArgument, when the helper
  // refuses it; Unavailable, when there is no helper; Cancelled, when `stop` is set meanwhile.
  absl::StatusOr<std::vector<Source>> Find(const FileUse& use, const std::atomic<bool>& stop);

  // ResourceExhausted above max_file_bytes; Unavailable also when the copy cannot be written.
  absl::StatusOr<base::UniqueFd> Copy(Source& source, const std::atomic<bool>& stop);

  // Ends the helper when it has had nothing to do for long; now and then while nothing is asked.
  void Idle() { queue_.Poll(0); }
  uint64_t cpu_ns() const { return queue_.cpu_ns(); }  // of the helper

 private:
  // `fd` comes back.
  absl::StatusOr<HelperAnswer> Ask(HelperOperation operation, bool is_executable,
                                   base::UniqueFd& fd, base::UniqueFd* output,
                                   const std::atomic<bool>& stop);
  absl::StatusOr<base::UniqueFd> NewScratch() const;
  // Nothing when there is none of that build.
  absl::StatusOr<std::vector<Source>> FindDebugFile(const FileUse& use, const HelperAnswer& facts,
                                                    int elf, const std::atomic<bool>& stop);
  // Puts it before the others; `path` and `facts` are those of the file that refers to it.
  absl::Status AddCommonFile(const FileUse& use, const std::string& path, const HelperAnswer& facts,
                             const std::atomic<bool>& stop, std::vector<Source>* sources);

  const DebugCopiesOptions options_;
  HelperQueue queue_;
};

}  // namespace firewatch::symbolizer
