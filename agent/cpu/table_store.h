// SPDX-License-Identifier: Apache-2.0
// Which unwind tables are in the kernel. A table is copied into slabs when somebody wants it, stays
// while there is room, and makes room for one that is used more. The unwinder counts the samples
// that touch a table, also while it is not there: so what is wanted back is known.
//
//   reserved --Attach--> absent <--load / evict--> ready      (of one index of the map `tables`)
//
// Nothing that a running program may read is ever overwritten: what is given up (runs of slabs,
// indexes) is reused only after WaitForPrograms, once for all that was given up together. A table
// that moves is copied, then its entry points to the copy; both say the same.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "agent/core/memory.h"
#include "agent/cpu/slab_space.h"
#include "agent/cpu/table_memory.h"
#include "base/metrics.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

// What the kernel charges for slabs; the same gauge for the same registry.
base::Gauge& SlabBytesGauge(base::MetricsRegistry& metrics);

// One home thread. Everything passed by reference must outlive it.
class TableStore {
 public:
  using Table =
      std::shared_ptr<const symbolizer::MappedUnwindTable>;  // as the symbolizer shares it
  // How many bytes slabs may take now; asked before each new slab, by ObeyBudget and once per
  // window.
  using Budget = std::function<MemoryBudget::Room()>;

  TableStore(TableMemory& memory, Budget budget, base::MetricsRegistry& metrics);

  // An index for a file whose table is not built yet; nothing when all are in use.
  std::optional<uint32_t> Reserve();
  // The table of a reserved index. Files of one build share a table: then the index that has it
  // already is returned, and the reserved one is given back. Loaded now if there is room, else by
  // LoadWaiting.
  uint32_t Attach(uint32_t index, Table table);
  // The file is not known any more: one Release for each Reserve.
  void Release(uint32_t index);

  // Makes room for tables that wait, by putting out tables that are used less. Once per drain; at
  // most one eviction (and so one wait for programs, some 10 ms) per second.
  void LoadWaiting(uint64_t now_s);
  // Gives back at once what is over the budget, the tables that are used least. Nothing to do costs
  // a look at the budget; giving back waits for programs, some 10 ms per slab.
  void ObeyBudget();
  // Reads the use counts, brings back what is wanted, gives back what is over the budget or empty.
  void EndWindow(uint64_t now_s);

  struct Entry {
    uint32_t index = 0;
    const symbolizer::UnwindTable* table = nullptr;  // null: not built yet
    uint64_t bytes = 0;                              // in slabs; 0 when not loaded
    uint32_t last_used_s = 0;                        // CLOCK_MONOTONIC
    uint32_t uses = 0;
    uint32_t files = 0;
    bool loaded = false;
  };
  // In the order of the indexes.
  std::vector<Entry> Entries() const;
  Entry EntryOf(uint32_t index) const;

  size_t loaded_count() const { return loaded_; }
  size_t slab_count() const { return space_.slab_count(); }
  uint64_t slab_bytes() const { return space_.slab_count() * memory_.SlabBytes(); }  // charged
  uint64_t used_bytes() const { return space_.used_units() * 8; }
  uint64_t evictions() const { return evictions_; }
  uint64_t loads() const { return loads_.value(); }
  bool waiting() const { return !waiting_.empty(); }

 private:
  struct Slot {
    Table table;
    std::vector<SlabRun> runs;  // empty: not loaded
    uint64_t units = 0;         // what the table takes
    uint32_t files = 0;         // 0: the index is free
    uint32_t seen_uses = 0;
    uint32_t heat = 0;  // samples of the windows so far, each window's worth half of the next one's
    bool waiting = false;
  };
  class Writer;

  uint32_t UsesOf(uint32_t index) const;
  uint32_t HeatOf(uint32_t index) const;
  std::vector<uint32_t> LoadedFromColdest() const;
  size_t SlabsIn(uint64_t bytes) const;
  bool AddSlab();
  bool Load(uint32_t index, bool may_grow);
  void Unload(uint32_t index);
  void Evict(uint32_t index);
  void Reclaim();
  void Want(uint32_t index);
  void EvictFor(const std::vector<uint32_t>& wanted);
  void ShrinkTo(size_t slabs);
  void EmptySlabs(size_t count);
  void RemoveEmptySlabs(size_t keep);
  void ShowMetrics();

  TableMemory& memory_;
  const Budget budget_;
  SlabSpace space_;
  std::vector<Slot> slots_;  // by index; grows
  std::vector<uint32_t> free_indexes_;
  absl::flat_hash_map<const symbolizer::MappedUnwindTable*, uint32_t> by_table_;
  std::vector<uint32_t> waiting_;
  // Given up, not reusable before the next WaitForPrograms.
  std::vector<SlabRun> leaving_runs_;
  uint64_t leaving_units_ = 0;
  std::vector<uint32_t> leaving_indexes_;
  uint64_t last_eviction_s_ = 0;
  uint64_t evictions_ = 0;
  size_t loaded_ = 0;

  base::Counter& evicted_loss_;
  base::Counter& no_room_loss_;
  base::Counter& loads_;
  base::Counter& waits_;
  base::Gauge& loaded_gauge_;
  base::Gauge& used_gauge_;
  base::Gauge& slabs_gauge_;
};

}  // namespace firewatch::agent
