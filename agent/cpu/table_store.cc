// SPDX-License-Identifier: Apache-2.0
// Loading -> eviction -> shrinking.
#include "agent/cpu/table_store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "agent/core/losses.h"
#include "base/check.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using symbolizer::UnwindTable;

// A run shorter than 4 KiB is taken only for what is left of a table: a hundred small holes are not
// worth a hundred runs.
constexpr uint64_t kShortRunUnits = 512;
// What fits into free space is less than it is long: pieces are never cut.
constexpr uint64_t Usable(uint64_t units) { return units - units / 8; }

constexpr uint64_t UnitsOf(size_t bytes) { return (bytes + 7) / 8; }

uint64_t TableUnits(const UnwindTable& table) {
  uint64_t units = UnitsOf(table.rules().size_bytes()) + UnitsOf(table.directory().size_bytes());
  for (const fw_page_entry& entry : table.directory()) {
    if (entry.rows != 0) units += UnitsOf(table.page(entry).size());
  }
  return units;
}

// Each piece stands in one slab.
bool FitsIntoSlabs(const UnwindTable& table) {
  return table.rules().size_bytes() <= FW_SLAB_BYTES &&
         table.directory().size_bytes() <= FW_SLAB_BYTES;
}

uint32_t LoadWord(const fw_u32& word) {
  return std::atomic_ref<fw_u32>(const_cast<fw_u32&>(word)).load(std::memory_order_relaxed);
}

void PublishWord(fw_u32& word, uint32_t value) {
  std::atomic_ref<fw_u32>(word).store(value, std::memory_order_release);
}

}  // namespace

base::Gauge& SlabBytesGauge(base::MetricsRegistry& metrics) {
  return metrics.AddGauge("firewatch_unwind_slab_bytes",
                          "Bytes that the kernel charges for the slabs of unwind tables.");
}

// Puts the pieces of one table into free space, one after the other. Nobody reads there yet, so
// what does not fit as a whole is simply given back.
class TableStore::Writer {
 public:
  Writer(TableStore& store, uint64_t units, bool may_grow)
      : store_(store), remaining_(units), may_grow_(may_grow) {}
  ~Writer() {
    for (const SlabRun run : runs_) store_.space_.Give(run);
  }

  // Null when there is no room.
  std::byte* Place(size_t bytes, fw_location* location) {
    const auto units = static_cast<uint32_t>(UnitsOf(bytes));
    if (units > left_ && !NextRun(units)) return nullptr;
    *location = next_;
    next_ += units;
    left_ -= units;
    remaining_ -= units;
    return store_.memory_.Slab(SlabOf(*location)) + size_t{UnitOf(*location)} * 8;
  }

  bool Write(const UnwindTable& table, fw_location* rules, fw_location* directory) {
    std::byte* to = Place(table.rules().size_bytes(), rules);
    if (to == nullptr) return false;
    std::memcpy(to, table.rules().data(), table.rules().size_bytes());
    to = Place(table.directory().size_bytes(), directory);
    if (to == nullptr) return false;
    for (const fw_page_entry& entry : table.directory()) {
      fw_page_entry moved = entry;
      moved.location = 0;
      if (entry.rows != 0) {
        const std::span<const std::byte> page = table.page(entry);
        std::byte* page_to = Place(page.size(), &moved.location);
        if (page_to == nullptr) return false;
        std::memcpy(page_to, page.data(), page.size());
      }
      std::memcpy(to, &moved, sizeof(moved));
      to += sizeof(moved);
    }
    return true;
  }

  std::vector<SlabRun> Finish() {
    ReturnTail();
    return std::exchange(runs_, {});
  }

 private:
  bool NextRun(uint32_t units) {
    ReturnTail();
    const auto wanted = static_cast<uint32_t>(std::min<uint64_t>(remaining_, kSlabUnits));
    const uint32_t least =
        std::max(units, static_cast<uint32_t>(std::min<uint64_t>(remaining_, kShortRunUnits)));
    auto run = store_.space_.Take(wanted, least);
    if (!run.has_value() && may_grow_ && store_.AddSlab()) run = store_.space_.Take(wanted, least);
    if (!run.has_value()) return false;
    runs_.push_back(*run);
    next_ = run->location;
    left_ = run->units;
    return true;
  }

  void ReturnTail() {
    if (left_ == 0) return;
    runs_.back().units -= left_;
    if (runs_.back().units == 0) runs_.pop_back();
    store_.space_.Give({next_, left_});
    left_ = 0;
  }

