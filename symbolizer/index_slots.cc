// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index_slots.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace firewatch::symbolizer {
namespace {

// Mappings count against vm.max_map_count (65,530); an index in use is mapped again in 1 ms.
constexpr size_t kMaxMappedIndexes = 2048;
// Names that were shown are kept unpacked: 20,000 of them take some 4 MB.
constexpr size_t kMaxNamesBytes = size_t{8} << 20;

}  // namespace

std::optional<uint32_t> IndexSlots::NumberOf(const std::string& key) const {
  const auto known = by_key_.find(key);
  return known == by_key_.end() ? std::nullopt : std::optional(known->second);
}

std::optional<uint32_t> IndexSlots::Find(const std::string& key) {
  const auto known = NumberOf(key);
  if (known.has_value() && slots_[*known].is_mapped) return known;
  auto index = cache_.Find(key);
  if (!index.ok()) return std::nullopt;
  return Put(key, *std::move(index));
}

uint32_t IndexSlots::Put(const std::string& key, MappedIndex index) {
  const uint32_t number = Slot(key);
  Map(slots_[number], std::move(index));
  return number;
}

IndexSlot* IndexSlots::ForReading(uint32_t number) {
  IndexSlot& slot = slots_[number];
  if (!slot.is_mapped) {
    auto index = cache_.Find(slot.key);
    if (!index.ok()) return nullptr;
    Map(slot, *std::move(index));
  }
  slot.last_use = ++use_clock_;
  return &slot;
}

uint32_t IndexSlots::Slot(const std::string& key) {
  const auto [entry, is_new] = by_key_.try_emplace(key, static_cast<uint32_t>(slots_.size()));
  if (!is_new) return entry->second;
  if (free_slots_.empty()) {
    slots_.emplace_back();
  } else {
    entry->second = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[entry->second].key = key;
  return entry->second;
}

void IndexSlots::Map(IndexSlot& slot, MappedIndex index) {
  Unmap(slot);
  slot.mapped = std::move(index);
  slot.is_mapped = true;
  slot.last_use = ++use_clock_;
  mapped_bytes_ += slot.mapped.file.bytes().size();
  ++mapped_count_;
}

void IndexSlots::Unmap(IndexSlot& slot) {
  if (!slot.is_mapped) return;
  mapped_bytes_ -= slot.mapped.file.bytes().size();
  --mapped_count_;
  names_bytes_ -= slot.names.bytes();
  slot.names.Clear();
  slot.mapped = {};
  slot.is_mapped = false;
}

SymbolFrame IndexSlots::FrameOf(IndexSlot& slot, const IndexFrame& frame) {
  const size_t before = slot.names.bytes();
  const NameTable& table = slot.mapped.index.names();
  const NameCache::Names names = slot.names.Get(table, frame.name, reader_);
  const NameCache::Names file = slot.names.Get(table, frame.file, reader_);
  names_bytes_ += slot.names.bytes() - before;
  return {.name = names.display,
          .system_name = names.linkage,
          .file = file.linkage,
          .line = frame.line,
          .start_line = frame.start_line};
}

void IndexSlots::ForgetNames() {
  if (names_bytes_ <= kMaxNamesBytes) return;
  for (IndexSlot& slot : slots_) slot.names.Clear();
  names_bytes_ = 0;
}

void IndexSlots::ForgetUnused(const std::vector<bool>& used,
                              absl::FunctionRef<bool(const std::string& key)> drop) {
  for (uint32_t number = 0; number < slots_.size(); ++number) {
    IndexSlot& slot = slots_[number];
    if (used[number] || slot.key.empty() || !drop(slot.key)) continue;
    Unmap(slot);
    by_key_.erase(slot.key);
    slot = IndexSlot();
    free_slots_.push_back(number);
  }
}

void IndexSlots::UnmapUnused() {
  if (mapped_count_ <= kMaxMappedIndexes) return;
  std::vector<uint64_t> uses;
  for (const IndexSlot& slot : slots_) {
    if (slot.is_mapped) uses.push_back(slot.last_use);
  }
  const auto median = uses.begin() + static_cast<std::ptrdiff_t>(uses.size() / 2);
  std::nth_element(uses.begin(), median, uses.end());
  for (IndexSlot& slot : slots_) {
    if (slot.is_mapped && slot.last_use < *median) Unmap(slot);
  }
}

}  // namespace firewatch::symbolizer
