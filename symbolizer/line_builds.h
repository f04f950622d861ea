// SPDX-License-Identifier: Apache-2.0
// The second stage of a file: what symbol tables said is out, now lines and inlined functions (and
// the symbols of a separate debug file) are added. Work that can wait: one file at a time, the one
// with the most samples first, in a helper process of its own, with a bound of memory, within a
// share of one core (cpu_budget.h). A way of one file:
//
//   identify the file (links, build id) -> look for its debug file in the root of its process, then
//   in the own one, and identify each candidate until the build id fits -> dwz's common file,
//   package of split DWARF -> build
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/unique_fd.h"
#include "symbolizer/cpu_budget.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/helper/helper_queue.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/process/mapped_object.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {

struct LineBuildsOptions {
  std::string helper_path;
  std::string proc_root = "/proc";
  uint32_t max_cpu_seconds = 30;           // for one file
  uint64_t max_bytes = uint64_t{1} << 30;  // private memory of the helper
  CpuBudgetOptions budget;
};

// As the index remembers it.
NameReason ReasonOf(LinesState state);

// One home thread. `cache`, `clock` and `metrics` must outlive it.
class LineBuilds {
 public:
  // How a file came out. `output` holds an index when `built`.
  struct Outcome {
    std::string key;
    bool built = false;
    base::UniqueFd output;
    BuildId id;
    // kNone, or why there are no lines; `text` says it at length.
    NameReason no_lines = NameReason::kNone;
    std::string text;
  };

  LineBuilds(LineBuildsOptions options, IndexCache& cache, const base::Clock& clock,
             base::MetricsRegistry& metrics);
  ~LineBuilds();

  // The index of `key` (its name in the cache) has no lines yet. Again: a newer process to find
  // the file by. A file that has come out is not taken again.
  void Want(const std::string& key, const FileIdentity& file, const MappingHint& hint);
  // Its lines are lost: they may be wanted again.
  void Forget(const std::string& key) { done_.erase(key); }
  // Samples passed through frames of that file: it matters more.
  void AddWeight(std::string_view key, uint64_t frames);

  // Goes on; waits up to `timeout_ms` for the helper when it is at work.
  std::vector<Outcome> Poll(int timeout_ms);

  // Files under way, or waiting within the budget.
  bool busy() const { return job_ != nullptr || (!wanted_.empty() && allowed_); }
  // Waits for its share of CPU time, not for the helper.
  bool over_budget() const { return !wanted_.empty() && !allowed_; }

  uint64_t cpu_ns() const { return queue_.cpu_ns(); }  // of the helper

 private:
  struct Wanted {
    FileIdentity file;
    MappingHint hint;
    uint64_t weight = 0;
  };
  struct Job;

  void StartNext();
  void OnResult(HelperResult result, std::vector<Outcome>* outcomes);
  void OnFileIdentified(const HelperAnswer& answer, std::vector<Outcome>* outcomes);
  void OnDebugIdentified(const HelperAnswer& answer, std::vector<Outcome>* outcomes);
  void TryNextDebugFile(std::vector<Outcome>* outcomes);
  void Build(std::vector<Outcome>* outcomes);
  void OnBuilt(HelperResult result, std::vector<Outcome>* outcomes);
  void End(Outcome outcome, std::vector<Outcome>* outcomes);
  void Fail(NameReason reason, std::string text, std::vector<Outcome>* outcomes);

  const LineBuildsOptions options_;
  IndexCache& cache_;
  const base::Clock& clock_;
  HelperQueue queue_;
  CpuBudget budget_;
  bool allowed_ = true;
  uint64_t spent_ns_ = 0;  // of the helper's CPU time, deducted

  base::StringMap<Wanted> wanted_;
  base::StringSet done_;  // keys that have come out
  std::unique_ptr<Job> job_;

  base::Counter& built_;
  base::Counter& without_;
  base::Counter& cpu_ms_;
  base::Gauge& waiting_gauge_;
};

}  // namespace firewatch::symbolizer