  TableStore& store_;
  uint64_t remaining_;
  const bool may_grow_;
  std::vector<SlabRun> runs_;
  fw_location next_ = 0;
  uint32_t left_ = 0;
};

TableStore::TableStore(TableMemory& memory, Budget budget, base::MetricsRegistry& metrics)
    : memory_(memory),
      budget_(std::move(budget)),
      evicted_loss_(LossCounter(metrics, FW_LOSS_TABLE_EVICTED)),
      no_room_loss_(LossCounter(metrics, FW_LOSS_TABLE_NO_ROOM)),
      loads_(metrics.AddCounter("firewatch_unwind_table_loads_total",
                                "Unwind tables copied into the kernel, moves included.")),
      waits_(metrics.AddCounter("firewatch_unwind_waits_total",
                                "Waits for running programs before memory of tables was reused.")),
      loaded_gauge_(metrics.AddGauge("firewatch_unwind_tables", "Unwind tables in the kernel.")),
      used_gauge_(metrics.AddGauge("firewatch_unwind_table_bytes", "Bytes that tables take.")),
      slabs_gauge_(SlabBytesGauge(metrics)) {}

// --- indexes -------------------------------------------------------------------------------------

std::optional<uint32_t> TableStore::Reserve() {
  if (free_indexes_.empty() && slots_.size() >= memory_.tables().size()) Reclaim();
  uint32_t index = 0;
  if (!free_indexes_.empty()) {
    index = free_indexes_.back();
    free_indexes_.pop_back();
  } else if (slots_.size() < memory_.tables().size()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    return std::nullopt;
  }
  slots_[index] = Slot();
  slots_[index].files = 1;
  memory_.tables()[index] = fw_table{};
  return index;
}

uint32_t TableStore::Attach(uint32_t index, Table table) {
  const auto [it, added] = by_table_.try_emplace(table.get(), index);
  if (!added) {
    const uint32_t shared = it->second;
    ++slots_[shared].files;
    Release(index);
    return shared;
  }
  Slot& slot = slots_[index];
  slot.units = TableUnits(table->table);
  slot.table = std::move(table);
  if (!FitsIntoSlabs(slot.table->table)) {
    no_room_loss_.Add();
  } else if (!Load(index, /*may_grow=*/true)) {
    Want(index);
  }
  ShowMetrics();
  return index;
}

void TableStore::Release(uint32_t index) {
  Slot& slot = slots_[index];
  CHECK(slot.files > 0);
  if (--slot.files > 0) return;
  Unload(index);
  if (slot.waiting) std::erase(waiting_, index);
  if (slot.table != nullptr) by_table_.erase(slot.table.get());
  slot = Slot();
  leaving_indexes_.push_back(index);
}

// --- loading -------------------------------------------------------------------------------------

size_t TableStore::SlabsIn(uint64_t bytes) const {
  // One slab always stays: it is what WaitForPrograms waits with.
  return std::clamp<size_t>(bytes / memory_.SlabBytes(), 1, FW_SLABS_MAX);
}

bool TableStore::AddSlab() {
  if (space_.slab_count() >= SlabsIn(budget_().grow_to)) return false;
  uint32_t slab = 0;
  while (space_.used().contains(slab)) ++slab;
  if (const absl::Status status = memory_.AddSlab(slab); !status.ok()) {
    spdlog::warn("memory for unwind tables: {}", base::Message(status));
    return false;
  }
  space_.Add(slab);
  return true;
}

// Also moves a table that is loaded: its old place is given up.
bool TableStore::Load(uint32_t index, bool may_grow) {
  Slot& slot = slots_[index];
  const UnwindTable& table = slot.table->table;
  Writer writer(*this, slot.units, may_grow);
  fw_location rules = 0;
  fw_location directory = 0;
  if (!writer.Write(table, &rules, &directory)) return false;
  for (const SlabRun run : slot.runs) {
    leaving_runs_.push_back(run);
    leaving_units_ += run.units;
  }
  if (slot.runs.empty()) ++loaded_;
  slot.runs = writer.Finish();
  fw_table& entry = memory_.tables()[index];
  entry.first_page = table.first_page();
  entry.page_count = static_cast<fw_u32>(table.directory().size());
  entry.rule_slots = static_cast<fw_u32>(table.rules().size());
  PublishWord(entry.rules, rules);
  PublishWord(entry.directory, directory);
  PublishWord(entry.state, FW_TABLE_READY);
  loads_.Add();
  return true;
}

