// SPDX-License-Identifier: Apache-2.0
// The symbol indexes of a Symbolizer by key (their name in the cache): mapped when they are needed,
// unmapped when they have not been for long, with the names of theirs that have been shown.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/hash.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/index/name_cache.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {

// One index, for all files with that key.
struct IndexSlot {
  std::string key;
  NameReason no_lines = NameReason::kPending;
  std::string lines_text;  // why
  MappedIndex mapped;      // if is_mapped
  NameCache names;         // of `mapped`
  bool is_mapped = false;
  uint64_t last_use = 0;
};

// One home thread. `cache` must outlive it. Slots are numbered from 0; what they hold of an
// index is valid until UnmapUnused, or Put or Forget of the same slot.
class IndexSlots {
 public:
  explicit IndexSlots(IndexCache& cache) : cache_(cache) {}

  IndexSlot& operator[](uint32_t number) { return slots_[number]; }
  const IndexSlot& operator[](uint32_t number) const { return slots_[number]; }

  // The slot of that key, mapped or not; nothing when there was none so far.
  std::optional<uint32_t> NumberOf(const std::string& key) const;
  // The same with its index mapped; nothing when the cache has none.
  std::optional<uint32_t> Find(const std::string& key);
  // Makes `index` the one of that key.
  uint32_t Put(const std::string& key, MappedIndex index);
  // Mapped again if need be; nullptr when the cache has it no more.
  IndexSlot* ForReading(uint32_t number);

  // Its texts are valid until ForgetNames drops them.
  SymbolFrame FrameOf(IndexSlot& slot, const IndexFrame& frame);
  // Names are kept unpacked up to a bound; beyond it all go.
  void ForgetNames();
  // Half of the mappings, those that were used longest ago, when there are too many.
  void UnmapUnused();

  // Gives up those that `used` does not have (by number, as long as there are slots) and of which
  // `drop` says yes. The index stays in the cache; the number comes again.
  void ForgetUnused(const std::vector<bool>& used,
                    absl::FunctionRef<bool(const std::string& key)> drop);
  size_t size() const { return slots_.size(); }

  uint64_t mapped_bytes() const { return mapped_bytes_; }

 private:
  uint32_t Slot(const std::string& key);
  void Map(IndexSlot& slot, MappedIndex index);
  void Unmap(IndexSlot& slot);

  IndexCache& cache_;
  std::deque<IndexSlot> slots_;
  std::vector<uint32_t> free_slots_;
  base::StringMap<uint32_t> by_key_;
  NameReader reader_;
  size_t names_bytes_ = 0;  // of all slots' names
  uint64_t mapped_bytes_ = 0;
  size_t mapped_count_ = 0;
  uint64_t use_clock_ = 0;
};

}  // namespace firewatch::symbolizer
