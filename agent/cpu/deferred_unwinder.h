// SPDX-License-Identifier: Apache-2.0
// Samples that met a file before its unwind table was in the kernel: they bring a copy of their
// stack (bpf/include/frame.h), wait here until the helper has built the tables, and are then walked
// by bpf/unwind.h as the kernel side would have walked them. So the first samples of a process, of
// a library and of the agent's life are as whole as all others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "agent/core/process_table.h"
#include "agent/cpu/sample.h"
#include "base/metrics.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

struct DeferredLimits {
  size_t samples = 512;
  size_t bytes = size_t{8} << 20;  // on the heap
};

// One home thread, the symbolizer's. Everything passed by reference must outlive it.
class DeferredUnwinder {
 public:
  // Takes a sample whose user part is what this walk has made of it. The record is valid during the
  // call; `window` is what Take was given.
  using Finished = absl::FunctionRef<void(const SampleRecord&, const Process&, size_t window)>;

  DeferredUnwinder(symbolizer::Symbolizer& symbolizer, base::MetricsRegistry& metrics,
                   DeferredLimits limits = {});
  ~DeferredUnwinder();

  // A sample with a copy of its stack, and the process as it is at that moment. Walks it at once
  // when all tables are there, else asks for those that it may need and keeps it. False, and
  // nothing was done, when no more can be kept: the sample is then taken as it is.
  bool Take(const SampleRecord& sample, const Process& process, size_t window, Finished finished);

  // Walks those whose tables have come, or will never come. After each Poll of the symbolizer. Lets
  // go of the tables when nothing was walked since the last call.
  void Advance(Finished finished);
  // Walks all that wait for this window with the tables that are there.
  void Finish(size_t window, Finished finished);

  // The files of the samples that wait (Symbolizer::ForgetUnused).
  void AddFiles(symbolizer::FileSet* kept) const;

  size_t waiting(size_t window) const;
  bool waiting() const { return !kept_.empty(); }
  // What further samples may still put onto the heap.
  size_t free_bytes() const { return limits_.bytes - kept_bytes_; }

 private:
  enum class TableState : uint8_t { kAsked, kReady, kNone };
  struct File {
    TableState state = TableState::kAsked;
    uint32_t table = FW_NO_TABLE;  // index in tables_
  };
  struct Kept;
  struct Walker;
  friend struct DeferredWalk;  // the hooks of bpf/unwind.h

  const File& Ask(const ProcessMapping& mapping, const Process& process);
  void AskForAll(const SampleRecord& sample, const Process& process);
  bool Walk(const SampleRecord& sample, const Process& process, bool force, SampleRecord* out,
            ProcessMapping* waits_for);
  void Drop(const Kept& kept);
  void ForgetTables();

  symbolizer::Symbolizer& symbolizer_;
  const DeferredLimits limits_;
  std::deque<std::unique_ptr<Kept>> kept_;  // in the order of their samples
  size_t kept_bytes_ = 0;
  absl::flat_hash_map<symbolizer::FileId, File> files_;
  // Read where they are mapped: no copy of a table is made for a few stacks.
  std::vector<std::shared_ptr<const symbolizer::MappedUnwindTable>> tables_;
  std::unique_ptr<Walker> walker_;
  bool walked_since_advance_ = false;

  base::Counter& walked_;
  base::Counter& left_;
};

}  // namespace firewatch::agent