void TableStore::Unload(uint32_t index) {
  Slot& slot = slots_[index];
  if (slot.runs.empty()) return;
  PublishWord(memory_.tables()[index].state, FW_TABLE_ABSENT);
  for (const SlabRun run : slot.runs) {
    leaving_runs_.push_back(run);
    leaving_units_ += run.units;
  }
  slot.runs.clear();
  --loaded_;
}

void TableStore::Reclaim() {
  if (leaving_runs_.empty() && leaving_indexes_.empty()) return;
  // Without a slab no table was ever loaded, and an index without a table is only counted in.
  if (space_.slab_count() != 0) {
    memory_.WaitForPrograms();
    waits_.Add();
  }
  for (const SlabRun run : leaving_runs_) space_.Give(run);
  leaving_runs_.clear();
  leaving_units_ = 0;
  free_indexes_.insert(free_indexes_.end(), leaving_indexes_.begin(), leaving_indexes_.end());
  leaving_indexes_.clear();
}

void TableStore::Want(uint32_t index) {
  if (slots_[index].waiting) return;
  slots_[index].waiting = true;
  waiting_.push_back(index);
}

// --- eviction ------------------------------------------------------------------------------------

uint32_t TableStore::UsesOf(uint32_t index) const { return LoadWord(memory_.tables()[index].uses); }

uint32_t TableStore::HeatOf(uint32_t index) const {
  return slots_[index].heat + (UsesOf(index) - slots_[index].seen_uses);
}

std::vector<uint32_t> TableStore::LoadedFromColdest() const {
  struct Candidate {
    uint32_t heat, last_used_s, index;
    auto operator<=>(const Candidate&) const = default;
  };
  std::vector<Candidate> candidates;
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    if (slots_[index].runs.empty()) continue;
    candidates.push_back({HeatOf(index), LoadWord(memory_.tables()[index].last_used_s), index});
  }
  std::sort(candidates.begin(), candidates.end());
  std::vector<uint32_t> indexes;
  for (const Candidate& candidate : candidates) indexes.push_back(candidate.index);
  return indexes;
}

void TableStore::Evict(uint32_t index) {
  Unload(index);
  ++evictions_;
  evicted_loss_.Add();
}

// Puts out what is used less than half as much as what is wanted: with less difference two tables
// would take turns.
void TableStore::EvictFor(const std::vector<uint32_t>& wanted) {
  const std::vector<uint32_t> coldest = LoadedFromColdest();
  size_t next = 0;
  uint64_t room = Usable(space_.free_units()) + leaving_units_;
  for (const uint32_t index : wanted) {
    const uint64_t needed = slots_[index].units;
    const uint32_t heat = HeatOf(index);
    uint64_t found = room;
    size_t last = next;
    while (found < needed && last < coldest.size()) {
      const uint32_t cold = HeatOf(coldest[last]);
      if (cold != 0 && uint64_t{cold} * 2 > heat) break;
      found += slots_[coldest[last++]].units;
    }
    if (found < needed) continue;
    while (next < last) Evict(coldest[next++]);
    room = found - needed;
  }
}

void TableStore::LoadWaiting(uint64_t now_s) {
  if (waiting_.empty()) return;
  std::sort(waiting_.begin(), waiting_.end(),
            [this](uint32_t a, uint32_t b) { return HeatOf(a) > HeatOf(b); });
  const auto load = [this](uint32_t index) {
    if (!Load(index, /*may_grow=*/true)) return false;
    slots_[index].waiting = false;
    return true;
  };
  std::erase_if(waiting_, load);
  if (!waiting_.empty() && now_s != last_eviction_s_) {
    last_eviction_s_ = now_s;
    EvictFor(waiting_);
    Reclaim();
    std::erase_if(waiting_, load);
    // What is still out comes back when a window shows that it is used more than others.
    for (const uint32_t index : waiting_) slots_[index].waiting = false;
    no_room_loss_.Add(waiting_.size());
    waiting_.clear();
  }
  ShowMetrics();
}

void TableStore::ObeyBudget() {
  if (space_.slab_count() <= 1) return;
  const size_t slabs = SlabsIn(budget_().keep);
  if (space_.slab_count() <= slabs) return;
  ShrinkTo(slabs);
  ShowMetrics();
}

// --- windows -------------------------------------------------------------------------------------

void TableStore::EndWindow(uint64_t now_s) {
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    Slot& slot = slots_[index];
    if (slot.files == 0) continue;
    const uint32_t uses = UsesOf(index);
    const uint32_t fresh = uses - std::exchange(slot.seen_uses, uses);
    slot.heat = slot.heat / 2 + fresh;
    const bool absent = slot.table != nullptr && slot.runs.empty();
    if (absent && fresh != 0 && FitsIntoSlabs(slot.table->table)) Want(index);
  }
  ShrinkTo(SlabsIn(budget_().keep));
  last_eviction_s_ = 0;
  LoadWaiting(now_s);
  // Holes of one slab and more in sum, and of a quarter of all: worth moving a few tables.
  const uint64_t all_units = uint64_t{kSlabUnits} * space_.slab_count();
  if (space_.free_units() + leaving_units_ > kSlabUnits + all_units / 4) EmptySlabs(1);
  Reclaim();
  RemoveEmptySlabs(/*keep=*/1);
  ShowMetrics();
}

void TableStore::ShrinkTo(size_t slabs) {
  if (space_.slab_count() <= slabs) return;
  const uint64_t allowed = Usable(uint64_t{kSlabUnits} * slabs);
  for (const uint32_t index : LoadedFromColdest()) {
    if (space_.used_units() - leaving_units_ <= allowed) break;
    Evict(index);
  }
  Reclaim();
  RemoveEmptySlabs(slabs);
  if (space_.slab_count() > slabs) EmptySlabs(space_.slab_count() - slabs);
}

// Moves everything out of the emptiest slabs. What finds no other place in one go is put out, and
// loaded again where there is room then.
void TableStore::EmptySlabs(size_t count) {
  std::vector<std::pair<uint32_t, uint32_t>> emptiest;  // units, slab
  for (const auto& [slab, units] : space_.used()) emptiest.emplace_back(units, slab);
  std::sort(emptiest.begin(), emptiest.end());
  emptiest.resize(std::min(count, emptiest.size() - 1));
  std::array<bool, FW_SLABS_MAX> closing{};
  for (const auto& [units, slab] : emptiest) {
    closing[slab] = true;
    space_.SetClosed(slab, true);
  }
  std::vector<uint32_t> displaced;
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    const std::vector<SlabRun>& runs = slots_[index].runs;
    const bool moves = std::any_of(runs.begin(), runs.end(), [&closing](const SlabRun& run) {
      return closing[SlabOf(run.location)];
    });
    if (!moves || Load(index, /*may_grow=*/false)) continue;
    Unload(index);
    displaced.push_back(index);
  }
  Reclaim();
  for (const auto& [units, slab] : emptiest) {
    memory_.RemoveSlab(slab);
    space_.Remove(slab);
  }
  for (const uint32_t index : displaced) {
    if (Load(index, /*may_grow=*/false)) continue;
    ++evictions_;
    evicted_loss_.Add();
  }
}

void TableStore::RemoveEmptySlabs(size_t keep) {
  std::vector<uint32_t> empty;
  for (const auto& [slab, units] : space_.used()) {
    if (units == 0) empty.push_back(slab);
  }
  while (!empty.empty() && space_.slab_count() > keep) {
    memory_.RemoveSlab(empty.back());
    space_.Remove(empty.back());
    empty.pop_back();
  }
}

// --- listing -------------------------------------------------------------------------------------

TableStore::Entry TableStore::EntryOf(uint32_t index) const {
  const Slot& slot = slots_[index];
  return {.index = index,
          .table = slot.table == nullptr ? nullptr : &slot.table->table,
          .bytes = slot.runs.empty() ? 0 : slot.units * 8,
          .last_used_s = LoadWord(memory_.tables()[index].last_used_s),
          .uses = UsesOf(index),
          .files = slot.files,
          .loaded = !slot.runs.empty()};
}

std::vector<TableStore::Entry> TableStore::Entries() const {
  std::vector<Entry> entries;
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    if (slots_[index].files != 0) entries.push_back(EntryOf(index));
  }
  return entries;
}

void TableStore::ShowMetrics() {
  loaded_gauge_.Set(static_cast<double>(loaded_));
  used_gauge_.Set(static_cast<double>(used_bytes()));
  slabs_gauge_.Set(static_cast<double>(slab_bytes()));
}

}  // namespace firewatch::agent
